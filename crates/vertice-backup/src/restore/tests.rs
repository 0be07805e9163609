use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};
use vertice_api::vertice_io::{RestorePhase, VerticeBackup, VerticeRestore, VerticeRestoreStatus};

use super::observe::Observed;
use super::plan::{Action, Plan, plan};
use crate::run::Attempt;
use crate::testing::{at, candidates, one};

const SHOP: &str = include_str!("../backup/fixtures/shop.yaml");
const BACK: &str = include_str!("fixtures/back.yaml");
const NOW: &str = "2026-11-21T12:00:00Z";

/// A cluster with the shop's objects in it; the tests play the API server.
struct World {
    restore: VerticeRestore,
    backup: Option<VerticeBackup>,
    attempt: Option<Attempt>,
    jobs_made: u32,
    told: Vec<String>,
}

impl World {
    fn new() -> Self {
        let backup = one(SHOP, "VerticeBackup");
        Self {
            restore: one(BACK, "VerticeRestore"),
            backup: Some(backup),
            attempt: None,
            jobs_made: 0,
            told: Vec::new(),
        }
    }

    fn with_spec(spec: Value) -> Self {
        let mut world = Self::new();
        world.restore.spec = serde_json::from_value(spec).unwrap();
        world
    }

    fn plan(&self, now: &str) -> Option<Plan> {
        let observed = Observed {
            restore: Arc::new(self.restore.clone()),
            backup: self.backup.clone().map(Arc::new),
            candidates: candidates(SHOP),
            attempt: self.attempt.clone(),
            agent_image: "agent:4.5.6".to_owned(),
        };
        plan(&observed, at(now)).unwrap()
    }

    /// Writes the status of a plan; what a crash before the action leaves behind.
    fn write(&mut self, plan: &Plan, now: &str) {
        let before = self.restore.status.clone().unwrap_or_default();
        self.restore.status = Some(plan.draft.clone().finish(&before, Some(1), at(now)));
        self.told.extend(plan.events.iter().map(|event| format!("{} {}", event.reason, event.note)));
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::None => {}
            Action::Create(job) => {
                self.jobs_made += 1;
                let mut job = Job::clone(job);
                job.metadata.uid = Some(format!("job-uid-{}", self.jobs_made));
                self.attempt = Some(Attempt { job, pods: Vec::new() });
            }
            Action::Resume { uid, .. } => {
                let job = &mut self.attempt.as_mut().unwrap().job;
                assert_eq!(job.metadata.uid.as_ref(), Some(uid));
                job.spec.as_mut().unwrap().suspend = Some(false);
                job.status = serde_json::from_value(json!({"startTime": "2026-11-21T12:00:05Z"})).unwrap();
            }
        }
    }

    fn reconcile(&mut self, now: &str) -> Option<Plan> {
        let plan = self.plan(now)?;
        self.write(&plan, now);
        self.act(&plan.action);
        Some(plan)
    }

    fn end(&mut self, type_: &str, code: i32, report: &Value) {
        let attempt = self.attempt.as_mut().unwrap();
        attempt.job.status.as_mut().unwrap().conditions = serde_json::from_value(
            json!([{"type": type_, "status": "True", "lastTransitionTime": "2026-11-21T12:10:12Z"}]),
        )
        .unwrap();
        attempt.pods = vec![
            serde_json::from_value(json!({
                "metadata": {"name": "back-restore-x"},
                "status": {"containerStatuses": [{
                    "name": "agent", "image": "postgres:15.18", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code, "message": report.to_string()}},
                }]},
            }))
            .unwrap(),
        ];
    }

    fn status(&self) -> &VerticeRestoreStatus {
        self.restore.status.as_ref().unwrap()
    }

    fn phase(&self) -> RestorePhase {
        self.status().phase.unwrap()
    }
}

fn restored() -> Value {
    json!({
        "outcome": "restored", "backupId": "20261121T013003Z-3f9a1c", "startedAt": "2026-11-21T12:00:07Z",
        "finishedAt": "2026-11-21T12:10:07Z", "plainBytes": 28_860_000_000_u64, "databases": ["orders"],
    })
}

