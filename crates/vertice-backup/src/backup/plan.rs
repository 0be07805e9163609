//! All decisions about a VerticeBackup: pure, from what was observed and the time.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt as _;
use snafu::{ResultExt as _, Snafu};
use vertice_api::vertice_io::{BackupPhase, RunStatus, VerticeBackupStatus};
use vertice_catalog::report::FailureReason;
use vertice_controller::conditions::{self, READY, Status, Wanted};
use vertice_controller::mutant::{self, Mutant};

use super::build::{FIRST_DEADLINE, Force, cronjob};
use super::history::{Ledger, record};
use super::observe::Observed;
use super::status::{Draft, HEALTHY};
use super::timetable::{Timetable, Unstarted};
use super::validate::{Invalid, ValidatedBackup, validate};
use crate::events::PlannedEvent;
use crate::fields;
use crate::names;
use crate::run::{self, Attempt, Run, RunState};

/// Reason of the Ready condition while no schedule is to fire.
const SUSPENDED: &str = "Suspended";
/// Reason of the condition and of the event: a run that was due did not start.
const RUN_MISSED: &str = "RunMissed";

/// What to do about one VerticeBackup.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// What is to be there; none while the spec cannot be put in force (what is there already stays).
    pub(super) cronjob: Option<CronJob>,
    /// What the status is to say.
    pub(super) draft: Draft,
    /// What to tell once the status says it.
    pub(super) events: Vec<PlannedEvent>,
    /// When to look again though nothing happens.
    pub(super) requeue_at: Option<Timestamp>,
}

/// A plan could not be made.
#[derive(Debug, Snafu)]
pub(crate) enum PlanError {
    #[snafu(display("the task of VerticeBackup {name} cannot be written as JSON"))]
    Task { name: String, source: serde_json::Error },
}

/// Decides.
pub(super) fn plan(observed: &Observed, now: Timestamp) -> Result<Plan, PlanError> {
    let backup = &observed.backup;
    let before = backup.status.clone().unwrap_or_default();
    let runs = runs(observed, &before, now);
    let mut ledger = if mutant::on(Mutant::TotalsOfVisibleJobs) {
        record(&VerticeBackupStatus::default(), &runs, now)
    } else {
        record(&before, &runs, now)
    };
    let valid = validate(observed, now);
    let mut looks = waits_for_pods(observed, &runs, now);
    let mut wanted = None;
    if let Ok(valid) = &valid {
        let force = force(observed, &before, valid, now);
        looks.extend(force.as_ref().and_then(|force| force.guarded_until));
        let made = cronjob(backup, valid, force.as_ref(), &observed.agent_image);
        let mut made = made.context(TaskSnafu { name: backup.name_any() })?;
        if mutant::on(Mutant::DeadlineKept) {
            let kept = observed.cronjob.as_ref().and_then(|live| live.spec.starting_deadline_seconds);
            made.spec.starting_deadline_seconds = made.spec.starting_deadline_seconds.or(kept);
        }
        if mutant::on(Mutant::Heartbeat) {
            made.annotations_mut().insert("vertice.io/looked-at".to_owned(), now.strftime("%R").to_string());
        }
        wanted = Some(made);
    }
    let table = timetable(observed, wanted.as_ref(), now);
    let next = table.as_ref().and_then(|table| table.next(now));
    looks.extend(next);
    let mut missed = None;
    match table.as_ref().and_then(|table| unstarted(table, &runs, &ledger, now)) {
        Some(Unstarted::Early(until)) => looks.push(until),
        Some(Unstarted::Missed(due)) => {
            ledger.miss(due);
            missed = table.as_ref().map(|table| not_started(observed, table, due));
        }
        None => {}
    }
    let ready = ready(&valid);
    let namespace = backup.namespace().unwrap_or_default();
    let draft = Draft {
        phase: phase(&ready, backup.spec.suspend, missed.is_some(), &ledger, &runs),
        healthy: healthy(&runs, missed, &ledger),
        ready,
        ledger,
        next_backup: next,
        location: fields::location(&backup.spec.storage, &namespace, &backup.name_any()).url(),
    };
    let events = events(&before, &draft);
    Ok(Plan { cronjob: wanted, draft, events, requeue_at: looks.into_iter().min() })
}

