//! The last line of a run.

use std::time::Duration;

use futures::StreamExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use vertice_api::duration;
use vertice_api::vertice_io::{BackupRun, RunStatus, VerticeBackup};
use vertice_catalog::humane;
use vertice_catalog::report::Report;
use vertice_catalog::task::Task;

use super::follow::Ended;
use super::job;
use crate::cluster::Cluster;

/// How long the operator may take to judge a run that ended.
const JUDGEMENT: Duration = Duration::from_secs(15);

/// Where the Job's backup lies.
pub(crate) fn location(job: &Job) -> Option<String> {
    match job::task(job)? {
        Task::Backup(task) => Some(task.storage.url()),
        Task::Restore(_) => None,
    }
}

/// The line of a run whose agent reported a backup.
pub(crate) fn success(name: &str, ended: &Ended, location: Option<&str>) -> Option<String> {
    let Some(Report::BackedUp {
        backup_id,
        started_at,
        finished_at,
        stored_bytes,
        plain_bytes,
        databases,
        server_version,
    }) = &ended.report
    else {
        return None;
    };
    let took = duration::format(finished_at.duration_since(*started_at).max(SignedDuration::ZERO));
    let seconds = finished_at.duration_since(*started_at).as_secs_f64();
    let place = location.map_or(String::new(), |url| format!("\n{url}/{backup_id}"));
    Some(format!(
        "backup {name} succeeded: {databases} {} of server version {server_version}, {} stored ({} before compression) in {took} \
         ({}){place}\n",
        if *databases == 1 { "database" } else { "databases" },
        humane::bytes(*stored_bytes),
        humane::bytes(*plain_bytes),
        humane::rate(*plain_bytes, seconds),
    ))
}

/// What the operator wrote about the run of this Job, once it has judged it.
pub(crate) async fn status_of(cluster: &Cluster, name: &str, job_uid: &str) -> Option<BackupRun> {
    let backups = Api::<VerticeBackup>::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut versions = watcher::watch_object(backups, name).default_backoff().boxed();
    let judged = async {
        while let Some(version) = versions.next().await {
            let status = version.ok().flatten().and_then(|backup| backup.status).unwrap_or_default();
            let mut runs = status.history.into_iter().chain(status.last_backup);
            if let Some(run) = runs.find(|run| run.job_uid == job_uid && run.status != RunStatus::Running) {
                return Some(run);
            }
        }
        None
    };
    tokio::time::timeout(JUDGEMENT, judged).await.ok().flatten()
}

/// The line of a run without a good report: the operator's word, else the agent's, else the Job's. An error is why it failed.
pub(crate) fn judged(name: &str, told: Option<&BackupRun>, ended: &Ended) -> Result<String, String> {
    if let Some(run) = told {
        return if run.status == RunStatus::Success {
            Ok(format!("backup {name} succeeded; its pod was gone before its report was read\n"))
        } else {
            Err(reasoned(run.reason.as_deref(), run.message.as_deref()))
        };
    }
    match &ended.report {
        Some(Report::Failed { reason, message, .. }) => Err(reasoned(Some(&reason.as_str()), Some(message))),
        _ if matches!(&*ended.condition.type_, "Complete" | "SuccessCriteriaMet") => {
            Ok(format!("backup {name} succeeded; its pod was gone before its report was read\n"))
        }
        _ => Err(reasoned(ended.condition.reason.as_deref(), ended.condition.message.as_deref())),
    }
}

fn reasoned(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason, message) {
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
        (reason, message) => reason.or(message).unwrap_or("no reason was given").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::JobCondition;

    use super::*;

    fn ended(condition: &str, report: Option<&serde_json::Value>) -> Ended {
        Ended {
            condition: JobCondition {
                type_: condition.to_owned(),
                status: "True".to_owned(),
                reason: Some("BackoffLimitExceeded".to_owned()),
                message: Some("Job has reached the specified backoff limit".to_owned()),
                ..JobCondition::default()
            },
            report: report.map(|report| serde_json::from_value(report.clone()).unwrap()),
        }
    }

    fn told(run: &serde_json::Value) -> BackupRun {
        serde_json::from_value(run.clone()).unwrap()
    }

    #[test]
    fn success_tells_what_was_made_and_where() {
        let report = serde_json::json!({"outcome": "backedUp", "backupId": "20261121T020000Z-3f9a1c",
            "startedAt": "2026-11-21T02:00:00Z", "finishedAt": "2026-11-21T02:00:10Z", "storedBytes": 12_300_000,
            "plainBytes": 45_600_000, "databases": 3, "serverVersion": "16.4"});
        let line =
            success("shop", &ended("Complete", Some(&report)), Some("s3://backups/prod/shop")).unwrap();
        insta::assert_snapshot!(line, @"
        backup shop succeeded: 3 databases of server version 16.4, 12.3MB stored (45.6MB before compression) in 10s (4.6MB/s)
        s3://backups/prod/shop/20261121T020000Z-3f9a1c
        ");
    }

    #[test]
    fn failure_is_told_by_who_knows_best() {
        let report = serde_json::json!({"outcome": "failed", "reason": "Interrupted", "message": "told to stop",
            "startedAt": "2026-11-21T02:00:00Z", "finishedAt": "2026-11-21T02:00:10Z"});
        let judgement =
            told(&serde_json::json!({"timestamp": "2026-11-21T02:00:00Z", "status": "Failed", "job": "j",
            "jobUid": "u", "reason": "DeadlineExceeded", "message": "longer than 10s"}));
        let failed = ended("Failed", Some(&report));
        assert_eq!(success("shop", &failed, None), None);
        assert_eq!(
            judged("shop", Some(&judgement), &failed).unwrap_err(),
            "DeadlineExceeded: longer than 10s"
        );
        assert_eq!(judged("shop", None, &failed).unwrap_err(), "Interrupted: told to stop");
        let silent = judged("shop", None, &ended("Failed", None)).unwrap_err();
        assert_eq!(silent, "BackoffLimitExceeded: Job has reached the specified backoff limit");
    }

    #[test]
    fn a_lost_report_is_no_failure() {
        assert!(judged("shop", None, &ended("Complete", None)).unwrap().starts_with("backup shop succeeded"));
    }
}
