//! Plays the CronJob controller, the Job controller and the kubelet.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use vertice_catalog::id::BackupId;
use vertice_catalog::report::{FailureReason, Report};

use crate::stage::{Stage, wait};

/// The pod of a Job.
fn pod_name(job: &str) -> String {
    format!("{job}-pod")
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap()
}

/// The report of a backup of this size.
pub(crate) fn backed_up(bytes: u64) -> Report {
    let now = Timestamp::now();
    Report::BackedUp {
        backup_id: BackupId::new(now, [1, 2, 3]),
        started_at: now - SignedDuration::from_secs(3),
        finished_at: now,
        stored_bytes: bytes,
        plain_bytes: bytes * 4,
        databases: 2,
        server_version: "15.18".to_owned(),
    }
}

/// The report of a restore of this size.
pub(crate) fn restored(bytes: u64) -> Report {
    let now = Timestamp::now();
    Report::Restored {
        backup_id: BackupId::new(now, [4, 5, 6]),
        started_at: now - SignedDuration::from_secs(2),
        finished_at: now,
        plain_bytes: bytes,
        databases: vec!["orders".to_owned()],
    }
}

/// The report of a run that failed.
pub(crate) fn failed(reason: FailureReason, message: &str) -> Report {
    let now = Timestamp::now();
    Report::Failed { reason, message: message.to_owned(), started_at: now, finished_at: now }
}

/// Makes a Job as the CronJob controller does, or, with `manual`, as `kubectl create job --from` does.
pub(crate) async fn fire(stage: &Stage, cronjob: &CronJob, name: &str, manual: bool) -> Job {
    let template = serde_json::to_value(&cronjob.spec.job_template).unwrap();
    let mut annotations = template["metadata"]["annotations"].clone();
    if manual {
        annotations = json!({"cronjob.kubernetes.io/instantiate": "manual"});
    }
    stage
        .create(json!({
            "metadata": {
                "name": name,
                "labels": template["metadata"]["labels"],
                "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "CronJob", "controller": true,
                    "name": cronjob.name_any(), "uid": cronjob.uid().unwrap(),
                }],
            },
            "spec": template["spec"],
        }))
        .await
}

/// Starts a Job: its status says so, and it has a pod that runs.
pub(crate) async fn start(stage: &Stage, job: &str) {
    let found: Job = stage.get(job).await;
    let started = whole_second(Timestamp::now()) - SignedDuration::from_secs(9);
    stage.patch_status::<Job>(job, json!({"startTime": started, "active": 1, "ready": 1})).await;
    let template = serde_json::to_value(&found.spec.as_ref().unwrap().template).unwrap();
    let mut labels = template["metadata"]["labels"].clone();
    labels["batch.kubernetes.io/job-name"] = job.into();
    let pod: Pod = stage
        .create(json!({
            "metadata": {
                "name": pod_name(job),
                "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "controller": true, "name": job, "uid": found.uid().unwrap(),
                }],
            },
            "spec": template["spec"],
        }))
        .await;
    container(stage, &pod.name_any(), "Running", json!({"running": {"startedAt": started}})).await;
}

/// What the kubelet says of the agent's container.
async fn container(stage: &Stage, pod: &str, phase: &str, is: Value) {
    let status = json!({
        "name": "agent", "image": "postgres:15.18", "imageID": "", "ready": false, "restartCount": 0, "state": is,
    });
    stage.patch_status::<Pod>(pod, json!({"phase": phase, "containerStatuses": [status]})).await;
}

/// The kubelet cannot pull the engine's image.
pub(crate) async fn image_missing(stage: &Stage, job: &str) {
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
    container(stage, &pod_name(job), "Pending", waiting).await;
}

/// The agent ends with this report.
pub(crate) async fn report(stage: &Stage, job: &str, end: &Report) {
    let message = end.to_termination_message().unwrap();
    let code = i32::from(matches!(end, Report::Failed { .. }));
    let finished = whole_second(Timestamp::now());
    let is = json!({"terminated": {"exitCode": code, "message": message, "finishedAt": finished}});
    container(stage, &pod_name(job), if code == 0 { "Succeeded" } else { "Failed" }, is).await;
}

/// The Job controller settles the Job.
pub(crate) async fn settle(stage: &Stage, job: &str, success: bool, reason: &str) {
    let now = whole_second(Timestamp::now());
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": reason, "message": reason, "lastTransitionTime": now, "lastProbeTime": now});
    let status = if success {
        json!({
            "active": 0, "ready": 0, "terminating": 0, "succeeded": 1, "completionTime": now, "uncountedTerminatedPods": {},
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        })
    } else {
        json!({
            "active": 0, "ready": 0, "terminating": 0, "failed": 1, "uncountedTerminatedPods": {},
            "conditions": [condition("FailureTarget"), condition("Failed")],
        })
    };
    stage.patch_status::<Job>(job, status).await;
}

/// A whole run.
pub(crate) async fn run(stage: &Stage, cronjob: &CronJob, name: &str, end: &Report) {
    fire(stage, cronjob, name, false).await;
    start(stage, name).await;
    finish(stage, name, end).await;
}

/// The end of a run that has started.
pub(crate) async fn finish(stage: &Stage, job: &str, end: &Report) {
    report(stage, job, end).await;
    let success = !matches!(end, Report::Failed { .. });
    settle(stage, job, success, if success { "CompletionsReached" } else { "PodFailurePolicy" }).await;
}

/// Deletes a Job and its pod at once, as garbage collection would.
pub(crate) async fn delete(stage: &Stage, job: &str) {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::background() };
    stage.api::<Job>().delete(job, &now).await.unwrap();
    if stage.api::<Pod>().get_opt(&pod_name(job)).await.unwrap().is_some() {
        stage.api::<Pod>().delete(&pod_name(job), &now).await.unwrap();
    }
    wait(&format!("{job} is gone"), async || {
        stage.api::<Job>().get_opt(job).await.unwrap().is_none().then_some(())
    })
    .await;
}
