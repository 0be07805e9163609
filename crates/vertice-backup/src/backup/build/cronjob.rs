//! The CronJob of a VerticeBackup.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{
    CronJob, CronJobSpec, JobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use vertice_api::vertice_io::VerticeBackup;
use vertice_catalog::manifest::Trigger;
use vertice_catalog::report::EXIT_FAILED;
use vertice_catalog::task::{BackupTask, Task};
use vertice_controller::mutant::{self, Mutant};

use crate::backup::validate::ValidatedBackup;
use crate::build::{Workload, pod_template};
use crate::names;

/// Ended Jobs of each kind that are kept to be looked at; the history in the status does not need them.
const KEPT_JOBS: i32 = 3;
/// How often a run whose pod was killed from outside (memory, node) may start again.
const RETRIES: i32 = 2;

/// How a schedule that was just changed or resumed is kept from catching up on firings of the time before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backup) struct Force {
    /// Since when the schedule is in force.
    pub(in crate::backup) since: Timestamp,
    /// Seconds for which a firing may be late meanwhile.
    pub(in crate::backup) deadline: i64,
}

/// Builds the CronJob.
pub(in crate::backup) fn cronjob(
    backup: &VerticeBackup,
    valid: &ValidatedBackup,
    force: Option<&Force>,
    agent_image: &str,
) -> Result<CronJob, serde_json::Error> {
    let name = backup.metadata.name.as_deref().unwrap_or_default();
    let uid = backup.metadata.uid.as_deref().unwrap_or_default();
    let annotations =
        force.map(|force| [(names::IN_FORCE_SINCE_ANNOTATION.to_owned(), force.since.to_string())].into());
    let deadline = match (valid.starting_deadline, force) {
        (Some(deadline), Some(force)) => Some(deadline.min(force.deadline)),
        (deadline, force) => deadline.or(force.map(|force| force.deadline)),
    };
    let has_owner = !mutant::on(Mutant::CronJobWithoutOwner);
    let ignored = mutant::on(Mutant::SuspendIgnored) && backup.status.is_some();
    Ok(CronJob {
        metadata: ObjectMeta {
            name: Some(names::cronjob(name)),
            namespace: backup.metadata.namespace.clone(),
            labels: Some(names::labels("schedule", names::BACKUP_LABEL, name, uid)),
            annotations,
            owner_references: Some(
                backup.controller_owner_ref(&()).into_iter().filter(|_| has_owner).collect(),
            ),
            finalizers: mutant::on(Mutant::FinalizerForgotten).then(|| vec!["vertice.io/tidy".to_owned()]),
            ..ObjectMeta::default()
        },
        spec: CronJobSpec {
            schedule: valid.schedule_text.clone(),
            time_zone: Some(valid.zone.clone()),
            suspend: Some(valid.suspend && !ignored),
            starting_deadline_seconds: deadline,
            concurrency_policy: Some("Forbid".to_owned()),
            successful_jobs_history_limit: Some(KEPT_JOBS),
            failed_jobs_history_limit: Some(KEPT_JOBS),
            job_template: job_template(name, uid, valid, agent_image)?,
        },
        status: None,
    })
}

fn job_template(
    name: &str,
    uid: &str,
    valid: &ValidatedBackup,
    agent_image: &str,
) -> Result<JobTemplateSpec, serde_json::Error> {
    let labels = names::labels("backup", names::BACKUP_LABEL, name, uid);
    let task = Task::Backup(BackupTask {
        owner: valid.owner.clone(),
        trigger: Trigger::Scheduled,
        server: valid.server.clone(),
        databases: valid.databases.clone(),
        storage: valid.storage.clone(),
        compression: valid.compression,
        compression_level: valid.compression_level,
    });
    let template = pod_template(Workload {
        agent_image,
        engine_image: &valid.engine_image,
        pull_secrets: &valid.pull_secrets,
        task: serde_json::to_string(&task)?,
        target_secret: &valid.server.secret,
        storage_secret: &valid.storage.secret,
        labels: labels.clone(),
    });
    Ok(JobTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(JobSpec {
            active_deadline_seconds: Some(valid.timeout),
            backoff_limit: Some(RETRIES),
            pod_failure_policy: Some(PodFailurePolicy { rules: failure_rules() }),
            template,
            ..JobSpec::default()
        }),
    })
}

/// A drained or preempted pod is replaced and not counted; what the agent itself reported as failed is final; the rest (killed for
/// want of memory, deleted by hand) is tried again.
fn failure_rules() -> Vec<PodFailurePolicyRule> {
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: Some("True".to_owned()),
    };
    let failed = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(names::AGENT_CONTAINER.to_owned()),
        operator: "In".to_owned(),
        values: vec![EXIT_FAILED.into()],
    };
    vec![
        PodFailurePolicyRule {
            action: "Ignore".to_owned(),
            on_exit_codes: None,
            on_pod_conditions: Some(vec![disrupted]),
        },
        PodFailurePolicyRule {
            action: "FailJob".to_owned(),
            on_exit_codes: Some(failed),
            on_pod_conditions: None,
        },
    ]
}
