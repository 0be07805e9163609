//! The Job controller, as far as Jobs of one pod go: start, retry, failure policy, deadline, suspension, end.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{Cluster, is_controlled_by};
use crate::error::Result;

/// Does one thing about a Job, if there is one to do.
pub(super) async fn sync(cluster: &Cluster, job: &Arc<Job>) -> Result<bool> {
    if job.metadata.deletion_timestamp.is_some() || has_ended(job) {
        return Ok(false);
    }
    let Some(spec) = &job.spec else { return Ok(false) };
    let status = job.status.clone().unwrap_or_default();
    let uid = job.uid();
    let mut pods = cluster.world.pods.state();
    pods.retain(|pod| is_controlled_by(&**pod, uid.as_deref()));
    pods.sort_by_key(|pod| pod.name_any());
    if spec.suspend == Some(true) {
        return suspend(cluster, job).await;
    }
    let Some(started) = status.start_time.map(|time| time.0) else { return start(cluster, job).await };
    let now = cluster.now();
    if is_overdue(spec, started, now) {
        return overdue(cluster, job, &pods).await;
    }
    if pods.iter().any(|pod| phase(pod) == "Succeeded") {
        let end = json!({
            "active": 0, "ready": 0, "terminating": 0, "succeeded": 1, "completionTime": now,
            "uncountedTerminatedPods": {}, "failed": failures(&pods),
            "conditions": ended(job, ["SuccessCriteriaMet", "Complete"], "CompletionsReached", now),
        });
        cluster.status(&cluster.world.jobs, job, end).await?;
        return Ok(true);
    }
    if let Some(reason) = gives_up(spec, &pods) {
        return fail(cluster, job, &pods, reason).await;
    }
    if pods.iter().all(|pod| phase(pod) == "Failed") {
        let name = format!("{}-{}", job.name_any(), pods.len() + 1);
        cluster.create(&cluster.world.pods, pod(job, spec, &name)).await?;
        return Ok(true);
    }
    let failed = failures(&pods);
    if status.active != Some(1) || status.failed.unwrap_or(0) != failed {
        let failed = (failed > 0).then_some(failed);
        let running = json!({"active": 1, "ready": 0, "failed": failed, "uncountedTerminatedPods": {}});
        cluster.status(&cluster.world.jobs, job, running).await?;
        return Ok(true);
    }
    Ok(false)
}

fn is_overdue(spec: &JobSpec, started: Timestamp, now: Timestamp) -> bool {
    let Some(deadline) = spec.active_deadline_seconds else { return false };
    started.checked_add(SignedDuration::from_secs(deadline)).is_ok_and(|end| end <= now)
}

async fn suspend(cluster: &Cluster, job: &Job) -> Result<bool> {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    if conditions.is_some_and(|conditions| conditions.iter().any(|one| one.type_ == "Suspended")) {
        return Ok(false);
    }
    let suspended = condition("Suspended", "True", "JobSuspended", cluster.now());
    cluster.status(&cluster.world.jobs, job, json!({"conditions": [suspended]})).await?;
    Ok(true)
}

async fn start(cluster: &Cluster, job: &Job) -> Result<bool> {
    let now = cluster.now();
    let was_suspended = job.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some();
    let resumed = was_suspended.then(|| [condition("Suspended", "False", "JobResumed", now)]);
    let status = json!({"startTime": now, "conditions": resumed});
    cluster.status(&cluster.world.jobs, job, status).await?;
    Ok(true)
}

async fn overdue(cluster: &Cluster, job: &Job, pods: &[Arc<Pod>]) -> Result<bool> {
    for pod in pods.iter().filter(|pod| !matches!(phase(pod), "Succeeded" | "Failed")) {
        cluster.delete(&cluster.world.pods, &**pod).await?;
    }
    fail(cluster, job, pods, "DeadlineExceeded").await
}

async fn fail(cluster: &Cluster, job: &Job, pods: &[Arc<Pod>], reason: &str) -> Result<bool> {
    let end = json!({
        "active": 0, "ready": 0, "terminating": 0, "failed": failures(pods), "uncountedTerminatedPods": {},
        "conditions": ended(job, ["FailureTarget", "Failed"], reason, cluster.now()),
    });
    cluster.status(&cluster.world.jobs, job, end).await?;
    Ok(true)
}

/// Why no further pod is tried, if none is.
fn gives_up(spec: &JobSpec, pods: &[Arc<Pod>]) -> Option<&'static str> {
    let failed: Vec<_> = pods.iter().filter(|pod| phase(pod) == "Failed").collect();
    let rules = || spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for pod in &failed {
        let code = exit_code(pod);
        let told = rules().find(|rule| {
            let codes = rule.on_exit_codes.as_ref();
            codes
                .zip(code)
                .is_some_and(|(codes, code)| codes.operator == "In" && codes.values.contains(&code))
        });
        if told.is_some_and(|rule| rule.action == "FailJob") {
            return Some("PodFailurePolicy");
        }
    }
    let limit = spec.backoff_limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(6);
    (failed.len() > limit).then_some("BackoffLimitExceeded")
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find_map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.exit_code))
}

fn failures(pods: &[Arc<Pod>]) -> i32 {
    i32::try_from(pods.iter().filter(|pod| phase(pod) == "Failed").count()).unwrap_or(i32::MAX)
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn condition(type_: &str, status: &str, reason: &str, now: Timestamp) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": reason,
        "lastTransitionTime": now, "lastProbeTime": now,
    })
}

/// The conditions of a Job that ends now.
fn ended(job: &Job, types: [&str; 2], reason: &str, now: Timestamp) -> Vec<Value> {
    let before = job.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let before = before.into_iter().map(|condition| json!(condition));
    before.chain(types.map(|type_| condition(type_, "True", reason, now))).collect()
}

fn is(job: &Job, type_: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Whether a Job ended well.
pub(crate) fn has_completed(job: &Job) -> bool {
    is(job, "Complete")
}

/// Whether a Job ended.
pub(crate) fn has_ended(job: &Job) -> bool {
    is(job, "Complete") || is(job, "Failed")
}

/// A pod of a Job; a real one's name ends in random letters.
fn pod(job: &Job, spec: &JobSpec, name: &str) -> Value {
    let template = json!(spec.template);
    let mut labels = template["metadata"]["labels"].clone();
    for prefix in ["", "batch.kubernetes.io/"] {
        labels[format!("{prefix}job-name")] = job.name_any().into();
        labels[format!("{prefix}controller-uid")] = job.uid().into();
    }
    json!({
        "metadata": {
            "name": name,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "Job", "controller": true, "blockOwnerDeletion": true,
                "name": job.name_any(), "uid": job.uid(),
            }],
        },
        "spec": template["spec"],
    })
}
