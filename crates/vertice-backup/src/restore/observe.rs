//! Reads, once, all that a decision about a VerticeRestore needs.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt as _};
use vertice_api::vertice_io::{RestorePhase, VerticeBackup, VerticeRestore};

use crate::live::{self, ReadError};
use crate::names;
use crate::run::{self, Attempt};
use crate::target::Candidates;

/// The caches.
#[derive(Clone, Debug)]
pub(super) struct Caches {
    pub(super) backups: Store<VerticeBackup>,
    pub(super) jobs: Store<Job>,
    pub(super) pods: Store<Pod>,
}

/// Everything that a plan is made from.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) restore: Arc<VerticeRestore>,
    /// The VerticeBackup that the source names.
    pub(super) backup: Option<Arc<VerticeBackup>>,
    pub(super) candidates: Candidates,
    /// The Job of the restore's name, whoever made it.
    pub(super) attempt: Option<Attempt>,
    pub(super) agent_image: String,
}

/// Whether a restore ended; nothing about it changes any more.
pub(super) fn has_ended(restore: &VerticeRestore) -> bool {
    let phase = restore.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(RestorePhase::Succeeded | RestorePhase::Failed))
}

/// Whether a restore has a Job of its own; from then on its spec is not looked at again.
pub(super) fn has_job(restore: &VerticeRestore) -> bool {
    restore.status.as_ref().is_some_and(|status| status.job_uid.is_some())
}

/// Reads it all.
pub(super) async fn observe(
    client: &Client,
    caches: &Caches,
    restore: Arc<VerticeRestore>,
    agent_image: String,
) -> Result<Observed, ReadError> {
    let namespace = restore.namespace().unwrap_or_default();
    let attempt = attempt(client, caches, &restore, &namespace).await?;
    let named = restore.spec.source.backup_name.as_ref();
    let backup = named.and_then(|name| caches.backups.get(&ObjectRef::new(name).within(&namespace)));
    let target = restore.spec.target.as_ref().or(backup.as_ref().map(|backup| &backup.spec.target));
    let resolves = attempt.is_none() && target.is_some_and(|target| target.host.is_none());
    let candidates =
        if resolves { live::candidates(client, &namespace).await? } else { Candidates::default() };
    Ok(Observed { restore, backup, candidates, attempt, agent_image })
}

async fn attempt(
    client: &Client,
    caches: &Caches,
    restore: &VerticeRestore,
    namespace: &str,
) -> Result<Option<Attempt>, ReadError> {
    let name = names::restore_job(&restore.name_any());
    let known = caches.jobs.get(&ObjectRef::new(&name).within(namespace)).map(|job| Job::clone(&job));
    let uid = restore.status.as_ref().and_then(|status| status.job_uid.as_ref());
    // Before a Job is made, or called deleted, the API server is asked: the cache may be behind, and it has only our Jobs.
    let job = match known.filter(|job| uid.is_none() || job.uid().as_ref() == uid) {
        Some(job) => Some(job),
        None => live::job(client, namespace, &name).await?,
    };
    let Some(job) = job else { return Ok(None) };
    let mut pods = live::pods_of(&caches.pods, &job);
    if run::is_settled(&job) && !run::has_report(&pods) {
        pods = live::pods(client, namespace, &job).await?;
    }
    Ok(Some(Attempt { job, pods }))
}
