mod missed;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use vertice_api::vertice_io::{RunStatus, VerticeBackup, VerticeBackupStatus};

use super::observe::Observed;
use super::plan::{Plan, plan};
use crate::run::Attempt;
use crate::testing::{at, candidates, one};

const SHOP: &str = include_str!("fixtures/shop.yaml");
const NOON: &str = "2026-11-21T11:00:00Z";

/// The VerticeBackup of a fixture.
pub(super) fn fixture(name: &str) -> VerticeBackup {
    let text = match name {
        "new" => include_str!("fixtures/new.yaml"),
        "seasoned" => include_str!("fixtures/seasoned.yaml"),
        _ => SHOP,
    };
    one(text, "VerticeBackup")
}

/// A cluster with the shop's objects in it; the tests play the API server.
struct World {
    backup: VerticeBackup,
    objects: String,
    cronjob: Option<CronJob>,
    attempts: Vec<Attempt>,
    told: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self {
            backup: fixture("shop"),
            objects: SHOP.to_owned(),
            cronjob: None,
            attempts: Vec::new(),
            told: Vec::new(),
        }
    }

    fn observe(&self) -> Observed {
        Observed {
            backup: Arc::new(self.backup.clone()),
            cronjob: self.cronjob.clone(),
            attempts: self.attempts.clone(),
            candidates: candidates(&self.objects),
            cluster: "cluster-uid".to_owned(),
            agent_image: "agent:1.2.3".to_owned(),
        }
    }

    fn plan(&self, now: &str) -> Plan {
        plan(&self.observe(), at(now)).unwrap()
    }

    /// Reconciles once, as the controller would.
    fn reconcile(&mut self, now: &str) -> Plan {
        let plan = self.plan(now);
        if let Some(mut wanted) = plan.cronjob.clone() {
            let created = serde_json::from_value(json!(now)).unwrap();
            let live = self.cronjob.take();
            wanted.metadata.creation_timestamp =
                live.as_ref().map_or(Some(created), |live| live.metadata.creation_timestamp.clone());
            wanted.status = live.and_then(|live| live.status);
            self.cronjob = Some(wanted);
        }
        let before = self.backup.status.clone().unwrap_or_default();
        let after = plan.draft.clone().finish(&before, self.backup.metadata.generation, at(now));
        self.backup.status = Some(after);
        self.told.extend(plan.events.iter().map(|event| format!("{} {}", event.reason, event.note)));
        plan
    }

    fn status(&self) -> &VerticeBackupStatus {
        self.backup.status.as_ref().unwrap()
    }

    /// The CronJob controller makes a Job for this instant.
    fn fired(&mut self, due: &str) {
        let status = json!({"lastScheduleTime": due});
        self.cronjob.as_mut().unwrap().status = Some(serde_json::from_value(status).unwrap());
    }

    fn edit(&mut self, path: &str, value: Value) {
        let mut spec = serde_json::to_value(&self.backup.spec).unwrap();
        *spec.pointer_mut(path).unwrap() = value;
        self.backup.spec = serde_json::from_value(spec).unwrap();
        self.backup.metadata.generation = self.backup.metadata.generation.map(|generation| generation + 1);
    }
}

/// A Job that runs since `started`.
fn running(name: &str, started: &str) -> Attempt {
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": name, "uid": format!("uid-of-{name}"), "creationTimestamp": started},
        "status": {"startTime": started, "active": 1},
    }))
    .unwrap();
    Attempt { job, pods: vec![pod(&json!({"running": {}}))] }
}

fn pod(state: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "a-pod"},
        "status": {"containerStatuses": [{
            "name": "agent", "image": "postgres:15.18", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]},
    }))
    .unwrap()
}

