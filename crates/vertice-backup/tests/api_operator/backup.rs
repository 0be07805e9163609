//! VerticeBackups: their CronJobs, and what their status says of their runs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use vertice_api::vertice_io::{BackupPhase, RunStatus, VerticeBackup};
use vertice_backup::names::{BACKUP_LABEL, OWNER_UID_LABEL};
use vertice_catalog::report::FailureReason;
use vertice_controller::apply::HASH_ANNOTATION;
use vertice_controller::cron::Schedule;
use vertice_controller::metrics::ReconcileResult;

use crate::runs::{self, backed_up, failed};
use crate::stage::{Operator, Stage, wait};

/// Makes the operator look at everything in the namespace again, and waits until it has.
pub(crate) async fn wake(stage: &Stage, operator: &Operator) {
    let before = operator.backup.reconciles(ReconcileResult::Success);
    let now = Timestamp::now().to_string();
    stage.patch::<Service>("db", json!({"metadata": {"annotations": {"touched": now}}})).await;
    wait("another reconcile", async || {
        (operator.backup.reconciles(ReconcileResult::Success) > before).then_some(())
    })
    .await;
}

fn writes(operator: &Operator) -> u64 {
    let kinds = ["cronjobs", "jobs", "verticebackups/status", "verticerestores/status", "events"];
    kinds.iter().map(|kind| operator.backup.writes(kind) + operator.restore.writes(kind)).sum()
}

