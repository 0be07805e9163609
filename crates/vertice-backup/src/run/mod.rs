//! How one run stands: a Job and its pods, read together. Pure.
//!
//! A run ended when the Job controller says so, and it ended the way that the agent's report says; only without a report is the
//! Job asked. `FailureTarget` and `SuccessCriteriaMet` count as the end, too: from then on the outcome is settled, while `Failed`
//! and `Complete` wait for the last pod to terminate, which never happens on a node that is lost
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions>).

mod pods;

/// The object of a Job's or pod's namespace that its `label` names: whose run it is.
pub(crate) fn owner_by_label<K: Resource>(object: &K, label: &str) -> Vec<ObjectKey> {
    let name = object.labels().get(label);
    name.zip(object.namespace())
        .map(|(name, namespace)| ObjectKey::namespaced(namespace, name))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt as _};
use vertice_api::duration;
use vertice_catalog::report::{FailureReason, Report};
use vertice_controller::run::ObjectKey;

use crate::names;

/// How long a Job may be without a pod, or a pod without a node or image, before that is told.
pub(crate) const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// The longest message in a run's status.
const MESSAGE_MAX: usize = 2048;

/// A Job and what is known of its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) job: Job,
    pub(crate) pods: Vec<Pod>,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    /// Name of the Job.
    pub(crate) job: String,
    /// UID of the Job.
    pub(crate) uid: String,
    /// Started by a person.
    pub(crate) manual: bool,
    /// When the Job started, or was made if it has not.
    pub(crate) started: Timestamp,
    /// Where it stands.
    pub(crate) state: RunState,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RunState {
    /// Under way; `waiting` tells what keeps its pod from starting.
    Running { waiting: Option<String> },
    /// It ended well. The report is missing only when the pod was deleted before it could be read.
    Succeeded { ended: Timestamp, report: Option<Report> },
    /// It ended badly.
    Failed { ended: Timestamp, reason: String, message: String },
}

impl Run {
    /// When it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Timestamp> {
        match &self.state {
            RunState::Running { .. } => None,
            RunState::Succeeded { ended, .. } | RunState::Failed { ended, .. } => Some(*ended),
        }
    }

    /// How long it took; zero while it runs.
    pub(crate) fn took(&self) -> SignedDuration {
        self.ended().map_or(SignedDuration::ZERO, |ended| {
            ended.duration_since(self.started).max(SignedDuration::ZERO)
        })
    }
}

/// What was settled about the Job.
enum Verdict<'a> {
    Open,
    Complete(Timestamp),
    Failed(Timestamp, &'a JobCondition),
}

/// Whether the Job controller settled the Job's outcome.
pub(crate) fn is_settled(job: &Job) -> bool {
    !matches!(verdict(job), Verdict::Open)
}

/// Whether one of a run's pods left a report.
pub(crate) fn has_report(pods: &[Pod]) -> bool {
    pods::report(pods).is_some()
}

/// Reads a run. `last_waiting` is what kept its pod from starting when it was looked at last: a pod that never started is
/// deleted at the deadline, and nothing else remembers why.
pub(crate) fn judge(attempt: &Attempt, last_waiting: Option<&str>, now: Timestamp) -> Run {
    let job = &attempt.job;
    let created = job.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let started =
        job.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(created, |time| time.0);
    let state = match verdict(job) {
        Verdict::Open => RunState::Running { waiting: waiting(attempt, started, now) },
        Verdict::Complete(ended) => complete(pods::report(&attempt.pods), ended),
        Verdict::Failed(ended, condition) => match pods::report(&attempt.pods) {
            // The manifest is in the bucket, whatever became of the Job afterwards.
            Some(report @ (Report::BackedUp { .. } | Report::Restored { .. })) => {
                RunState::Succeeded { ended, report: Some(report) }
            }
            report => failed(attempt, condition, report, last_waiting, ended),
        },
    };
    let manual =
        job.annotations().get(names::INSTANTIATE_ANNOTATION).is_some_and(|value| value == names::MANUAL);
    Run { job: job.name_any(), uid: job.uid().unwrap_or_default(), manual, started, state }
}

/// Until when a run whose pod does not start is only slow; none when it is not waited for, or not any more.
pub(crate) fn patience_ends(attempt: &Attempt, started: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let since = if attempt.pods.is_empty() {
        started
    } else {
        pods::obstacle(&attempt.pods).filter(|obstacle| obstacle.may_pass)?.since.unwrap_or(started)
    };
    let until = since.checked_add(PATIENCE).ok()?;
    (!is_suspended(&attempt.job) && until > now).then_some(until)
}