fn refused() -> Value {
    json!({
        "outcome": "failed", "reason": "TargetNotEmpty", "message": "database orders holds 7 tables: set overwrite",
        "startedAt": "2026-11-21T12:00:07Z", "finishedAt": "2026-11-21T12:00:09Z",
    })
}

#[test]
fn a_restore_becomes_one_job_that_is_let_go_after_its_uid_was_noted() {
    let mut world = World::new();
    let made = world.reconcile(NOW).unwrap();
    let Action::Create(job) = &made.action else { panic!("{:?}", made.action) };
    insta::assert_yaml_snapshot!("job", job);
    assert_eq!((world.phase(), world.status().job_uid.as_deref()), (RestorePhase::Pending, None));
    let let_go = world.reconcile("2026-11-21T12:00:05Z").unwrap();
    assert_eq!(let_go.action, Action::Resume { job: "back-restore".into(), uid: "job-uid-1".into() });
    assert_eq!(world.status().job_uid.as_deref(), Some("job-uid-1"));
    world.reconcile("2026-11-21T12:00:06Z").unwrap();
    insta::assert_yaml_snapshot!("status_running", world.status());
    world.end("Complete", 0, &restored());
    world.reconcile("2026-11-21T12:10:13Z").unwrap();
    insta::assert_yaml_snapshot!("status_succeeded", world.status());
    insta::assert_snapshot!("events", world.told.join("\n"));
}

#[test]
fn an_end_is_final_and_a_deleted_job_does_not_run_again() {
    let mut world = World::new();
    for _ in 0..3 {
        world.reconcile(NOW);
    }
    world.end("Failed", 1, &refused());
    world.reconcile("2026-11-21T12:10:13Z");
    insta::assert_yaml_snapshot!("status_failed", world.status());
    world.attempt = None;
    assert_eq!(world.plan("2026-11-22T00:00:00Z"), None);
}

#[test]
fn a_job_that_was_deleted_while_it_ran_is_not_made_again() {
    let mut world = World::new();
    for _ in 0..3 {
        world.reconcile(NOW);
    }
    world.attempt = None;
    let plan = world.reconcile("2026-11-21T12:03:05Z").unwrap();
    assert_eq!((plan.action, world.phase(), world.jobs_made), (Action::None, RestorePhase::Failed, 1));
    insta::assert_yaml_snapshot!("status_vanished", world.status());
}

/// Killed at every point: between the Job and its note, between the note and letting go, and after each.
#[test]
fn a_crash_anywhere_neither_loses_the_restore_nor_runs_it_twice() {
    for crash_after in 0..6 {
        let mut world = World::new();
        let (mut step, mut resumed) = (0, 0);
        for _ in 0..6 {
            let Some(plan) = world.plan(NOW) else { break };
            // A Job is made before the status is written, everything else after.
            let creates = matches!(plan.action, Action::Create(_));
            for half in [creates, !creates] {
                if step != crash_after || half {
                    if half { world.act(&plan.action) } else { world.write(&plan, NOW) }
                }
                resumed += u32::from(half && matches!(plan.action, Action::Resume { .. }));
                step += 1;
            }
            // The crash loses the rest of this pass: modelled by the status not being written once.
        }
        assert_eq!((world.jobs_made, resumed.min(1)), (1, 1), "crash after step {crash_after}");
        let job = &world.attempt.as_ref().unwrap().job;
        assert_eq!(job.spec.as_ref().unwrap().suspend, Some(false));
        assert_eq!(world.status().job_uid, job.metadata.uid);
    }
}

#[test]
fn a_job_made_again_from_an_outdated_cache_is_never_let_go() {
    let mut world = World::new();
    let outdated = world.plan(NOW).unwrap();
    for _ in 0..3 {
        world.reconcile(NOW);
    }
    world.attempt = None;
    world.act(&outdated.action);
    let plan = world.reconcile("2026-11-21T12:03:05Z").unwrap();
    assert_eq!((plan.action, world.phase()), (Action::None, RestorePhase::Failed));
    // It stays suspended for good, and goes with its VerticeRestore.
    assert_eq!(world.plan("2026-11-21T12:04:05Z"), None);
    let stray = world.attempt.unwrap().job;
    assert_eq!((stray.metadata.uid.as_deref(), stray.spec.unwrap().suspend), (Some("job-uid-2"), Some(true)));
}