/// The Job's end after `seconds`, with the agent's report.
fn ended(mut attempt: Attempt, seconds: i64, bytes: Option<u64>) -> Attempt {
    let status = attempt.job.status.as_mut().unwrap();
    let started = status.start_time.as_ref().unwrap().0;
    let end = started + SignedDuration::from_secs(seconds);
    let report = match bytes {
        Some(bytes) => json!({
            "outcome": "backedUp", "backupId": "20261121T013003Z-3f9a1c", "startedAt": started, "finishedAt": end,
            "storedBytes": bytes, "plainBytes": 9, "databases": 2, "serverVersion": "15.18",
        }),
        None => json!({
            "outcome": "failed", "reason": "BucketNotFound", "message": "bucket vault-of-backups does not exist: make it",
            "startedAt": started, "finishedAt": end,
        }),
    };
    let type_ = if bytes.is_some() { "Complete" } else { "Failed" };
    status.conditions = Some(
        serde_json::from_value(json!([{"type": type_, "status": "True", "lastTransitionTime": end}]))
            .unwrap(),
    );
    let code = i32::from(bytes.is_none());
    attempt.pods = vec![pod(
        &json!({"terminated": {"exitCode": code, "message": report.to_string(), "finishedAt": end}}),
    )];
    attempt
}

