use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Attempt, RunState, judge, patience_ends};
use crate::testing::at;

const NOW: &str = "2026-11-21T03:00:00Z";

fn job(status: &Value) -> Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": "shop-backup-1", "uid": "job-uid", "creationTimestamp": "2026-11-21T02:00:00Z",
            "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
        },
        "spec": {"activeDeadlineSeconds": 5400, "template": {}},
        "status": status,
    }))
    .unwrap()
}

fn condition(type_: &str, reason: &str, message: &str, time: &str) -> Value {
    json!({"type": type_, "status": "True", "reason": reason, "message": message, "lastTransitionTime": time})
}

/// A pod whose agent ended with this exit code and termination message.
fn pod(name: &str, code: i32, reason: &str, message: Option<Value>) -> Pod {
    let message = message.map(|message| message.as_str().map_or_else(|| message.to_string(), str::to_owned));
    serde_json::from_value(json!({
        "metadata": {"name": name, "creationTimestamp": "2026-11-21T02:00:01Z"},
        "status": {"containerStatuses": [{
            "name": "agent", "image": "postgres:15", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {
                "exitCode": code, "reason": reason, "message": message,
                "startedAt": "2026-11-21T02:00:02Z", "finishedAt": "2026-11-21T02:05:30Z",
            }},
        }]},
    }))
    .unwrap()
}

/// A pod that has not started.
fn waiting(list: &str, reason: &str, message: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "shop-backup-1-wait", "creationTimestamp": "2026-11-21T02:00:01Z"},
        "status": {(list): [{
            "name": "agent", "image": "nowhere/postgres:15", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": message}},
        }]},
    }))
    .unwrap()
}

fn unschedulable() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "shop-backup-1-pend"},
        "status": {"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 Insufficient memory.",
        }]},
    }))
    .unwrap()
}

fn evicted() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "shop-backup-1-evic"},
        "status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
    }))
    .unwrap()
}

fn backed_up() -> Value {
    json!({
        "outcome": "backedUp", "backupId": "20261121T020003Z-3f9a1c", "startedAt": "2026-11-21T02:00:03Z",
        "finishedAt": "2026-11-21T02:05:29Z", "storedBytes": 1_234_567, "plainBytes": 7_654_321, "databases": 2,
        "serverVersion": "15.18",
    })
}

fn wrong_password() -> Value {
    json!({
        "outcome": "failed", "reason": "AuthenticationFailed", "message": "server db refused user app: check Secret db",
        "startedAt": "2026-11-21T02:00:03Z", "finishedAt": "2026-11-21T02:00:04Z",
    })
}

fn state(status: &Value, pods: Vec<Pod>, last_waiting: Option<&str>) -> RunState {
    judge(&Attempt { job: job(status), pods }, last_waiting, at(NOW)).state
}

fn failed_status(reason: &str, message: &str) -> Value {
    json!({
        "startTime": "2026-11-21T02:00:00Z",
        "conditions": [
            condition("FailureTarget", reason, message, "2026-11-21T02:05:31Z"),
            condition("Failed", reason, message, "2026-11-21T02:06:40Z"),
        ],
    })
}

fn complete_status() -> Value {
    json!({
        "startTime": "2026-11-21T02:00:00Z", "completionTime": "2026-11-21T02:05:32Z",
        "conditions": [condition("Complete", "CompletionsReached", "", "2026-11-21T02:05:33Z")],
    })
}

