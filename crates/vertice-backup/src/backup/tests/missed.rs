//! Runs that were due and did not start.

use serde_json::json;
use vertice_api::vertice_io::BackupPhase;

use super::{NOON, World, ended, running};
use crate::run::Attempt;
use crate::testing::at;

const DUE: &str = "2026-11-22T01:30:00Z";
const OVERDUE: &str = "2026-11-22T01:31:00Z";

/// The schedule came to be at noon, and nothing has run since.
fn world() -> World {
    let mut world = World::new();
    world.reconcile(NOON);
    world
}

fn health(world: &World) -> &str {
    &world.status().conditions[1].reason
}

fn missed(world: &World) -> i64 {
    world.status().totals.as_ref().unwrap().missed
}

fn manual(attempt: Attempt) -> Attempt {
    let mut attempt = attempt;
    let annotations = [("cronjob.kubernetes.io/instantiate".to_owned(), "manual".to_owned())];
    attempt.job.metadata.annotations = Some(annotations.into());
    attempt
}

#[test]
fn a_run_that_does_not_start_is_told_after_a_minute_and_once() {
    let mut world = world();
    let due = world.reconcile(DUE);
    assert_eq!(due.requeue_at, Some(at(OVERDUE)));
    assert_eq!(health(&world), "NoBackupYet");
    let told = world.reconcile(OVERDUE);
    insta::assert_yaml_snapshot!("status_missed", world.status());
    assert_eq!(told.requeue_at, Some(at("2026-11-23T01:30:00Z")));
    assert!(told.events.iter().all(|event| event.warning));
    let status = world.status().clone();
    world.reconcile("2026-11-22T09:00:00Z");
    assert_eq!(world.status(), &status, "neither time nor a restart changes what was said");

    world.reconcile("2026-11-23T01:30:30Z");
    assert_eq!(world.status().conditions, status.conditions, "the next one may still start");
    world.reconcile("2026-11-23T01:31:00Z");
    assert_eq!(missed(&world), 2);
    insta::assert_snapshot!("events_of_missed_runs", world.told.join("\n"));
}

#[test]
fn a_run_that_starts_late_ends_it() {
    let mut world = world();
    world.reconcile(OVERDUE);
    world.fired(DUE);
    let late = running("shop-backup-1", "2026-11-22T01:50:00Z");
    world.attempts = vec![late.clone()];
    world.reconcile("2026-11-22T01:50:01Z");
    assert_eq!((health(&world), world.status().phase), ("NoBackupYet", Some(BackupPhase::Running)));
    world.attempts = vec![ended(late, 20, Some(5))];
    world.reconcile("2026-11-22T01:51:00Z");
    assert_eq!((health(&world), world.status().phase), ("BackupSucceeded", Some(BackupPhase::Scheduled)));
    assert_eq!(missed(&world), 1, "it was late all the same");
}

#[test]
fn a_manual_backup_makes_up_for_it_and_a_failed_attempt_does_not() {
    let mut world = world();
    world.reconcile(OVERDUE);
    let first = manual(running("by-hand-1", "2026-11-22T08:00:00Z"));
    world.attempts = vec![first.clone()];
    world.reconcile("2026-11-22T08:00:01Z");
    assert_eq!(health(&world), "RunMissed", "it holds nothing back");
    world.attempts = vec![ended(first, 5, None)];
    world.reconcile("2026-11-22T08:00:06Z");
    assert_eq!(health(&world), "RunMissed");
    world.attempts.push(ended(manual(running("by-hand-2", "2026-11-22T08:10:00Z")), 5, Some(7)));
    world.reconcile("2026-11-22T08:10:06Z");
    assert_eq!((health(&world), missed(&world)), ("BackupSucceeded", 1));
}

#[test]
fn what_ran_while_the_operator_was_down_was_not_missed() {
    let mut world = world();
    world.fired("2026-11-24T01:30:00Z");
    world.reconcile("2026-11-24T09:00:00Z");
    assert_eq!((health(&world), missed(&world)), ("NoBackupYet", 0));
    // Only its Job tells of it: the CronJob controller was ended before it wrote when it had fired.
    world.attempts = vec![ended(running("shop-backup-9", "2026-11-25T01:30:01Z"), 20, Some(5))];
    world.reconcile("2026-11-25T09:00:00Z");
    assert_eq!((health(&world), missed(&world)), ("BackupSucceeded", 0));
}