/// Where each run stands.
fn runs(observed: &Observed, before: &VerticeBackupStatus, now: Timestamp) -> Vec<Run> {
    let not_started = conditions::find(&before.conditions, HEALTHY)
        .filter(|condition| condition.reason == FailureReason::PodNotStarted.as_str())
        .map(|condition| condition.message.as_str());
    let last = before.last_backup.as_ref().filter(|last| last.status == RunStatus::Running);
    let judge = |attempt: &Attempt| {
        let is_last = last.is_some_and(|last| Some(&last.job_uid) == attempt.job.uid().as_ref());
        run::judge(attempt, not_started.filter(|_| is_last), now)
    };
    observed.attempts.iter().map(judge).collect()
}

/// When to look again at Jobs that have no pod yet.
fn waits_for_pods(observed: &Observed, runs: &[Run], now: Timestamp) -> Vec<Timestamp> {
    let open = observed.attempts.iter().zip(runs).filter(|(_, run)| run.ended().is_none());
    open.filter_map(|(attempt, run)| run::patience_ends(attempt, run.started, now)).collect()
}

fn ready(valid: &Result<ValidatedBackup, Invalid>) -> Wanted {
    match valid {
        Err(invalid) => Wanted::ready(false, invalid.reason(), invalid.to_string()),
        Ok(valid) if valid.suspend => {
            Wanted::ready(true, SUSPENDED, "spec.suspend is true: no scheduled run starts, manual ones work")
        }
        Ok(valid) => {
            let text = format!("runs at {:?} in time zone {}", valid.schedule_text, valid.zone);
            Wanted::ready(true, "Scheduled", text)
        }
    }
}

/// The firings of the CronJob: of the one that is wanted, or, while the spec is invalid, of the one that is there.
fn timetable(observed: &Observed, wanted: Option<&CronJob>, now: Timestamp) -> Option<Timetable> {
    let live = observed.cronjob.as_ref();
    Timetable::of(wanted.or(live.filter(|_| observed.owns_cronjob()))?, live, now)
}

/// What is to be said of a firing that no run followed. While a scheduled run is under way the next one is held back.
fn unstarted(table: &Timetable, runs: &[Run], ledger: &Ledger, now: Timestamp) -> Option<Unstarted> {
    let held = runs.iter().any(|run| run.ended().is_none() && !run.manual);
    if held { None } else { table.unstarted(&ledger.history, now) }
}

/// For people: the run that was due then did not start.
fn not_started(observed: &Observed, table: &Timetable, due: Timestamp) -> String {
    let namespace = observed.backup.namespace().unwrap_or_default();
    let cronjob = names::cronjob(&observed.backup.name_any());
    let until = table.starts_until(due);
    let until = until.map(|until| format!(" (spec.startingDeadline lets it start until {until})"));
    format!(
        "the run due at {due} did not start{}: `kubectl describe cronjob {cronjob} -n {namespace}` shows whether a quota or a policy \
         refuses its Job; if it shows nothing, see whether kube-controller-manager runs",
        until.unwrap_or_default()
    )
}

/// A schedule that was changed or resumed begins now. Left alone, the CronJob controller would catch up at once on the last firing
/// that the new schedule would have had, or that fell into the pause. So until its first firing a late one is not started. Since when
/// it is in force stays written down: what would have fired before that was not missed either.
fn force(
    observed: &Observed,
    before: &VerticeBackupStatus,
    valid: &ValidatedBackup,
    now: Timestamp,
) -> Option<Force> {
    let live = observed.cronjob.as_ref().filter(|_| !valid.suspend)?;
    let differs =
        live.spec.schedule != valid.schedule_text || live.spec.time_zone.as_ref() != Some(&valid.zone);
    // The cache may be behind and not have the pause yet; our own status came with the spec that ends it.
    let told = conditions::find(&before.conditions, READY).is_some_and(|ready| ready.reason == SUSPENDED);
    let resumed = told || live.spec.suspend == Some(true);
    // Otherwise it is someone else who changed the CronJob, and that is set right.
    let ours = before.observed_generation != observed.backup.metadata.generation
        || !conditions::is_true(&before.conditions, READY);
    if mutant::on(Mutant::InForceInMemory)
        && !(ours && (differs || resumed))
        && !mutant::remembers("in force")
    {
        return None;
    }
    let since = if ours && (differs || resumed) {
        mutant::remember("in force");
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    } else {
        live.annotations().get(names::IN_FORCE_SINCE_ANNOTATION)?.parse().ok()?
    };
    let first = valid.schedule.next_after(since)?;
    let ends = first.checked_add(FIRST_DEADLINE).ok()?;
    Some(Force { since, guarded_until: (now < ends).then_some(ends) })
}

