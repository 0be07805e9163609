//! All decisions about a VerticeRestore: pure, from what was observed and the time.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use snafu::{ResultExt as _, Snafu};
use vertice_api::vertice_io::{RestorePhase, VerticeRestore, VerticeRestoreStatus};
use vertice_catalog::report::FailureReason;
use vertice_catalog::task::{RestoreTask, TASK_ENV, Task};
use vertice_controller::conditions::{self, READY, Status, Wanted};
use vertice_controller::mutant::{self, Mutant};

use super::build;
use super::observe::{Observed, has_ended};
use super::status::{COMPLETE, Draft, Outcome};
use super::validate::validate;
use crate::events::PlannedEvent;
use crate::names;
use crate::refusal::LOOK_AGAIN;
use crate::run::{self, Attempt, Run, RunState};

/// What to do about one VerticeRestore. A Job is let go only after the status was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) draft: Draft,
    pub(super) action: Action,
    pub(super) events: Vec<PlannedEvent>,
    /// When to look again though nothing happens.
    pub(super) requeue_at: Option<Timestamp>,
}

/// The one write besides the status.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// Make the Job, suspended.
    Create(Box<Job>),
    /// Let the Job go. Its UID is in the status by now.
    Resume { job: String, uid: String },
}

/// A plan could not be made.
#[derive(Debug, Snafu)]
pub(crate) enum PlanError {
    #[snafu(display("the task of VerticeRestore {name} cannot be written as JSON"))]
    Task { name: String, source: serde_json::Error },
}

/// Decides; none when the restore has ended: nothing about it changes any more.
pub(super) fn plan(observed: &Observed, now: Timestamp) -> Result<Option<Plan>, PlanError> {
    if has_ended(&observed.restore) {
        return Ok(None);
    }
    let job = names::restore_job(&observed.restore.name_any());
    if mutant::on(Mutant::EndedByName) && mutant::remembers(&job) {
        return Ok(None);
    }
    let known = |attempt: &Attempt| mutant::remembers(&attempt.job.uid().unwrap_or_default());
    if mutant::on(Mutant::OwnJobsInMemory) && observed.attempt.as_ref().is_some_and(|made| !known(made)) {
        return Ok(None);
    }
    let before = observed.restore.status.clone().unwrap_or_default();
    let plan = match (&before.job_uid, &observed.attempt) {
        (Some(uid), Some(attempt)) if attempt.job.uid().as_ref() == Some(uid) => {
            follow(&before, attempt, now)
        }
        (Some(_), _) => vanished(&before, now),
        (None, Some(attempt)) if is_ours(observed, &attempt.job) => follow(&before, attempt, now),
        (None, Some(attempt)) => blocked(observed, &before, &attempt.job, now),
        (None, None) => start(observed, &before)?,
    };
    Ok(Some(plan))
}

/// Whether this very VerticeRestore made the Job.
fn is_ours(observed: &Observed, job: &Job) -> bool {
    let uid = observed.restore.uid();
    let same = mutant::on(Mutant::JobOfSameName);
    job.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref() || same)
}

/// No Job yet: make one, or say why not.
fn start(observed: &Observed, before: &VerticeRestoreStatus) -> Result<Plan, PlanError> {
    let valid = match validate(observed) {
        Ok(valid) => valid,
        Err(invalid) => return Ok(not_ready(before, invalid.reason(), invalid.to_string())),
    };
    let name = observed.restore.name_any();
    let job = build::job(&observed.restore, &valid, &observed.agent_image).context(TaskSnafu { name })?;
    let mut draft = Draft::new(RestorePhase::Pending, before);
    draft.describe(&valid.task);
    draft.ready = Wanted::ready(true, "Starting", format!("Job {} is being made", job.name_any()));
    draft.complete = Wanted::new(COMPLETE, Status::Unknown, "Pending", "not started yet");
    Ok(Plan { draft, action: Action::Create(Box::new(job)), events: Vec::new(), requeue_at: None })
}

/// Somebody else's Job has the name.
fn blocked(observed: &Observed, before: &VerticeRestoreStatus, job: &Job, now: Timestamp) -> Plan {
    let name = job.name_any();
    // The garbage collector comes a while after the deletion of its owner.
    let restore = observed.restore.name_any();
    let is_of_an_earlier =
        |owner: &OwnerReference| owner.kind == VerticeRestore::kind(&()) && owner.name == restore;
    let goes =
        job.metadata.deletion_timestamp.is_some() || job.owner_references().iter().any(is_of_an_earlier);
    let message = if goes {
        format!("Job {name} of an earlier VerticeRestore of this name is still being deleted")
    } else {
        format!(
            "Job {name} exists already and belongs to another owner; delete it, or make a VerticeRestore of another name"
        )
    };
    let requeue_at = now.checked_add(LOOK_AGAIN).ok();
    Plan { requeue_at, ..not_ready(before, "NameTaken", message) }
}

