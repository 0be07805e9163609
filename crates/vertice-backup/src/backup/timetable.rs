//! When a CronJob fires, and which of its firings no run followed. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt as _;
use vertice_api::vertice_io::{BackupRun, RunStatus};
use vertice_controller::cron::{Schedule, firing};

use super::history;
use crate::names;

/// How late a run may start before that is told: the CronJob controller needs seconds.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The firings of a CronJob that is not suspended.
#[derive(Clone, Debug)]
pub(super) struct Timetable {
    schedule: Schedule,
    created: Timestamp,
    /// The last firing that a Job was made for.
    last: Option<Timestamp>,
    /// Firings up to here are nobody's loss: the schedule was not in force.
    since: Timestamp,
    /// How late a Job may still be made.
    deadline: Option<SignedDuration>,
}

/// A firing that no run followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unstarted {
    /// It is too early to say; look again then.
    Early(Timestamp),
    /// The run that was due then did not start.
    Missed(Timestamp),
}

impl Timetable {
    /// Of a CronJob that is as `wanted`, and of which the API server has `live`. None while it is suspended.
    pub(super) fn of(wanted: &CronJob, live: Option<&CronJob>, now: Timestamp) -> Option<Self> {
        let spec = &wanted.spec;
        if spec.suspend == Some(true) {
            return None;
        }
        let schedule =
            Schedule::parse(&spec.schedule, spec.time_zone.as_deref().unwrap_or("Etc/UTC")).ok()?;
        let created =
            live.and_then(|live| live.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
        let status = live.and_then(|live| live.status.as_ref());
        let last = status.and_then(|status| status.last_schedule_time.as_ref()).map(|time| time.0);
        let forced = wanted.annotations().get(names::IN_FORCE_SINCE_ANNOTATION);
        let since = forced.and_then(|since| since.parse().ok()).unwrap_or(created);
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        Some(Self { schedule, created, last, since: last.unwrap_or(created).max(since), deadline })
    }

    /// The instant at which it fires next.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        firing::next(&self.schedule, self.created, self.last, now)
    }

    /// Until when the run that was due then may still start, where that is more than a moment.
    pub(super) fn starts_until(&self, due: Timestamp) -> Option<Timestamp> {
        due.checked_add(self.deadline.filter(|deadline| *deadline > GRACE)?).ok()
    }

    /// The latest firing that no Job was made for and that is older than the grace.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<Timestamp> {
        let latest = now.checked_sub(GRACE).ok()?;
        let is_before_it = |at: i64| {
            Timestamp::from_second(at).ok().and_then(|at| self.next(at)).filter(|next| *next <= latest)
        };
        // There may be years of firings: not all of them are walked through.
        let (mut before, mut after) = (self.since.as_second(), latest.as_second());
        let mut found = is_before_it(before)?;
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            match is_before_it(middle) {
                Some(firing) => (before, found) = (middle, firing),
                None => after = middle,
            }
        }
        Some(found)
    }

    /// What is to be said of a firing that no Job was made for, while no run is under way. `ended` are the runs of late.
    pub(super) fn unstarted(&self, ended: &[BackupRun], now: Timestamp) -> Option<Unstarted> {
        let Some(due) = self.overdue(now) else { return self.early(now) };
        // A backup that a person made since is as good; a failed attempt of theirs is not.
        let followed =
            |run: &BackupRun| run.timestamp.0 >= due && (!run.manual || run.status == RunStatus::Success);
        if ended.iter().any(followed) {
            return self.early(now);
        }
        // A run that goes on over the next firing holds that one back (`concurrencyPolicy: Forbid`), for longer than it may be late
        // or until it ends.
        let held = ended.iter().filter(|run| !run.manual && run.timestamp.0 < due).map(history::end).max();
        let Some(free) = held.filter(|free| *free >= due) else { return Some(Unstarted::Missed(due)) };
        if self.deadline.is_some_and(|deadline| free.duration_since(due) > deadline) {
            return self.early(now);
        }
        let judged = free.checked_add(GRACE).ok()?;
        Some(if judged > now { Unstarted::Early(judged) } else { Unstarted::Missed(due) })
    }

    /// A firing whose grace is not yet over.
    fn early(&self, now: Timestamp) -> Option<Unstarted> {
        let latest = now.checked_sub(GRACE).ok()?;
        let due = self.next(latest.max(self.since)).filter(|due| *due <= now)?;
        due.checked_add(GRACE).ok().map(Unstarted::Early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn timetable(schedule: &str, zone: &str, created: &str, last: Option<&str>) -> Timetable {
        let cronjob: CronJob = serde_json::from_value(serde_json::json!({
            "metadata": {"creationTimestamp": created},
            "spec": {"schedule": schedule, "timeZone": zone, "jobTemplate": {}},
            "status": {"lastScheduleTime": last},
        }))
        .unwrap();
        Timetable::of(&cronjob, Some(&cronjob), at(created)).unwrap()
    }

    #[test]
    fn the_latest_firing_that_is_overdue_is_found_without_walking_through_all() {
        let schedules = [
            ("*/5 * * * *", "Etc/UTC"),
            ("30 2 * * *", "Europe/Zurich"),
            ("0 9 * * 1-5", "America/New_York"),
            ("*/7 3 1 * *", "Asia/Kolkata"),
            ("0 0 29 2 *", "Etc/UTC"),
            ("@every 90m", "Etc/UTC"),
        ];
        let (created, start) = ("2026-10-23T08:00:01Z", at("2026-10-24T09:00:00.5Z"));
        let end = start + SignedDuration::from_hours(24 * 21);
        for (schedule, zone) in schedules {
            for last in [None, Some("2026-10-24T08:00:00Z")] {
                let table = timetable(schedule, zone, created, last);
                let first = table.schedule.next_after(table.since);
                let all = std::iter::successors(first, |firing| table.schedule.next_after(*firing));
                let all: Vec<_> = all.take_while(|firing| *firing < end).collect();
                for hours in (0..24 * 21).step_by(13) {
                    let now = start + SignedDuration::from_hours(hours);
                    let walked = all.iter().rfind(|firing| **firing <= now - GRACE).copied();
                    assert_eq!(table.overdue(now), walked, "{schedule} at {now}");
                }
            }
        }
    }

    #[test]
    fn a_firing_is_overdue_when_its_grace_is_over_and_looked_at_then() {
        let table = timetable("0 * * * *", "Etc/UTC", "2026-11-21T10:30:00Z", None);
        assert_eq!(table.unstarted(&[], at("2026-11-21T10:59:59Z")), None);
        let ends = at("2026-11-21T11:01:00Z");
        for now in ["2026-11-21T11:00:00Z", "2026-11-21T11:00:59.9Z"] {
            assert_eq!(table.unstarted(&[], at(now)), Some(Unstarted::Early(ends)), "{now}");
        }
        assert_eq!(table.unstarted(&[], ends), Some(Unstarted::Missed(at("2026-11-21T11:00:00Z"))));
        let later = at("2026-11-21T12:00:30Z");
        assert_eq!(
            table.unstarted(&[], later),
            Some(Unstarted::Missed(at("2026-11-21T11:00:00Z"))),
            "until the next one is overdue"
        );
    }
}