#[test]
fn a_job_of_someone_else_is_left_alone() {
    let mut world = World::new();
    let job = serde_json::from_value(json!({"metadata": {"name": "back-restore", "uid": "theirs"}})).unwrap();
    world.attempt = Some(Attempt { job, pods: Vec::new() });
    let plan = world.reconcile(NOW).unwrap();
    assert_eq!((plan.action, world.phase()), (Action::None, RestorePhase::Pending));
    assert_eq!(plan.requeue_at, Some(at("2026-11-21T12:01:00Z")));
    world.attempt.as_mut().unwrap().job.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-11-21T12:00:00Z")).unwrap();
    world.reconcile(NOW).unwrap();
    insta::assert_snapshot!("name_taken", world.told.join("\n"));
}

#[test]
fn the_job_of_an_earlier_restore_of_this_name_is_waited_for_and_nobody_is_told_to_delete_it() {
    let mut world = World::new();
    let owner = json!({"apiVersion": "vertice.io/v1alpha1", "kind": "VerticeRestore", "name": "back", "uid": "earlier"});
    let job = json!({"metadata": {"name": "back-restore", "uid": "theirs", "ownerReferences": [owner]}});
    world.attempt = Some(Attempt { job: serde_json::from_value(job).unwrap(), pods: Vec::new() });
    let plan = world.reconcile(NOW).unwrap();
    assert_eq!((plan.action, world.phase()), (Action::None, RestorePhase::Pending));
    assert_eq!(
        world.told,
        ["NameTaken Job back-restore of an earlier VerticeRestore of this name is still being deleted"]
    );
}

#[test]
fn each_mistake_is_told_with_its_field_and_what_to_do() {
    let target = json!({"type": "postgresql", "name": "nobody", "credentials": "c"});
    let storage = json!({"type": "s3", "bucket": "b", "prefix": "p", "credentials": "c"});
    let specs = [
        json!({"source": {"backupName": "gone"}}),
        json!({"source": {"backupName": "shop"}, "target": target}),
        json!({"source": {"backupName": "shop", "backupId": "yesterday"}}),
        json!({"source": {"backupName": "shop"}, "recoverTo": {"backupId": "20261399T000000Z-3f9a1c"}}),
        json!({"source": {"backupName": "shop"}, "timeout": "0s"}),
        json!({"source": {"storage": storage}}),
        json!({"source": {}}),
    ];
    let told = specs.map(|spec| {
        let mut world = World::with_spec(spec);
        if world.restore.spec.source.backup_name.as_deref() != Some("shop") {
            world.backup = None;
        }
        let plan = world.reconcile(NOW).unwrap();
        assert_eq!((plan.action, plan.requeue_at), (Action::None, None));
        assert_eq!(world.reconcile(NOW).unwrap().events, [], "told once");
        assert_eq!(world.phase(), RestorePhase::Pending);
        world.told.join("\n")
    });
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_bare_bucket_and_an_own_target_need_no_backup() {
    let mut world = World::with_spec(json!({
        "source": {
            "storage": {"type": "s3", "bucket": "far", "prefix": "old/place", "region": "r-9", "credentials": "far-key"},
            "backupId": "20250102T030405Z-0a1b2c",
        },
        "target": {"type": "postgresql", "name": "db", "host": "10.1.2.3", "port": 7777, "image": "pg:9", "credentials": "own"},
    }));
    world.backup = None;
    let plan = world.reconcile(NOW).unwrap();
    let Action::Create(job) = plan.action else { panic!() };
    let pod = job.spec.unwrap().template.spec.unwrap();
    let task: Value =
        serde_json::from_str(pod.containers[0].env.as_ref().unwrap()[0].value.as_ref().unwrap()).unwrap();
    insta::assert_json_snapshot!("bare_task", task);
    assert_eq!(world.status().target.as_deref(), Some("10.1.2.3:7777"));
    assert_eq!(world.status().backup_id.as_deref(), Some("20250102T030405Z-0a1b2c"));
}