fn ended(backup: &VerticeBackup, runs: i64) -> bool {
    backup.status.as_ref().and_then(|status| status.totals.as_ref()).is_some_and(|totals| totals.runs == runs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_becomes_a_cronjob_and_a_quiet_one_costs_no_write() {
    let stage = Stage::set("quiet").await;
    let operator = stage.operator();
    stage.backup("shop", json!({"timeout": "1h30m", "startingDeadline": "20m"})).await;
    let backup = stage.judged("shop").await;
    let cronjob = stage.cronjob("shop").await;
    assert_eq!(cronjob.spec.schedule, "30 2 * * *");
    assert_eq!(cronjob.spec.starting_deadline_seconds, Some(1200));
    let next = Schedule::parse("30 2 * * *", "Europe/Zurich").unwrap().next_after(Timestamp::now());
    assert_eq!(backup.status.as_ref().unwrap().next_backup.as_ref().map(|next| next.0), next);
    assert_eq!(backup.status.as_ref().unwrap().phase, Some(BackupPhase::Scheduled));
    stage.event("shop", "ScheduleUpdated").await;
    wake(&stage, &operator).await;

    let before = (
        writes(&operator),
        cronjob.resource_version(),
        stage.get::<VerticeBackup>("shop").await.resource_version(),
    );
    for _ in 0..3 {
        wake(&stage, &operator).await;
    }
    operator.stop().await;
    // A new operator remembers nothing, and finds nothing to do either.
    let operator = stage.operator();
    wake(&stage, &operator).await;
    assert_eq!(writes(&operator), 0);
    let after = (
        stage.cronjob("shop").await.resource_version(),
        stage.get::<VerticeBackup>("shop").await.resource_version(),
    );
    assert_eq!((before.1, before.2), after);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_set_right_and_told() {
    let stage = Stage::set("drift").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.judged("shop").await;
    stage.cronjob("shop").await;
    stage
        .patch::<CronJob>(
            "shop-backup",
            json!({"spec": {"schedule": "0 0 1 1 *", "concurrencyPolicy": "Allow"}}),
        )
        .await;
    stage
        .until("shop-backup", "is as wanted", |found: &CronJob| {
            found.spec.schedule == "30 2 * * *" && found.spec.concurrency_policy.as_deref() == Some("Forbid")
        })
        .await;
    let told = stage.event("shop", "DriftCorrected").await;
    assert!(told.contains("spec.schedule") && told.contains("spec.concurrencyPolicy"), "{told}");
    assert_eq!(operator.backup.drift("cronjobs"), 1);
    // What others add is left alone.
    stage.patch::<CronJob>("shop-backup", json!({"metadata": {"annotations": {"theirs": "kept"}}})).await;
    wake(&stage, &operator).await;
    assert_eq!(stage.cronjob("shop").await.annotations()["theirs"], "kept");

    let uid = stage.cronjob("shop").await.uid();
    stage.api::<CronJob>().delete("shop-backup", &DeleteParams::background()).await.unwrap();
    stage.until("shop-backup", "is made again", |found: &CronJob| found.uid() != uid).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_and_resume_reach_the_cronjob() {
    let stage = Stage::set("suspend").await;
    let operator = stage.operator();
    stage.backup("shop", json!({"suspend": true})).await;
    let backup = stage.judged("shop").await;
    let status = backup.status.unwrap();
    assert_eq!((status.phase, status.next_backup), (Some(BackupPhase::Suspended), None));
    assert_eq!(stage.cronjob("shop").await.spec.suspend, Some(true));
    stage.patch::<VerticeBackup>("shop", json!({"spec": {"suspend": false}})).await;
    let resumed =
        stage.until("shop-backup", "is resumed", |found: &CronJob| found.spec.suspend == Some(false)).await;
    assert_eq!(
        resumed.spec.starting_deadline_seconds,
        Some(15),
        "what was missed in the pause is not caught up"
    );
    let backup = stage.judged("shop").await;
    assert_eq!(backup.status.unwrap().phase, Some(BackupPhase::Scheduled));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cronjob_of_someone_else_is_left_alone_and_told() {
    let stage = Stage::set("taken").await;
    let template = json!({"spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "theirs"}],
    }}}});
    let theirs = json!({"metadata": {"name": "shop-backup"}, "spec": {"schedule": "@yearly", "jobTemplate": template}});
    stage.create::<CronJob>(theirs).await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    let backup = stage.judged("shop").await;
    let ready = &backup.status.as_ref().unwrap().conditions[0];
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "NameTaken"));
    assert_eq!(stage.cronjob("shop").await.spec.schedule, "@yearly");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cronjob_that_does_not_look_like_ours_any_more_is_ours_all_the_same() {
    let stage = Stage::set("labels").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.judged("shop").await;
    let made = stage.cronjob("shop").await;
    let labels = json!({BACKUP_LABEL: null, OWNER_UID_LABEL: null});
    stage.patch::<CronJob>("shop-backup", json!({"metadata": {"labels": labels}})).await;
    let labelled = |found: &CronJob| found.labels() == made.labels();
    stage.until("shop-backup", "has its labels", labelled).await;
    let told = stage.event("shop", "DriftCorrected").await;
    assert!(told.contains("metadata.labels"), "{told}");

    // Nothing but the owner reference is left.
    let bare = json!({"labels": labels, "annotations": {HASH_ANNOTATION: null}, "managedFields": [{}]});
    stage.patch::<CronJob>("shop-backup", json!({"metadata": bare, "spec": {"schedule": "0 0 1 1 *"}})).await;
    let again = stage.until("shop-backup", "has its labels", labelled).await;
    assert_eq!((again.uid(), again.spec.schedule.as_str()), (made.uid(), "30 2 * * *"));
    let events = stage.events("shop").await;
    assert!(!events.iter().any(|event| event.contains("NameTaken")), "{events:#?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cronjob_that_is_being_deleted_is_told_and_made_again() {
    let stage = Stage::set("terminating").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.judged("shop").await;
    let made = stage.cronjob("shop").await;
    stage.patch::<CronJob>("shop-backup", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    stage.api::<CronJob>().delete("shop-backup", &DeleteParams::background()).await.unwrap();
    let ready = |found: &VerticeBackup| found.status.as_ref().map(|status| status.conditions[0].clone());
    let told = stage
        .backup_until("shop", "says so", |found| {
            ready(found).is_some_and(|ready| ready.reason == "CronJobTerminating")
        })
        .await;
    assert_eq!(ready(&told).unwrap().status, "False");
    let message = format!(
        "CronJob {}/shop-backup is being deleted and waits for its finalizers example.com/hold: no run starts until it is gone and \
         made again",
        stage.namespace
    );
    assert_eq!(ready(&told).unwrap().message, message);
    let status = told.status.unwrap();
    assert_eq!((status.phase, status.next_backup), (Some(BackupPhase::Pending), None));
    stage.event("shop", "CronJobTerminating").await;

    stage.patch::<CronJob>("shop-backup", json!({"metadata": {"finalizers": null}})).await;
    stage.until("shop-backup", "is made again", |found: &CronJob| found.uid() != made.uid()).await;
    stage
        .backup_until("shop", "is in force", |found| {
            ready(found).is_some_and(|ready| ready.status == "True" && ready.reason == "Scheduled")
        })
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_followed_and_counted_once_over_restarts() {
    let stage = Stage::set("runs").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.judged("shop").await;
    let cronjob = stage.cronjob("shop").await;

    runs::fire(&stage, &cronjob, "shop-1", false).await;
    runs::start(&stage, "shop-1").await;
    let running = stage
        .backup_until("shop", "is Running", |found| {
            found.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Running)
        })
        .await;
    assert_eq!(running.status.unwrap().last_backup.unwrap().status, RunStatus::Running);
    runs::finish(&stage, "shop-1", &backed_up(1_234_567_890)).await;
    let first = stage.backup_until("shop", "has counted 1", |found| ended(found, 1)).await;
    let success = first.status.as_ref().unwrap().last_success.clone().unwrap();
    assert_eq!(
        (success.size.as_deref(), success.size_bytes, success.manual),
        (Some("1.2GB"), Some(1_234_567_890), false)
    );
    // Told after it was written: a crash in between would lose the event, not the count.
    stage.event("shop", "BackupSucceeded").await;
    operator.kill().await;

    // While nobody looks: one ends badly, and the first one is pruned.
    runs::fire(&stage, &cronjob, "shop-2", true).await;
    runs::start(&stage, "shop-2").await;
    let message =
        "bucket backups does not exist at https://s3.amazonaws.com: make it or correct spec.storage.bucket";
    runs::finish(&stage, "shop-2", &failed(FailureReason::BucketNotFound, message)).await;
    runs::delete(&stage, "shop-1").await;
    let operator = stage.operator();
    let second = stage.backup_until("shop", "has counted 2", |found| ended(found, 2)).await;
    let status = second.status.as_ref().unwrap();
    assert_eq!(status.phase, Some(BackupPhase::Failing));
    assert_eq!(status.last_success, Some(success));
    let last = status.last_backup.as_ref().unwrap();
    assert_eq!(
        (last.status, last.manual, last.reason.as_deref()),
        (RunStatus::Failed, true, Some("BucketNotFound"))
    );
    let healthy = &status.conditions[1];
    assert_eq!(
        (healthy.status.as_str(), healthy.reason.as_str(), healthy.message.as_str()),
        ("False", "BucketNotFound", message)
    );

    stage.event("shop", "BackupFailed").await;
    let told = stage.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let told = told.into_iter().find(|event| event.reason.as_deref() == Some("BackupFailed")).unwrap();
    let job = told.related.unwrap();
    assert_eq!((job.kind.as_deref(), job.name.as_deref()), (Some("Job"), Some("shop-2")));
    assert_eq!(job.uid, stage.get::<Job>("shop-2").await.uid());
    wake(&stage, &operator).await;
    operator.kill().await;
    runs::delete(&stage, "shop-2").await;
    let operator = stage.operator();
    wake(&stage, &operator).await;
    let after = stage.get::<VerticeBackup>("shop").await;
    assert_eq!(after.status, second.status, "neither a restart nor pruning changes what was counted");
    let scrape = operator.scrape();
    let labels = format!(r#"{{namespace="{}",name="shop",type="postgresql"}}"#, stage.namespace);
    for (metric, value) in
        [("total", 2), ("success_total", 1), ("failure_total", 1), ("duration_seconds_count", 2)]
    {
        let line = format!("vertice_backup_{metric}{labels} {value}");
        assert!(scrape.contains(&line), "{line} is not in\n{scrape}");
    }
    let events = stage.events("shop").await;
    for (reason, times) in
        [("BackupStarted", 1), ("BackupSucceeded", 1), ("BackupFailed", 1), ("ScheduleUpdated", 1)]
    {
        let told = events.iter().filter(|event| event.contains(&format!(" {reason} "))).count();
        assert_eq!(told, times, "{reason} in {events:#?}");
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_report_is_not_running_for_ever() {
    let stage = Stage::set("lost").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.judged("shop").await;
    let cronjob = stage.cronjob("shop").await;

    // The Job is deleted while it runs.
    runs::fire(&stage, &cronjob, "shop-1", false).await;
    runs::start(&stage, "shop-1").await;
    stage
        .backup_until("shop", "runs shop-1", |found| {
            let last = found.status.as_ref().and_then(|status| status.last_backup.as_ref());
            last.is_some_and(|last| last.job == "shop-1")
        })
        .await;
    runs::delete(&stage, "shop-1").await;
    let first = stage.backup_until("shop", "has counted 1", |found| ended(found, 1)).await;
    let last = first.status.unwrap().last_backup.unwrap();
    assert_eq!((last.status, last.reason.as_deref()), (RunStatus::Failed, Some("NoReport")));

    // The pod is gone when the Job controller gives up.
    runs::fire(&stage, &cronjob, "shop-2", false).await;
    runs::start(&stage, "shop-2").await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    stage.api::<Pod>().delete("shop-2-pod", &now).await.unwrap();
    runs::settle(&stage, "shop-2", false, "BackoffLimitExceeded").await;
    let gone = stage.backup_until("shop", "has counted 2", |found| ended(found, 2)).await;
    assert_eq!(gone.status.unwrap().last_backup.unwrap().reason.as_deref(), Some("NoReport"));

    // The image cannot be pulled: told at once, and remembered when the deadline takes the pod away.
    runs::fire(&stage, &cronjob, "shop-3", false).await;
    runs::start(&stage, "shop-3").await;
    runs::image_missing(&stage, "shop-3").await;
    stage
        .backup_until("shop", "says that the pod cannot start", |found| {
            let conditions = found.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
            conditions
                .iter()
                .any(|one| one.reason == "PodNotStarted" && one.message.contains("ImagePullBackOff"))
        })
        .await;
    stage.api::<Pod>().delete("shop-3-pod", &now).await.unwrap();
    runs::settle(&stage, "shop-3", false, "DeadlineExceeded").await;
    let third = stage.backup_until("shop", "has counted 3", |found| ended(found, 3)).await;
    let last = third.status.unwrap().last_backup.unwrap();
    assert_eq!(last.reason.as_deref(), Some("PodNotStarted"));
    assert!(last.message.as_ref().unwrap().contains("ImagePullBackOff"), "{last:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_appears_wakes_the_backup_that_waits_for_it() {
    let stage = Stage::empty("appears").await;
    let operator = stage.operator();
    stage.backup("shop", json!({"target": {"image": "postgres:16"}})).await;
    stage.judged("shop").await;
    assert!(stage.api::<CronJob>().get_opt("shop-backup").await.unwrap().is_none());
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
    stage.create::<Service>(service).await;
    stage.cronjob("shop").await;
    stage.event("shop", "TargetNotFound").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_job_of_the_same_name_is_not_counted() {
    let stage = Stage::set("older").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.judged("shop").await;
    let cronjob = stage.cronjob("shop").await;
    runs::run(&stage, &cronjob, "shop-1", &backed_up(7)).await;
    stage.backup_until("shop", "has counted 1", |found| ended(found, 1)).await;
    stage.api::<VerticeBackup>().delete("shop", &DeleteParams::background()).await.unwrap();
    // There is no garbage collector: the Job stays, the CronJob is taken away by hand.
    stage.api::<CronJob>().delete("shop-backup", &DeleteParams::background()).await.unwrap();
    stage.backup("shop", json!({})).await;
    let again = stage.judged("shop").await;
    wake(&stage, &operator).await;
    assert!(stage.get::<Job>("shop-1").await.uid().is_some());
    assert_eq!(again.status.unwrap().totals.unwrap().runs, 0);
    operator.stop().await;
}