pub(super) fn not_ready(before: &VerticeRestoreStatus, reason: &str, message: String) -> Plan {
    let mut draft = Draft::new(RestorePhase::Pending, before);
    let was = conditions::find(&before.conditions, READY);
    let told = was.is_some_and(|was| was.reason == reason && was.message == message);
    let events =
        if told { Vec::new() } else { vec![PlannedEvent::warning(reason, "Validate", message.clone())] };
    draft.ready = Wanted::ready(false, reason, message);
    draft.complete = Wanted::new(COMPLETE, Status::Unknown, "Pending", "not started yet");
    Plan { draft, action: Action::None, events, requeue_at: None }
}

/// There is a Job of ours: it is let go, watched, and its end told.
fn follow(before: &VerticeRestoreStatus, attempt: &Attempt, now: Timestamp) -> Plan {
    let waited = conditions::find(&before.conditions, COMPLETE)
        .filter(|condition| condition.reason == FailureReason::PodNotStarted.as_str());
    let run = run::judge(attempt, waited.map(|condition| condition.message.as_str()), now);
    let mut draft = Draft::new(RestorePhase::Running, before);
    if let Some(task) = task_of(&attempt.job) {
        draft.describe(&task);
    }
    draft.job = Some(run.job.clone());
    draft.job_uid = Some(run.uid.clone());
    draft.started =
        attempt.job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    draft.ready = Wanted::ready(true, "Started", format!("Job {} was started", run.job));
    let mut events = Vec::new();
    if before.job_uid.is_none() {
        let note = format!("Job {}", run.job);
        events.push(PlannedEvent::normal("RestoreStarted", "Restore", note).of(&run.job, &run.uid));
    }
    if let RunState::Running { waiting } = &run.state {
        draft.complete = match waiting {
            Some(waiting) => {
                Wanted::new(COMPLETE, false, FailureReason::PodNotStarted.as_str(), waiting.clone())
            }
            None => Wanted::new(COMPLETE, Status::Unknown, "Running", "the restore is under way"),
        };
        let waits = mutant::on(Mutant::StartedByMakerOnly) && !mutant::remembers(&run.uid);
        let held = run::is_suspended(&attempt.job) && !waits;
        let action =
            if held { Action::Resume { job: run.job.clone(), uid: run.uid.clone() } } else { Action::None };
        let requeue_at = run::patience_ends(attempt, run.started, now);
        return Plan { draft, action, events, requeue_at };
    }
    events.push(end(&mut draft, &run));
    mutant::remember(&run.job);
    Plan { draft, action: Action::None, events, requeue_at: None }
}

/// The Job is gone, or another one has taken its name: what it did is unknown, and it is never done again.
/// A Job that was made again from an outdated cache is suspended, is never let go, and goes with its VerticeRestore.
fn vanished(before: &VerticeRestoreStatus, now: Timestamp) -> Plan {
    let job = before.job.clone().unwrap_or_default();
    let ended = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut draft = Draft::new(RestorePhase::Running, before);
    draft.ready = Wanted::ready(true, "Started", format!("Job {job} was started"));
    let run = Run {
        uid: before.job_uid.clone().unwrap_or_default(),
        manual: false,
        started: before.start_time.as_ref().map_or(ended, |time| time.0),
        state: run::vanished(&job, ended),
        job,
    };
    let told = end(&mut draft, &run);
    Plan { draft, action: Action::None, events: vec![told], requeue_at: None }
}

/// Writes the end of `run` into the draft.
fn end(draft: &mut Draft, run: &Run) -> PlannedEvent {
    let outcome = Outcome::of(run);
    let event = match &outcome {
        Outcome::Succeeded(message) => {
            draft.phase = RestorePhase::Succeeded;
            draft.complete = Wanted::new(COMPLETE, true, "RestoreSucceeded", message.clone());
            PlannedEvent::normal("RestoreSucceeded", "Restore", message.clone())
        }
        Outcome::Failed(reason, message) => {
            draft.phase = RestorePhase::Failed;
            draft.complete = Wanted::new(COMPLETE, false, reason.clone(), message.clone());
            PlannedEvent::warning("RestoreFailed", "Restore", format!("{reason}: {message}"))
        }
    };
    draft.record(run);
    event.of(&run.job, &run.uid)
}

/// What the Job was told to do; the VerticeBackup that it was made from may have changed since.
fn task_of(job: &Job) -> Option<RestoreTask> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let agent = pod.containers.iter().find(|container| container.name == names::AGENT_CONTAINER)?;
    let task = agent.env.iter().flatten().find(|variable| variable.name == TASK_ENV)?;
    match serde_json::from_str(task.value.as_deref()?).ok()? {
        Task::Restore(task) => Some(task),
        Task::Backup(_) => None,
    }
}
