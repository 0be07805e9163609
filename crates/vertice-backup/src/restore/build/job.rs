//! The Job of a VerticeRestore.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use vertice_api::vertice_io::VerticeRestore;
use vertice_catalog::task::Task;
use vertice_controller::mutant::{self, Mutant};

use crate::build::{Workload, pod_template};
use crate::names;
use crate::restore::validate::ValidatedRestore;

/// Builds the Job, suspended: see [`crate::restore`].
pub(in crate::restore) fn job(
    restore: &VerticeRestore,
    valid: &ValidatedRestore,
    agent_image: &str,
) -> Result<Job, serde_json::Error> {
    let name = restore.metadata.name.as_deref().unwrap_or_default();
    let uid = restore.metadata.uid.as_deref().unwrap_or_default();
    let labels = names::labels("restore", names::RESTORE_LABEL, name, uid);
    let template = pod_template(Workload {
        agent_image,
        engine_image: &valid.engine_image,
        pull_secrets: &valid.pull_secrets,
        task: serde_json::to_string(&Task::Restore(valid.task.clone()))?,
        target_secret: &valid.task.server.secret,
        storage_secret: &valid.task.storage.secret,
        labels: labels.clone(),
    });
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(names::restore_job(name)),
            namespace: restore.metadata.namespace.clone(),
            labels: Some(labels),
            // Without `blockOwnerDeletion`, as for the CronJob of a VerticeBackup.
            owner_references: Some(restore.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            active_deadline_seconds: Some(valid.timeout),
            // A restore is never tried again by itself: a person decides what the target is worth now.
            backoff_limit: Some(0),
            suspend: Some(!mutant::on(Mutant::JobNotSuspended)),
            template,
            ..JobSpec::default()
        }),
        status: None,
    })
}
