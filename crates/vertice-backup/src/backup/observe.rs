//! Reads, once, all that a decision about a VerticeBackup needs: from caches, and from the API server where a cache may be behind
//! and a wrong decision would be final.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use vertice_api::vertice_io::{BackupRun, RunStatus, VerticeBackup};
use vertice_controller::mutant::{self, Mutant};
use vertice_controller::run::Context;

use super::known::KnownCronJob;
use super::timetable::Timetable;
use crate::live::{self, ReadError};
use crate::names;
use crate::run::{self, Attempt};
use crate::target::Candidates;

/// The caches.
#[derive(Clone, Debug)]
pub(super) struct Caches {
    pub(super) cronjobs: Store<KnownCronJob>,
    pub(super) jobs: Store<Job>,
    pub(super) pods: Store<Pod>,
}

/// Everything that a plan is made from.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) backup: Arc<VerticeBackup>,
    /// The CronJob of that name, whoever made it.
    pub(super) cronjob: Option<CronJob>,
    /// The Jobs of this very VerticeBackup (not of an earlier one of the same name), with their pods.
    pub(super) attempts: Vec<Attempt>,
    pub(super) candidates: Candidates,
    /// UID of the cluster's `kube-system` namespace.
    pub(super) cluster: String,
    pub(super) agent_image: String,
}

impl Observed {
    /// Whether the CronJob of that name is this very VerticeBackup's.
    pub(super) fn owns_cronjob(&self) -> bool {
        let uid = self.backup.uid();
        let owners = self.cronjob.iter().flat_map(ResourceExt::owner_references);
        owners.filter(|owner| owner.controller == Some(true)).any(|owner| Some(&owner.uid) == uid.as_ref())
    }
}

/// Reads it all.
pub(super) async fn observe(
    context: &Context,
    caches: &Caches,
    backup: Arc<VerticeBackup>,
    cluster: String,
    agent_image: String,
    now: Timestamp,
) -> Result<Observed, ReadError> {
    let client = &context.client;
    let namespace = backup.namespace().unwrap_or_default();
    let cronjob = cronjob(context, caches, &backup, &namespace, now).await?;
    let candidates = match backup.spec.target.host {
        Some(_) => Candidates::default(),
        None => live::candidates(client, &namespace).await?,
    };
    let attempts = attempts(client, caches, &backup, &namespace).await?;
    Ok(Observed { backup, cronjob, attempts, candidates, cluster, agent_image })
}

/// Before the name is called taken or a run missed, the API server is asked: the cache has only what carries our labels, and may be
/// behind.
async fn cronjob(
    context: &Context,
    caches: &Caches,
    backup: &VerticeBackup,
    namespace: &str,
    now: Timestamp,
) -> Result<Option<CronJob>, ReadError> {
    let name = names::cronjob(&backup.name_any());
    let known = caches.cronjobs.get(&ObjectRef::new(&name).within(namespace));
    let known = known.map(|cronjob| CronJob::from(&*cronjob));
    let told = backup.status.as_ref().and_then(|status| status.last_missed.as_ref()).map(|missed| missed.0);
    let overdue = |cronjob: &CronJob| Timetable::of(cronjob, Some(cronjob), now)?.overdue(now);
    match known {
        // Since when a schedule is in force stands on the CronJob: from one that is outdated an earlier instant would be put back.
        Some(cronjob)
            if !context.applier.is_behind(&cronjob.metadata)
                && overdue(&cronjob).is_none_or(|due| told >= Some(due)) =>
        {
            Ok(Some(cronjob))
        }
        _ => live::cronjob(&context.client, namespace, &name).await,
    }
}

async fn attempts(
    client: &Client,
    caches: &Caches,
    backup: &VerticeBackup,
    namespace: &str,
) -> Result<Vec<Attempt>, ReadError> {
    let uid = backup.uid().unwrap_or_default();
    let ours = |job: &Job| {
        job.namespace().as_deref() == Some(namespace)
            && (job.labels().get(names::OWNER_UID_LABEL) == Some(&uid) || mutant::on(Mutant::OwnerByName))
    };
    let mut jobs: Vec<Job> =
        caches.jobs.state().iter().filter(|job| ours(job)).map(|job| Job::clone(job)).collect();
    if let Some(missing) = missing_run(backup, &jobs) {
        // Before a run is called lost, the API server is asked: the cache may be behind.
        let found = live::job(client, namespace, &missing.job).await?;
        jobs.extend(found.filter(|job| job.uid().as_ref() == Some(&missing.job_uid)));
    }
    jobs.sort_by_key(|job| (job.metadata.creation_timestamp.as_ref().map(|time| time.0), job.name_any()));
    let history = backup.status.as_ref().map(|status| &status.history[..]).unwrap_or_default();
    let mut attempts = Vec::with_capacity(jobs.len());
    for job in jobs {
        let counted = history.iter().any(|entry| Some(&entry.job_uid) == job.uid().as_ref());
        let mut pods = live::pods_of(&caches.pods, &job);
        let is_told = run::has_report(&pods) || mutant::on(Mutant::ReportFromCacheOnly);
        if run::is_settled(&job) && !counted && !is_told {
            pods = live::pods(client, namespace, &job).await?;
        }
        attempts.push(Attempt { job, pods });
    }
    Ok(attempts)
}

/// The run that the status calls running and that the cache does not have.
fn missing_run<'a>(backup: &'a VerticeBackup, jobs: &[Job]) -> Option<&'a BackupRun> {
    let last = backup.status.as_ref()?.last_backup.as_ref()?;
    let known = jobs.iter().any(|job| job.uid().as_ref() == Some(&last.job_uid));
    (last.status == RunStatus::Running && !known).then_some(last)
}
