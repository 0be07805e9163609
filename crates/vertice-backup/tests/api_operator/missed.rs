//! Runs that were due and did not start: no CronJob controller is there, so none starts by itself.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt as _;
use serde_json::json;
use vertice_api::vertice_io::{BackupPhase, VerticeBackup};
use vertice_controller::manager::Options;

use crate::backup::wake;
use crate::clock::MovedClock;
use crate::runs::{self, backed_up};
use crate::stage::{Operator, Stage};

/// The reason of BackupHealthy.
fn health(backup: &VerticeBackup) -> Option<&str> {
    backup.status.as_ref()?.conditions.get(1).map(|healthy| healthy.reason.as_str())
}

fn operator(stage: &Stage, clock: &MovedClock) -> Operator {
    stage.operator_with(Options { clock: Arc::new(clock.clone()), ..Options::default() })
}

/// A VerticeBackup, and when it is due first.
async fn due(stage: &Stage) -> Timestamp {
    stage.backup("shop", json!({})).await;
    let backup = stage.judged("shop").await;
    backup.status.unwrap().next_backup.unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_start_is_told_once_and_a_late_one_ends_it() {
    let stage = Stage::set("missed").await;
    let clock = MovedClock::default();
    let first = operator(&stage, &clock);
    let due = due(&stage).await;
    clock.set(due + SignedDuration::from_secs(61));
    let told = stage.backup_until("shop", "misses a run", |found| health(found) == Some("RunMissed")).await;
    let status = told.status.as_ref().unwrap();
    assert_eq!(status.phase, Some(BackupPhase::Failing));
    assert_eq!(status.last_missed.as_ref().map(|missed| missed.0), Some(due));
    let message = &status.conditions[1].message;
    let command = format!("kubectl describe cronjob shop-backup -n {}", stage.namespace);
    assert!(message.contains(&due.to_string()) && message.contains(&command), "{message}");
    stage.event("shop", "RunMissed").await;
    first.kill().await;

    let second = operator(&stage, &clock);
    wake(&stage, &second).await;
    assert_eq!(stage.get::<VerticeBackup>("shop").await.resource_version(), told.resource_version());
    let events = stage.events("shop").await;
    let missed: Vec<_> = events.iter().filter(|event| event.contains(" RunMissed ")).collect();
    assert_eq!(missed.len(), 1, "{events:#?}");
    let line = format!(
        r#"vertice_backup_missed_total{{namespace="{}",name="shop",type="postgresql"}} 1"#,
        stage.namespace
    );
    let scrape = second.scrape();
    assert!(scrape.contains(&line), "{line} is not in\n{scrape}");

    // What refused it is gone: the CronJob controller catches up.
    let cronjob = stage.cronjob("shop").await;
    stage.patch_status::<CronJob>("shop-backup", json!({"lastScheduleTime": due})).await;
    runs::run(&stage, &cronjob, "shop-1", &backed_up(7)).await;
    let well =
        stage.backup_until("shop", "is well again", |found| health(found) == Some("BackupSucceeded")).await;
    assert_eq!(well.status.unwrap().totals.unwrap().missed, 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_started_while_the_operator_was_down_was_not_missed() {
    let stage = Stage::set("down").await;
    let clock = MovedClock::default();
    let first = operator(&stage, &clock);
    let due = due(&stage).await;
    first.kill().await;
    stage.patch_status::<CronJob>("shop-backup", json!({"lastScheduleTime": due})).await;
    clock.set(due + SignedDuration::from_hours(2));
    let second = operator(&stage, &clock);
    let later = stage
        .backup_until("shop", "announces the next run", |found| {
            let next = found.status.as_ref().and_then(|status| status.next_backup.as_ref());
            next.is_some_and(|next| next.0 > due)
        })
        .await;
    assert_eq!(health(&later), Some("NoBackupYet"));
    assert_eq!(later.status.unwrap().totals.unwrap().missed, 0);
    second.stop().await;
}
