//! What the status says.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vertice_api::vertice_io::{BackupPhase, VerticeBackupStatus};
use vertice_controller::conditions::{self, Wanted};

use super::history::Ledger;
use super::plan::Plan;
use crate::events::PlannedEvent;

/// Condition: the last run succeeded, none is stuck, and none that was due did not start.
pub(super) const HEALTHY: &str = "BackupHealthy";

/// A status without the times of its conditions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) ready: Wanted,
    pub(super) healthy: Wanted,
    pub(super) phase: BackupPhase,
    pub(super) ledger: Ledger,
    pub(super) next_backup: Option<Timestamp>,
    pub(super) location: String,
}

impl Draft {
    /// The status that follows `before`.
    pub(super) fn finish(
        self,
        before: &VerticeBackupStatus,
        generation: Option<i64>,
        now: Timestamp,
    ) -> VerticeBackupStatus {
        let Self { ready, healthy, phase, ledger, next_backup, location } = self;
        let mut conditions = before.conditions.clone();
        conditions::replace(&mut conditions, [ready, healthy], generation, now);
        VerticeBackupStatus {
            phase: Some(phase),
            observed_generation: generation,
            conditions,
            last_backup: ledger.last_backup,
            last_success: ledger.last_success,
            last_missed: ledger.last_missed.map(Time),
            next_backup: next_backup.map(Time),
            history: ledger.history,
            totals: Some(ledger.totals),
            location: Some(location),
        }
    }
}

impl Plan {
    /// The CronJob was refused: the schedule is not in force, and `message` says why.
    pub(super) fn refuse(&mut self, reason: &str, message: String, told: bool) {
        self.draft.ready = Wanted::ready(false, reason, message.clone());
        self.draft.phase = BackupPhase::Pending;
        self.draft.next_backup = None;
        self.events.retain(|event| event.reason != "ScheduleUpdated");
        if !told {
            self.events.insert(0, PlannedEvent::warning(reason, "Schedule", message));
        }
    }
}