#[test]
fn a_run_over_the_next_firing_holds_that_one_back() {
    let mut world = world();
    world.fired(DUE);
    let long = running("shop-backup-1", DUE);
    world.attempts = vec![long.clone()];
    let plan = world.reconcile("2026-11-23T01:31:00Z");
    assert_eq!((health(&world), plan.requeue_at), ("NoBackupYet", Some(at("2026-11-24T01:30:00Z"))));

    // It ends when the next one may still start, by `startingDeadline`.
    let hours = 24 * 3600;
    world.attempts = vec![ended(long.clone(), hours + 600, Some(5))];
    let plan = world.reconcile("2026-11-23T01:40:01Z");
    let looks = at("2026-11-23T01:41:00Z");
    assert_eq!((health(&world), plan.requeue_at), ("BackupSucceeded", Some(looks)));
    world.reconcile("2026-11-23T01:41:00Z");
    assert_eq!(health(&world), "RunMissed");

    // It ends when that is over.
    let mut world = self::world();
    world.fired(DUE);
    world.attempts = vec![ended(long, hours + 1560, Some(5))];
    let plan = world.reconcile("2026-11-23T02:00:00Z");
    let next = at("2026-11-24T01:30:00Z");
    assert_eq!((health(&world), plan.requeue_at), ("BackupSucceeded", Some(next)));
    world.reconcile("2026-11-24T01:31:00Z");
    assert_eq!(health(&world), "RunMissed", "nothing holds back the one after it");
}

#[test]
fn a_pause_misses_nothing() {
    let mut world = world();
    world.edit("/suspend", json!(true));
    world.reconcile("2026-11-21T12:00:00Z");
    world.reconcile("2026-11-23T10:00:00Z");
    assert_eq!((health(&world), missed(&world)), ("NoBackupYet", 0));
    world.edit("/suspend", json!(false));
    world.reconcile("2026-11-23T11:00:00Z");
    world.reconcile("2026-11-23T12:00:00Z");
    assert_eq!((health(&world), missed(&world)), ("NoBackupYet", 0));
    // The first one after it counts, though by then nothing reminds of the pause.
    world.reconcile("2026-11-24T01:30:15Z");
    world.reconcile("2026-11-24T01:31:00Z");
    assert_eq!((health(&world), missed(&world)), ("RunMissed", 1));
    let last = world.status().last_missed.as_ref().unwrap().0;
    assert_eq!(last, at("2026-11-24T01:30:00Z"));
    world.edit("/suspend", json!(true));
    world.reconcile("2026-11-24T02:00:00Z");
    assert_eq!((health(&world), missed(&world)), ("NoBackupYet", 1), "nothing is owed while suspended");
}

#[test]
fn a_changed_schedule_owes_nothing_for_the_time_before() {
    let mut world = world();
    world.edit("/schedule", json!("0 9 * * *"));
    world.reconcile("2026-11-21T20:00:00Z");
    world.reconcile("2026-11-22T07:00:00Z");
    assert_eq!((health(&world), missed(&world)), ("NoBackupYet", 0));
    world.reconcile("2026-11-22T08:01:00Z");
    assert_eq!(world.status().last_missed.as_ref().unwrap().0, at("2026-11-22T08:00:00Z"));
}

#[test]
fn a_schedule_that_a_mistake_left_in_force_is_watched_over() {
    let mut world = world();
    world.edit("/schedule", json!("never"));
    world.reconcile(OVERDUE);
    assert_eq!((health(&world), world.status().phase), ("RunMissed", Some(BackupPhase::Pending)));
}

#[test]
fn of_many_missed_while_the_operator_was_down_the_last_is_told() {
    let mut world = world();
    world.reconcile("2026-12-21T12:00:00Z");
    assert_eq!(missed(&world), 1);
    assert_eq!(world.status().last_missed.as_ref().unwrap().0, at("2026-12-21T01:30:00Z"));
}
