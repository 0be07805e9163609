//! What the status says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vertice_api::duration;
use vertice_api::vertice_io::{RestorePhase, VerticeRestoreStatus};
use vertice_catalog::humane;
use vertice_catalog::report::{FailureReason, Report};
use vertice_catalog::task::RestoreTask;
use vertice_controller::conditions::{self, Wanted};

use crate::run::{Run, RunState};

/// Condition: the restore ended well.
pub(super) const COMPLETE: &str = "Complete";

/// A status without the times of its conditions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) phase: RestorePhase,
    pub(super) ready: Wanted,
    pub(super) complete: Wanted,
    pub(super) job: Option<String>,
    pub(super) job_uid: Option<String>,
    pub(super) started: Option<Timestamp>,
    backup_id: Option<String>,
    target: Option<String>,
    ended: Option<Timestamp>,
    duration: Option<String>,
    restored: Option<Restored>,
}

#[derive(Clone, Debug, PartialEq)]
struct Restored {
    databases: Vec<String>,
    bytes: u64,
    seconds: f64,
}

/// How a restore ended.
pub(super) enum Outcome {
    /// What was done.
    Succeeded(String),
    /// Reason and message.
    Failed(String, String),
}

impl Outcome {
    /// Of a run that ended.
    pub(super) fn of(run: &Run) -> Self {
        match &run.state {
            RunState::Failed { reason, message, .. } if *reason == FailureReason::NoReport.as_str() => {
                let unknown = "whether its databases took their places is not known: look into the server before you restore again";
                Self::Failed(reason.clone(), format!("{message}; {unknown}"))
            }
            RunState::Failed { reason, message, .. } => Self::Failed(reason.clone(), message.clone()),
            RunState::Succeeded {
                report: Some(Report::Restored { backup_id, plain_bytes, databases, .. }),
                ..
            } => {
                let (size, took) = (humane::bytes(*plain_bytes), duration::format(run.took()));
                Self::Succeeded(format!(
                    "backup {backup_id} restored: {}; {size} in {took}",
                    databases.join(", ")
                ))
            }
            RunState::Succeeded { .. } | RunState::Running { .. } => Self::Succeeded(
                "the restore's pod was deleted before its report was read, so size and databases are unknown"
                    .to_owned(),
            ),
        }
    }
}

impl Draft {
    /// A draft that keeps what `before` knew of the Job and the target.
    pub(super) fn new(phase: RestorePhase, before: &VerticeRestoreStatus) -> Self {
        Self {
            phase,
            ready: Wanted::ready(true, "Started", ""),
            complete: Wanted::new(COMPLETE, false, "Pending", ""),
            job: before.job.clone(),
            job_uid: before.job_uid.clone(),
            started: before.start_time.as_ref().map(|time| time.0),
            backup_id: before.backup_id.clone(),
            target: before.target.clone(),
            ended: None,
            duration: None,
            restored: None,
        }
    }

    /// What is going to be restored, and where to.
    pub(super) fn describe(&mut self, task: &RestoreTask) {
        self.target = Some(format!("{}:{}", task.server.host, task.server.port));
        self.backup_id.clone_from(&task.backup_id);
    }

    /// How the run ended.
    pub(super) fn record(&mut self, run: &Run) {
        self.ended = run.ended();
        self.duration = Some(duration::format(run.took()));
        let RunState::Succeeded { report: Some(report), .. } = &run.state else { return };
        if let Report::Restored { backup_id, started_at, finished_at, plain_bytes, databases } = report {
            self.backup_id = Some(backup_id.to_string());
            self.restored = Some(Restored {
                databases: databases.clone(),
                bytes: *plain_bytes,
                seconds: finished_at.duration_since(*started_at).as_secs_f64(),
            });
        }
    }

    /// The status that follows `before`.
    pub(super) fn finish(
        self,
        before: &VerticeRestoreStatus,
        generation: Option<i64>,
        now: Timestamp,
    ) -> VerticeRestoreStatus {
        let Self {
            phase,
            ready,
            complete,
            job,
            job_uid,
            started,
            backup_id,
            target,
            ended,
            duration,
            restored,
        } = self;
        let mut conditions = before.conditions.clone();
        conditions::replace(&mut conditions, [ready, complete], generation, now);
        let (databases, bytes, rate) = match restored {
            Some(Restored { databases, bytes, seconds }) => {
                (databases, Some(bytes), Some(humane::rate(bytes, seconds)))
            }
            None => (Vec::new(), None, None),
        };
        VerticeRestoreStatus {
            phase: Some(phase),
            observed_generation: generation,
            conditions,
            backup_id,
            target,
            databases,
            job,
            job_uid,
            start_time: started.map(Time),
            completion_time: ended.map(Time),
            duration,
            size: bytes.map(humane::bytes),
            size_bytes: bytes.and_then(|bytes| i64::try_from(bytes).ok()),
            rate,
        }
    }
}
