//! When the CronJob controller acts on a schedule: `nextScheduleTimeDuration` and `mostRecentScheduleTime` of
//! <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/controller/cronjob/utils.go>.

use jiff::{SignedDuration, Timestamp};

use super::Schedule;

/// The instant at which the CronJob controller looks at the CronJob next, to start a Job.
///
/// `created` and `last_scheduled` are the CronJob's `metadata.creationTimestamp` and `status.lastScheduleTime`. They matter to
/// `@every`, which counts from the run before, and not from now.
pub fn next(
    schedule: &Schedule,
    created: Timestamp,
    last_scheduled: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let anchor = last_scheduled.unwrap_or(created);
    schedule.next_after(most_recent(schedule, anchor, now).unwrap_or(now))
}

/// The latest firing up to now, or the anchor when none was due since; none when the schedule is too odd to tell.
fn most_recent(schedule: &Schedule, anchor: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let first = schedule.next_after(anchor)?;
    if now < first {
        return Some(anchor);
    }
    let second = schedule.next_after(first)?;
    if now < second {
        return Some(first);
    }
    let interval = second.as_second() - first.as_second();
    if interval < 1 {
        return None;
    }
    // Not all missed firings are walked through: there may be years of them. Two intervals before now is early enough.
    let missed = (now.as_second() - first.as_second()) / interval + 1;
    let early = first.checked_add(SignedDuration::from_secs((missed - 2).checked_mul(interval)?)).ok()?;
    let firings = std::iter::successors(schedule.next_after(early), |firing| schedule.next_after(*firing));
    firings.take_while(|firing| *firing <= now).last()
}
