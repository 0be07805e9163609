//! The CronJob of a VerticeBackup.

use jiff::{SignedDuration, Timestamp};
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

/// Ended Jobs of each kind that are kept: what ends while the operator is down is counted as long as its Job is there.
const KEPT_JOBS: i32 = 10;
/// How often a run whose pod was killed from outside (memory, node) may start again.
const RETRIES: i32 = 2;

/// How late the first firing of a schedule that was just changed or resumed may be.
pub(in crate::backup) const FIRST_DEADLINE: SignedDuration = SignedDuration::from_secs(15);

/// When a schedule that was changed or resumed came into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backup) struct Force {
    /// Firings up to here are not caught up.
    pub(in crate::backup) since: Timestamp,
    /// Until then its first firing may be late for [`FIRST_DEADLINE`] only; none when that is over.
    pub(in crate::backup) guarded_until: Option<Timestamp>,
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
    let guard = force.and_then(|force| force.guarded_until).map(|_| FIRST_DEADLINE.as_secs());
    let deadline = valid.starting_deadline.into_iter().chain(guard).min();
    let has_owner = !mutant::on(Mutant::CronJobWithoutOwner);
    let ignored = mutant::on(Mutant::SuspendIgnored) && backup.status.is_some();
    Ok(CronJob {
        metadata: ObjectMeta {
            name: Some(names::cronjob(name)),
            namespace: backup.metadata.namespace.clone(),
            labels: Some(names::labels("schedule", names::BACKUP_LABEL, name, uid)),
            annotations,
            // Without `blockOwnerDeletion`: a deletion of the owner need not wait for it, and with it the operator would need rights on the
            // owner's finalizers wherever the admission plug-in OwnerReferencesPermissionEnforcement is on.
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