#[test]
fn a_new_backup_becomes_a_cronjob() {
    let mut world = World::new();
    let plan = world.reconcile(NOON);
    insta::assert_yaml_snapshot!("cronjob", plan.cronjob);
    insta::assert_yaml_snapshot!("status_scheduled", world.status());
    assert_eq!(plan.requeue_at, Some(at("2026-11-22T01:30:00Z")));
    assert_eq!(world.told, [r#"ScheduleUpdated runs at "30 2 * * *" in time zone Europe/Zurich"#]);
}

#[test]
fn nothing_new_means_the_same_plan_and_nothing_to_tell() {
    let mut world = World::new();
    let first = world.reconcile(NOON);
    let status = world.status().clone();
    let second = world.reconcile("2026-11-21T12:34:56Z");
    assert_eq!(second.cronjob, first.cronjob);
    assert_eq!(world.status(), &status);
    assert_eq!(second.events, []);
}

#[test]
fn each_mistake_is_told_with_its_field_and_what_to_do() {
    let mistakes = [
        ("/schedule", json!("61 2 * * *")),
        ("/schedule", json!("@nightly")),
        ("/schedule", json!("0 0 30 2 *")),
        ("/timeZone", json!("Europe/Zürich")),
        ("/timeZone", json!("Mars/Olympus")),
        ("/timeout", json!("soon")),
        ("/timeout", json!("-5m")),
        ("/startingDeadline", json!("5")),
        ("/target/name", json!("nobody")),
    ];
    let told = mistakes.map(|(path, value)| {
        let mut world = World::new();
        world.edit(path, value);
        let plan = world.reconcile(NOON);
        assert_eq!((plan.cronjob, plan.requeue_at), (None, None), "nothing is made and nothing retried");
        assert_eq!(world.told.len(), 1);
        assert_eq!(world.reconcile(NOON).events, [], "and it is told once");
        format!("{:?} {}", world.status().phase.unwrap(), world.told[0])
    });
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_mistake_leaves_the_schedule_that_was_in_force() {
    let mut world = World::new();
    world.reconcile(NOON);
    world.edit("/schedule", json!("never"));
    let plan = world.reconcile(NOON);
    assert_eq!(plan.cronjob, None);
    assert_eq!(world.status().next_backup.as_ref().unwrap().0, at("2026-11-22T01:30:00Z"));
    assert_eq!(plan.requeue_at, Some(at("2026-11-22T01:30:00Z")));
}

#[test]
fn a_target_that_appears_heals_it() {
    let mut world = World::new();
    world.objects = String::from("kind: Nothing");
    world.reconcile(NOON);
    assert_eq!(world.status().conditions[0].reason, "TargetNotFound");
    world.objects = SHOP.to_owned();
    let plan = world.reconcile("2026-11-21T11:05:00Z");
    assert!(plan.cronjob.is_some());
    assert_eq!(world.status().conditions[0].status, "True");
    assert_eq!(world.status().conditions[0].last_transition_time.0, at("2026-11-21T11:05:00Z"));
}

#[test]
fn suspended_announces_no_run() {
    let mut world = World::new();
    world.edit("/suspend", json!(true));
    let plan = world.reconcile(NOON);
    assert_eq!(plan.cronjob.unwrap().spec.suspend, Some(true));
    assert_eq!(plan.requeue_at, None);
    insta::assert_yaml_snapshot!("status_suspended", world.status());
}

#[test]
fn a_resumed_schedule_does_not_catch_up_on_the_pause() {
    let mut world = World::new();
    world.edit("/suspend", json!(true));
    world.reconcile(NOON);
    world.edit("/suspend", json!(false));
    let resumed = "2026-11-23T11:00:00.7Z";
    let guarded = world.reconcile(resumed);
    let cronjob = guarded.cronjob.clone().unwrap();
    assert_eq!(cronjob.spec.starting_deadline_seconds, Some(15));
    let next = at("2026-11-24T01:30:00Z");
    assert_eq!(world.status().next_backup.as_ref().unwrap().0, next);
    assert_eq!(guarded.requeue_at, Some(next));
    // The guard holds until the first firing had its chance, and does not move meanwhile.
    let same = world.reconcile("2026-11-24T01:30:00Z");
    assert_eq!(same.cronjob, guarded.cronjob);
    assert_eq!(same.requeue_at, Some(at("2026-11-24T01:30:15Z")));
    let lifted = world.reconcile("2026-11-24T01:30:15Z").cronjob.unwrap();
    assert_eq!(lifted.spec.starting_deadline_seconds, Some(1500), "what the user set");
    assert_eq!(lifted.metadata.annotations, cronjob.metadata.annotations);
}

#[test]
fn a_resumed_schedule_does_not_catch_up_when_the_cache_has_not_seen_the_pause() {
    let mut world = World::new();
    world.reconcile(NOON);
    let before = world.cronjob.clone();
    world.edit("/suspend", json!(true));
    world.reconcile("2026-11-21T12:10:00Z");
    world.edit("/suspend", json!(false));
    world.cronjob = before;
    let guarded = world.reconcile("2026-11-23T11:00:00Z").cronjob.unwrap();
    assert_eq!(guarded.spec.starting_deadline_seconds, Some(15));
}

#[test]
fn a_changed_schedule_begins_now() {
    let mut world = World::new();
    world.reconcile("2026-11-20T11:00:00Z");
    world.edit("/schedule", json!("0 9 * * *"));
    let guarded = world.reconcile(NOON).cronjob.unwrap();
    assert_eq!(guarded.spec.starting_deadline_seconds, Some(15), "nine o'clock is over for today");
}

#[test]
fn what_someone_else_did_to_the_cronjob_is_no_change_of_the_schedule() {
    let mut world = World::new();
    let first = world.reconcile(NOON);
    world.cronjob.as_mut().unwrap().spec.schedule = "* * * * *".to_owned();
    assert_eq!(world.reconcile("2026-11-21T11:01:00Z").cronjob, first.cronjob);
}

#[test]
fn a_run_is_followed_from_its_start_to_its_end() {
    let mut world = World::new();
    world.reconcile(NOON);
    let run = running("shop-backup-1", "2026-11-22T01:30:00Z");
    world.attempts = vec![run.clone()];
    world.reconcile("2026-11-22T01:30:01Z");
    insta::assert_yaml_snapshot!("status_running", world.status());
    world.attempts = vec![ended(run, 332, Some(1_234_567_890))];
    world.reconcile("2026-11-22T01:35:33Z");
    insta::assert_yaml_snapshot!("status_succeeded", world.status());
    let failed = ended(running("shop-backup-2", "2026-11-23T01:30:00Z"), 7, None);
    world.attempts.push(failed);
    world.reconcile("2026-11-23T01:30:08Z");
    insta::assert_yaml_snapshot!("status_failing", world.status());
    insta::assert_snapshot!("events_of_runs", world.told.join("\n"));
}

#[test]
fn a_run_is_counted_once_also_when_its_job_is_pruned() {
    let mut world = World::new();
    let attempt = ended(running("shop-backup-1", "2026-11-22T01:30:00Z"), 20, Some(5));
    world.attempts = vec![attempt];
    world.reconcile("2026-11-22T01:31:00Z");
    let counted = world.status().clone();
    world.reconcile("2026-11-22T01:32:00Z");
    assert_eq!(world.status().totals, counted.totals);
    world.attempts.clear();
    world.reconcile("2026-11-22T01:33:00Z");
    assert_eq!(world.status(), &counted, "a pruned Job changes nothing");
    assert_eq!(world.told.iter().filter(|told| told.starts_with("BackupSucceeded")).count(), 1);
}

#[test]
fn a_full_history_does_not_count_its_oldest_runs_again() {
    let mut world = World::new();
    let start = at("2026-11-22T00:00:00Z");
    let runs = (0..25).map(|n: i64| {
        let started: Timestamp = start + SignedDuration::from_mins(n);
        ended(
            running(&format!("run-{n}"), &started.to_string()),
            10 + n,
            (n % 5 != 0).then_some(n.unsigned_abs()),
        )
    });
    world.attempts = runs.collect();
    world.reconcile("2026-11-22T01:00:00Z");
    world.reconcile("2026-11-22T01:00:01Z");
    let status = world.status();
    let totals = status.totals.as_ref().unwrap();
    assert_eq!((totals.runs, totals.succeeded, totals.failed), (25, 20, 5));
    assert_eq!(totals.duration_buckets.iter().sum::<i64>(), 25);
    assert!((totals.duration_seconds - f64::from((10..35).sum::<i32>())).abs() < 1e-9);
    let kept: Vec<_> = status.history.iter().map(|run| run.job.as_str()).collect();
    assert_eq!(kept.len(), 20);
    assert_eq!((kept[0], kept[19]), ("run-24", "run-5"), "newest first");
}

#[test]
fn a_long_run_that_others_overtook_is_counted() {
    let mut world = World::new();
    let long = running("long", "2026-11-22T00:00:00Z");
    let start = at("2026-11-22T00:01:00Z");
    let short = |n: i64| {
        let started = (start + SignedDuration::from_mins(n)).to_string();
        ended(running(&format!("short-{n}"), &started), 1, None)
    };
    world.attempts = std::iter::once(long.clone()).chain((0..20).map(short)).collect();
    world.reconcile("2026-11-22T01:00:00Z");
    assert_eq!(world.status().totals.as_ref().unwrap().runs, 20);
    world.attempts[0] = ended(long, 3600, Some(8));
    world.reconcile("2026-11-22T01:00:01Z");
    assert_eq!(world.status().totals.as_ref().unwrap().runs, 21);
    assert_eq!(world.status().history[0].job, "long");
}

#[test]
fn of_runs_within_one_second_the_later_is_the_last() {
    let mut world = World::new();
    let start = "2026-11-22T01:30:00Z";
    world.attempts = vec![ended(running("shop-backup-1", start), 4, Some(5))];
    world.reconcile("2026-11-22T01:30:05Z");
    world.attempts.push(ended(running("shop-backup-2", start), 4, None));
    world.reconcile("2026-11-22T01:30:05Z");
    let status = world.status();
    assert_eq!(status.last_backup.as_ref().unwrap().job, "shop-backup-2");
    assert_eq!(status.history[0].job, "shop-backup-2");
    assert_eq!(status.conditions[1].reason, "BucketNotFound");
}

#[test]
fn a_run_whose_job_is_gone_does_not_run_for_ever() {
    let mut world = World::new();
    world.attempts = vec![running("shop-backup-1", "2026-11-22T01:30:00Z")];
    world.reconcile("2026-11-22T01:30:01Z");
    world.attempts.clear();
    world.reconcile("2026-11-22T01:40:00.9Z");
    let status = world.status();
    let last = status.last_backup.as_ref().unwrap();
    assert_eq!(
        (last.status, last.reason.as_deref(), last.duration.as_deref()),
        (RunStatus::Failed, Some("NoReport"), Some("10m0s"))
    );
    assert_eq!(status.totals.as_ref().unwrap().failed, 1);
    let before = status.clone();
    world.reconcile("2026-11-22T01:50:00Z");
    assert_eq!(world.status(), &before, "and is counted once");
}

#[test]
fn a_pod_that_cannot_start_is_told_while_it_waits_and_after_the_deadline() {
    let mut world = World::new();
    let mut stuck = running("shop-backup-1", "2026-11-22T01:30:00Z");
    stuck.pods = vec![pod(&json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}))];
    world.attempts = vec![stuck.clone()];
    world.reconcile("2026-11-22T01:31:00Z");
    let healthy = &world.status().conditions[1];
    assert_eq!((healthy.status.as_str(), healthy.reason.as_str()), ("False", "PodNotStarted"));
    assert_eq!(healthy.message, "pod a-pod, image postgres:15.18: ImagePullBackOff: no such image");
    // The Job controller deletes the pod at the deadline.
    stuck.pods.clear();
    stuck.job.spec = serde_json::from_value(json!({"activeDeadlineSeconds": 5400, "template": {}})).unwrap();
    stuck.job.status.as_mut().unwrap().conditions = serde_json::from_value(json!([
        {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": "2026-11-22T03:00:00Z"},
    ]))
    .unwrap();
    world.attempts = vec![stuck];
    world.reconcile("2026-11-22T03:00:01Z");
    let last = world.status().last_backup.as_ref().unwrap();
    assert_eq!(last.reason.as_deref(), Some("PodNotStarted"));
    assert_eq!(
        last.message.as_deref(),
        Some(
            "the run was ended after 1h30m0s (spec.timeout), its pod had not started: pod a-pod, image postgres:15.18: \
             ImagePullBackOff: no such image"
        )
    );
}

#[test]
fn a_refused_cronjob_is_no_schedule_in_force() {
    let mut world = World::new();
    let mut plan = world.plan(NOON);
    plan.refuse("NameTaken", "CronJob sales/shop-backup exists already".to_owned(), false);
    assert_eq!(plan.events.len(), 1);
    let after = plan.draft.finish(&VerticeBackupStatus::default(), Some(7), at(NOON));
    assert_eq!((after.conditions[0].status.as_str(), after.next_backup.is_none()), ("False", true));
    world.backup.status = Some(after);
    let mut again = world.plan(NOON);
    again.refuse("NameTaken", "CronJob sales/shop-backup exists already".to_owned(), true);
    assert_eq!(again.events, []);
}

#[test]
fn of_two_runs_at_once_the_older_is_followed_until_it_ends_and_nothing_is_told_twice() {
    let mut world = World::new();
    world.reconcile(NOON);
    world.attempts = vec![running("a", "2026-11-21T11:00:00Z")];
    world.reconcile("2026-11-21T11:00:05Z");
    let newer = running("b", "2026-11-21T11:01:00Z");
    world.attempts.push(newer.clone());
    world.reconcile("2026-11-21T11:01:05Z");
    world.attempts[1] = ended(newer, 10, None);
    world.reconcile("2026-11-21T11:01:15Z");
    let told = world.told.clone();
    world.reconcile("2026-11-21T11:01:20Z");
    assert_eq!(world.told, told, "told again");
    assert_eq!(told.iter().filter(|line| line.starts_with("BackupStarted")).count(), 1, "{told:?}");
    assert_eq!(world.status().last_backup.as_ref().map(|run| run.job.as_str()), Some("a"));
    assert_eq!(world.status().totals.as_ref().map(|totals| totals.failed), Some(1));

    // Its Job is deleted: it is told and counted as lost, though a newer run has ended since.
    world.attempts.remove(0);
    world.reconcile("2026-11-21T11:02:00Z");
    assert_eq!(world.status().totals.as_ref().map(|totals| totals.runs), Some(2));
}
