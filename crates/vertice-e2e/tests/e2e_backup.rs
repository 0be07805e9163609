//! The main job: a backup that restores after its source is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{BUCKET, PASSWORD, RUN, SOON, Stage};
use serde_json::json;
use vertice_e2e::backup::{ended, judged, run_now, verticebackup, verticerestore};
use vertice_e2e::kubectl::condition;
use vertice_e2e::postgres::Volume;
use vertice_e2e::shop;

const ORDERS: u32 = 2_000;

/// Everything comes back into a new server after the old one was destroyed, with each compression.
async fn survives_the_loss_of_its_source(name: &str, compression: &str) {
    let stage = Stage::set(name).await;
    let (kubectl, namespace, server) = (&stage.harness.kubectl, &stage.namespace, &stage.server);
    shop::fill(server, ORDERS).await.unwrap();
    let before = server.fingerprint(shop::DATABASE).await.unwrap();
    assert!(before.rows() > 8_000, "{before:?}");

    let mut backup = verticebackup(namespace, "shop", "db", BUCKET);
    backup["spec"]["options"] = json!({"compression": {"type": compression}});
    stage.apply(&backup).await;
    judged(kubectl, namespace, "verticebackup/shop", SOON).await.unwrap();
    let run = run_now(&stage.harness, namespace, "shop").await.unwrap();
    assert_eq!(run.code, Some(0), "{}", run.text);

    let password = PASSWORD.replace('\\', "\\\\").replace('"', "\\\"");
    server.destroy(&Volume::Scratch).await.unwrap();
    server.deploy(&stage.harness.images.postgres, &password, &Volume::Scratch).await.unwrap();
    assert_eq!(server.databases().await.unwrap(), ["postgres"]);

    stage.apply(&verticerestore("shop-back", "shop")).await;
    let restore = ended(kubectl, namespace, "shop-back", RUN).await.unwrap();
    assert_eq!(restore["status"]["phase"], "Succeeded", "{}", restore["status"]);
    assert_eq!(server.databases().await.unwrap(), ["postgres", "shop"]);
    assert_eq!(server.fingerprint(shop::DATABASE).await.unwrap(), before);
    stage.strike().await;
}

#[tokio::test]
async fn gzip_backup_survives_the_loss_of_its_source() {
    survives_the_loss_of_its_source("gzip", "gzip").await;
}

#[tokio::test]
async fn zstd_backup_survives_the_loss_of_its_source() {
    survives_the_loss_of_its_source("zstd", "zstd").await;
}

#[tokio::test]
async fn uncompressed_backup_survives_the_loss_of_its_source() {
    survives_the_loss_of_its_source("none", "none").await;
}

/// The schedule fires by itself, at the instant that status announced, and is told everywhere.
#[tokio::test]
async fn the_schedule_fires_when_status_says() {
    let stage = Stage::set("schedule").await;
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    let mut backup = verticebackup(namespace, "minutely", "db", BUCKET);
    backup["spec"]["schedule"] = json!("* * * * *");
    stage.apply(&backup).await;
    let announced = kubectl
        .wait("nextBackup", SOON, &["-n", namespace, "get", "verticebackup", "minutely"], |found| {
            found["status"]["nextBackup"].as_str().map(str::to_owned)
        })
        .await
        .unwrap();
    let done = kubectl
        .wait("a scheduled success", RUN, &["-n", namespace, "get", "verticebackup", "minutely"], |found| {
            (found["status"]["lastSuccess"]["status"] == "Success").then(|| found.clone())
        })
        .await
        .unwrap();
    let first = &done["status"]["history"][done["status"]["history"].as_array().unwrap().len() - 1];
    assert_ne!(first["manual"], true, "{first}");
    let job = stage.get(&format!("job/{}", first["job"].as_str().unwrap())).await;
    let fired = &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(instant(fired.as_str().unwrap()), instant(&announced));
    assert_eq!(condition(&done, "BackupHealthy").unwrap()["status"], "True");
    stage.strike().await;
}

/// The CronJob controller writes the instant in the schedule's zone, status in UTC.
fn instant(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

/// A suspended schedule makes no Job, and a manual run still works.
#[tokio::test]
async fn suspended_means_only_by_hand() {
    let stage = Stage::set("suspend").await;
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    let mut backup = verticebackup(namespace, "paused", "db", BUCKET);
    backup["spec"]["suspend"] = json!(true);
    stage.apply(&backup).await;
    let found = judged(kubectl, namespace, "verticebackup/paused", SOON).await.unwrap();
    assert_eq!(found["status"]["phase"], "Suspended");
    assert!(found["status"]["nextBackup"].is_null(), "{}", found["status"]);
    assert_eq!(stage.get("cronjob/paused-backup").await["spec"]["suspend"], true);
    let run = run_now(&stage.harness, namespace, "paused").await.unwrap();
    assert_eq!(run.code, Some(0), "{}", run.text);
    let found = kubectl
        .wait("the manual run is told", SOON, &["-n", namespace, "get", "verticebackup", "paused"], |found| {
            (found["status"]["lastSuccess"]["manual"] == true).then(|| found.clone())
        })
        .await
        .unwrap();
    assert_eq!(found["status"]["phase"], "Suspended");
    assert_eq!(found["status"]["totals"]["runs"], 1);
    stage.strike().await;
}