#[test]
fn each_end_of_a_run_is_told_for_what_it_was() {
    let policy =
        || failed_status("PodFailurePolicy", "Container agent failed with exit code 1 matching FailJob rule");
    let backoff = || failed_status("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    let deadline = || failed_status("DeadlineExceeded", "Job was active longer than specified deadline");
    let stuck = "pod x, image y: ImagePullBackOff: no such image";
    let cases: Vec<(&str, RunState)> = vec![
        ("succeeded", state(&complete_status(), vec![pod("p", 0, "Completed", Some(backed_up()))], None)),
        ("succeeded, pod gone", state(&complete_status(), vec![], None)),
        ("wrong password", state(&policy(), vec![pod("p", 1, "Error", Some(wrong_password()))], None)),
        ("out of memory", state(&backoff(), vec![pod("p", 137, "OOMKilled", None)], None)),
        (
            "no report but a panic",
            state(&policy(), vec![pod("p", 1, "Error", Some(json!("thread main panicked")))], None),
        ),
        ("evicted", state(&backoff(), vec![evicted()], None)),
        ("failed, pod gone", state(&backoff(), vec![], None)),
        ("deadline", state(&deadline(), vec![pod("p", 1, "Error", Some(wrong_password()))], None)),
        ("deadline, never started", state(&deadline(), vec![], Some(stuck))),
        (
            "deadline, but the manifest was there",
            state(&deadline(), vec![pod("p", 0, "Completed", Some(backed_up()))], None),
        ),
    ];
    insta::assert_debug_snapshot!(cases);
}

#[test]
fn what_keeps_a_pod_from_starting_is_told_while_it_waits() {
    let active = || json!({"startTime": "2026-11-21T02:00:00Z", "active": 1});
    let message = "Back-off pulling image \"nowhere/postgres:15\"";
    let cases = [
        waiting("containerStatuses", "ImagePullBackOff", message),
        waiting("initContainerStatuses", "ErrImagePull", "not found"),
        waiting(
            "containerStatuses",
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
        ),
        waiting("containerStatuses", "ContainerCreating", "passes by itself"),
        unschedulable(),
    ]
    .map(|pod| state(&active(), vec![pod], None));
    insta::assert_debug_snapshot!(cases);
}

#[test]
fn a_job_without_a_pod_is_told_after_a_while_and_looked_at_then() {
    let attempt = Attempt { job: job(&json!({"startTime": "2026-11-21T02:00:00Z"})), pods: vec![] };
    let early = at("2026-11-21T02:00:29Z");
    assert_eq!(judge(&attempt, None, early).state, RunState::Running { waiting: None });
    let started = at("2026-11-21T02:00:00Z");
    let until = patience_ends(&attempt, started, early).unwrap();
    assert_eq!(until, at("2026-11-21T02:00:30Z"));
    let RunState::Running { waiting: Some(waiting) } = judge(&attempt, None, until).state else { panic!() };
    assert_eq!(waiting, "Job shop-backup-1 has no pod for 30s; kubectl describe job shop-backup-1 tells why");
    assert_eq!(patience_ends(&attempt, started, until), None);
}

#[test]
fn what_may_pass_is_told_after_a_while_and_looked_at_then() {
    let made = at("2026-11-21T02:10:00Z");
    let judged = |mut pod: Pod, now: &str| {
        pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(made));
        let attempt =
            Attempt { job: job(&json!({"startTime": "2026-11-21T02:00:00Z", "active": 1})), pods: vec![pod] };
        let run = judge(&attempt, None, at(now));
        let RunState::Running { waiting } = run.state else { panic!("{now}") };
        (waiting.is_some(), patience_ends(&attempt, run.started, at(now)))
    };
    let (early, over) = ("2026-11-21T02:10:29Z", "2026-11-21T02:10:30Z");
    for pod in [unschedulable(), waiting("initContainerStatuses", "ErrImagePull", "502 Bad Gateway")] {
        assert_eq!(judged(pod.clone(), early), (false, Some(at(over))), "a replacement pod has its own time");
        assert_eq!(judged(pod, over), (true, None));
    }
    for reason in ["ImagePullBackOff", "CreateContainerConfigError"] {
        let pod = waiting("containerStatuses", reason, "no such image");
        assert_eq!(judged(pod, early), (true, None), "{reason}");
    }
}

#[test]
fn the_report_of_the_last_attempt_counts() {
    let mut first = pod("first", 1, "Error", Some(wrong_password()));
    let ended = &mut first.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0];
    let state = ended.state.as_mut().unwrap().terminated.as_mut().unwrap();
    state.finished_at =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at("2026-11-21T02:09:00Z")));
    let mut other = wrong_password();
    other["reason"] = "HostUnreachable".into();
    let pods = vec![first, pod("second", 1, "Error", Some(other))];
    let run = judge(&Attempt { job: job(&failed_status("PodFailurePolicy", "")), pods }, None, at(NOW));
    assert!(matches!(run.state, RunState::Failed { reason, .. } if reason == "AuthenticationFailed"));
}

#[test]
fn a_run_is_timed_by_its_job_and_the_settled_end() {
    let attempt = Attempt { job: job(&failed_status("PodFailurePolicy", "no")), pods: vec![] };
    let run = judge(&attempt, None, at(NOW));
    assert_eq!((run.job.as_str(), run.uid.as_str(), run.manual), ("shop-backup-1", "job-uid", true));
    assert_eq!(run.started, at("2026-11-21T02:00:00Z"));
    assert_eq!(run.ended(), Some(at("2026-11-21T02:05:31Z")), "FailureTarget, not the later Failed");
    assert_eq!(run.took().as_secs(), 331);
    let never: Option<Timestamp> =
        judge(&Attempt { job: job(&json!({})), pods: vec![] }, None, at(NOW)).ended();
    assert_eq!(never, None);
}
