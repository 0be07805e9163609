//! The runs that ended, counted once each, and remembered longer than their Jobs live. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vertice_api::duration;
use vertice_api::vertice_io::{BackupRun, BackupTotals, DURATION_BUCKETS, RunStatus, VerticeBackupStatus};
use vertice_catalog::humane;
use vertice_catalog::report::Report;
use vertice_controller::mutant::{self, Mutant};

use crate::run::{Run, RunState, vanished};

/// Entries of `status.history`.
const LENGTH: usize = 20;

/// What is known of all runs, and what of it is news.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ledger {
    /// Newest first.
    pub(super) history: Vec<BackupRun>,
    pub(super) totals: BackupTotals,
    /// The run that is under way, or else the most recent one.
    pub(super) last_backup: Option<BackupRun>,
    pub(super) last_success: Option<BackupRun>,
    /// The run that ended last.
    pub(super) last_ended: Option<BackupRun>,
    /// Runs that are counted now for the first time, oldest first.
    pub(super) newly_ended: Vec<BackupRun>,
    /// A run that is under way and was not known before.
    pub(super) newly_started: Option<BackupRun>,
    /// The last instant at which a run was due and did not start.
    pub(super) last_missed: Option<Timestamp>,
    /// Whether that is counted now for the first time.
    pub(super) newly_missed: bool,
}

/// Adds what is seen now to what the status remembers.
pub(super) fn record(before: &VerticeBackupStatus, runs: &[Run], now: Timestamp) -> Ledger {
    let is_known =
        |run: &BackupRun| !mutant::on(Mutant::LastSuccessInMemory) || mutant::remembers(&run.job_uid);
    let mut ledger = Ledger {
        history: before.history.clone(),
        totals: before.totals.clone().unwrap_or_default(),
        last_success: before.last_success.clone().filter(is_known),
        last_missed: before.last_missed.as_ref().map(|missed| missed.0),
        ..Ledger::default()
    };
    let lost = lost(before, runs, now);
    let mut ended: Vec<&Run> = runs.iter().chain(&lost).filter(|run| run.ended().is_some()).collect();
    ended.sort_by_key(|run| (run.ended(), run.started));
    for run in ended {
        if !ledger.has_counted(run) {
            ledger.count(run);
        }
    }
    ledger.last_ended = ledger.history.first().cloned();
    if mutant::on(Mutant::LastSuccessIsLastRun) {
        ledger.last_success.clone_from(&ledger.last_ended);
    }
    // Of several that run the oldest, until it ends: were it hidden by a newer one, its loss would not be noticed, and its start
    // would be told again.
    let running = runs.iter().filter(|run| run.ended().is_none()).min_by_key(|run| run.started).map(entry);
    // Of several with one start the first is the newest, and `max_by_key` takes the last.
    let newest_ended = ledger.history.iter().rev().max_by_key(|entry| entry.timestamp.0);
    ledger.last_backup = running.clone().or_else(|| newest_ended.cloned());
    let known = before.last_backup.as_ref().map(|run| &run.job_uid);
    ledger.newly_started = running.filter(|run| Some(&run.job_uid) != known);
    ledger
}

impl Ledger {
    /// Runs are counted in the order in which they end, so one that ended no later than the oldest entry of a full history was
    /// counted and has dropped out of it.
    fn has_counted(&self, run: &Run) -> bool {
        if mutant::on(Mutant::CountedInMemory) {
            return !mutant::remember(&run.uid);
        }
        let by_name = |entry: &BackupRun| mutant::on(Mutant::CountedByName) && entry.job == run.job;
        let known = self.history.iter().any(|entry| entry.job_uid == run.uid || by_name(entry));
        let oldest = self.history.iter().map(end).min();
        known || (self.history.len() >= LENGTH && run.ended() <= oldest)
    }

    /// Counts an instant at which a run was due and did not start, once.
    pub(super) fn miss(&mut self, due: Timestamp) {
        if self.last_missed.is_none_or(|last| last < due) {
            self.last_missed = Some(due);
            self.newly_missed = true;
            self.totals.missed += 1;
        }
    }

    fn count(&mut self, run: &Run) {
        let entry = entry(run);
        let seconds = run.took().as_secs_f64();
        self.totals.runs += 1;
        self.totals.duration_seconds += seconds;
        let buckets = &mut self.totals.duration_buckets;
        buckets.resize(DURATION_BUCKETS.len() + 1, 0);
        let bucket =
            DURATION_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(DURATION_BUCKETS.len());
        buckets[bucket] += 1;
        if entry.status == RunStatus::Success || mutant::on(Mutant::FailureCountedAsSuccess) {
            self.totals.succeeded += 1;
            self.last_success = Some(entry.clone());
        } else {
            self.totals.failed += 1;
        }
        mutant::remember(&entry.job_uid);
        self.newly_ended.push(entry.clone());
        // In front: of several that ended in one second the one that is counted later stays the newest.
        self.history.insert(0, entry);
        self.history.sort_by_key(|entry| std::cmp::Reverse(end(entry)));
        self.history.truncate(LENGTH);
    }
}

/// The run that the status calls running and that no longer exists.
fn lost(before: &VerticeBackupStatus, runs: &[Run], now: Timestamp) -> Option<Run> {
    let last = before.last_backup.as_ref().filter(|last| last.status == RunStatus::Running)?;
    let exists = runs.iter().any(|run| run.uid == last.job_uid);
    (!exists).then(|| Run {
        job: last.job.clone(),
        uid: last.job_uid.clone(),
        manual: last.manual,
        started: last.timestamp.0,
        state: vanished(&last.job, whole_second(now)),
    })
}

/// `metav1.Time` has whole seconds.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// When an entry of the history ended: durations of Jobs are whole seconds, so nothing is lost by keeping them as text.
pub(super) fn end(entry: &BackupRun) -> Timestamp {
    let took = entry.duration.as_deref().and_then(|text| duration::parse_positive(text).ok());
    entry.timestamp.0.saturating_add(took.unwrap_or(SignedDuration::ZERO)).unwrap_or(entry.timestamp.0)
}

fn entry(run: &Run) -> BackupRun {
    let running = BackupRun {
        timestamp: Time(run.started),
        status: RunStatus::Running,
        duration: None,
        size: None,
        size_bytes: None,
        backup_id: None,
        job: run.job.clone(),
        job_uid: run.uid.clone(),
        manual: run.manual,
        reason: None,
        message: None,
    };
    let duration = Some(duration::format(run.took()));
    match &run.state {
        RunState::Running { .. } => running,
        RunState::Failed { reason, message, .. } => BackupRun {
            status: RunStatus::Failed,
            duration,
            reason: Some(reason.clone()),
            message: Some(message.clone()),
            ..running
        },
        RunState::Succeeded { report: Some(Report::BackedUp { backup_id, stored_bytes, .. }), .. } => {
            BackupRun {
                status: RunStatus::Success,
                duration,
                size: Some(humane::bytes(*stored_bytes)),
                size_bytes: i64::try_from(*stored_bytes).ok(),
                backup_id: Some(backup_id.to_string()),
                ..running
            }
        }
        RunState::Succeeded { .. } => BackupRun {
            status: RunStatus::Success,
            duration,
            message: Some(
                "the run's pod was deleted before its report was read, so size and id are unknown".to_owned(),
            ),
            ..running
        },
    }
}