fn healthy(runs: &[Run], missed: Option<String>, ledger: &Ledger) -> Wanted {
    let stuck = runs.iter().rev().find_map(|run| match &run.state {
        RunState::Running { waiting } => waiting.clone(),
        RunState::Succeeded { .. } | RunState::Failed { .. } => None,
    });
    if let Some(waiting) = stuck {
        return Wanted::new(HEALTHY, false, FailureReason::PodNotStarted.as_str(), waiting);
    }
    if let Some(missed) = missed {
        return Wanted::new(HEALTHY, false, RUN_MISSED, missed);
    }
    let Some(last) = &ledger.last_ended else {
        return Wanted::new(HEALTHY, Status::Unknown, "NoBackupYet", "no run has ended yet");
    };
    let message = last.message.clone();
    if last.status == RunStatus::Success {
        return Wanted::new(HEALTHY, true, "BackupSucceeded", message.unwrap_or_else(|| summary(last)));
    }
    let reason = last.reason.clone().unwrap_or_else(|| FailureReason::NoReport.as_str());
    Wanted::new(HEALTHY, false, reason, message.unwrap_or_default())
}

/// `backup 20261121T020000Z-3f9a1c: 1.2GB in 5m32s`
fn summary(run: &vertice_api::vertice_io::BackupRun) -> String {
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let (id, size, took) = (or_unknown(&run.backup_id), or_unknown(&run.size), or_unknown(&run.duration));
    format!("backup {id}: {size} in {took}")
}

fn phase(ready: &Wanted, suspended: bool, missed: bool, ledger: &Ledger, runs: &[Run]) -> BackupPhase {
    if ready.status != Status::True {
        BackupPhase::Pending
    } else if runs.iter().any(|run| run.ended().is_none()) {
        BackupPhase::Running
    } else if suspended {
        BackupPhase::Suspended
    } else if missed || ledger.last_ended.as_ref().is_some_and(|run| run.status == RunStatus::Failed) {
        BackupPhase::Failing
    } else {
        BackupPhase::Scheduled
    }
}

fn events(before: &VerticeBackupStatus, draft: &Draft) -> Vec<PlannedEvent> {
    let mut events = Vec::new();
    let was = conditions::find(&before.conditions, READY);
    let told = was.is_some_and(|was| was.reason == draft.ready.reason && was.message == draft.ready.message);
    if !told && draft.ready.status == Status::True {
        events.push(PlannedEvent::normal("ScheduleUpdated", "Schedule", draft.ready.message.clone()));
    } else if !told {
        events.push(PlannedEvent::warning(
            draft.ready.reason.clone(),
            "Validate",
            draft.ready.message.clone(),
        ));
    }
    if let Some(run) = &draft.ledger.newly_started {
        let kind = if run.manual { "manual" } else { "scheduled" };
        let note = format!("{kind} run, Job {}", run.job);
        events.push(PlannedEvent::normal("BackupStarted", "Backup", note).of(&run.job, &run.job_uid));
    }
    if draft.ledger.newly_missed {
        events.push(PlannedEvent::warning(RUN_MISSED, "Schedule", draft.healthy.message.clone()));
    }
    for run in &draft.ledger.newly_ended {
        let event = if run.status == RunStatus::Success {
            PlannedEvent::normal("BackupSucceeded", "Backup", format!("{} (Job {})", summary(run), run.job))
        } else {
            let reason = run.reason.as_deref().unwrap_or_default();
            let message = run.message.as_deref().unwrap_or_default();
            PlannedEvent::warning("BackupFailed", "Backup", format!("{reason}: {message} (Job {})", run.job))
        };
        events.push(event.of(&run.job, &run.job_uid));
    }
    events
}