/// The end of a run whose Job was deleted before it ended.
pub(crate) fn vanished(job: &str, ended: Timestamp) -> RunState {
    RunState::Failed {
        ended,
        reason: FailureReason::NoReport.as_str(),
        message: format!("Job {job} was deleted before it ended"),
    }
}

/// Whether the Job is held back.
pub(crate) fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false)
}

fn verdict(job: &Job) -> Verdict<'_> {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is = |wanted: &'static str| {
        conditions.iter().find(move |condition| condition.type_ == wanted && condition.status == "True")
    };
    let at = |condition: &JobCondition| {
        let written = condition.last_transition_time.as_ref().map(|time| time.0);
        written.or_else(|| job.metadata.creation_timestamp.as_ref().map(|time| time.0)).unwrap_or_default()
    };
    if let Some(condition) = is("Failed").or_else(|| is("FailureTarget")) {
        // FailureTarget is the earlier of the two, and carries the same reason.
        return Verdict::Failed(at(is("FailureTarget").unwrap_or(condition)), condition);
    }
    if let Some(condition) = is("Complete").or_else(|| is("SuccessCriteriaMet")) {
        let completed = status.and_then(|status| status.completion_time.as_ref()).map(|time| time.0);
        return Verdict::Complete(completed.unwrap_or_else(|| at(condition)));
    }
    Verdict::Open
}

fn complete(report: Option<Report>, ended: Timestamp) -> RunState {
    match report {
        Some(Report::Failed { reason, message, .. }) => {
            RunState::Failed { ended, reason: reason.as_str(), message: shorten(message) }
        }
        report => RunState::Succeeded { ended, report },
    }
}

fn failed(
    attempt: &Attempt,
    condition: &JobCondition,
    report: Option<Report>,
    last_waiting: Option<&str>,
    ended: Timestamp,
) -> RunState {
    let (reason, message) = if condition.reason.as_deref() == Some("DeadlineExceeded") {
        overdue(attempt, last_waiting)
    } else if let Some(Report::Failed { reason, message, .. }) = report {
        (reason, message)
    } else {
        no_report(attempt, condition)
    };
    RunState::Failed { ended, reason: reason.as_str(), message: shorten(message) }
}

fn overdue(attempt: &Attempt, last_waiting: Option<&str>) -> (FailureReason, String) {
    let seconds = attempt.job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or_default();
    let timeout = duration::format(SignedDuration::from_secs(seconds));
    let stuck = pods::obstacle(&attempt.pods).map(|obstacle| obstacle.message);
    if let Some(waiting) = stuck.as_deref().or(last_waiting) {
        let message =
            format!("the run was ended after {timeout} (spec.timeout), its pod had not started: {waiting}");
        return (FailureReason::PodNotStarted, message);
    }
    let message = format!(
        "the run was ended because it took longer than {timeout} (spec.timeout); raise it, or find out what slows the run"
    );
    (FailureReason::DeadlineExceeded, message)
}

fn no_report(attempt: &Attempt, condition: &JobCondition) -> (FailureReason, String) {
    let name = attempt.job.name_any();
    if let Some(end) = pods::unreported_end(&attempt.pods) {
        return (FailureReason::NoReport, end);
    }
    let why = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("no reason given");
    let message = format!("Job {name} failed ({why}) and none of its pods is left to tell why");
    (FailureReason::NoReport, message)
}

fn waiting(attempt: &Attempt, started: Timestamp, now: Timestamp) -> Option<String> {
    if is_suspended(&attempt.job) || patience_ends(attempt, started, now).is_some() {
        return None;
    }
    if attempt.pods.is_empty() {
        let name = attempt.job.name_any();
        let patience = duration::format(PATIENCE);
        return Some(format!("Job {name} has no pod for {patience}; kubectl describe job {name} tells why"));
    }
    pods::obstacle(&attempt.pods).map(|obstacle| obstacle.message)
}

fn shorten(mut text: String) -> String {
    const ELLIPSIS: char = '…';
    if text.len() > MESSAGE_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_MAX - ELLIPSIS.len_utf8()));
        text.push(ELLIPSIS);
    }
    text
}
