//! What breaks while a backup runs, on real pods.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{BUCKET, RUN, SOON, Stage};
use serde_json::Value;
use vertice_e2e::backup::{judged, verticebackup};
use vertice_e2e::harness::OPERATOR_NAMESPACE;
use vertice_e2e::kubectl::condition;
use vertice_e2e::shop;

/// Enough rows that a dump takes seconds.
const ORDERS: u32 = 100_000;

/// Starts a run without following it and waits until its pod streams.
async fn start_run(stage: &Stage) -> String {
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    shop::fill(&stage.server, ORDERS).await.unwrap();
    stage.apply(&verticebackup(namespace, "shop", "db", BUCKET)).await;
    judged(kubectl, namespace, "verticebackup/shop", SOON).await.unwrap();
    let words = ["backup", "run", "shop", "--no-follow", "--namespace", namespace];
    let started = kubectl.vertice(&stage.harness.vertice, &words).output().await.unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    kubectl
        .wait(
            "the run's pod is running",
            SOON,
            &["-n", namespace, "get", "pods", "-l", "vertice.io/backup=shop"],
            |pods| {
                let pod = pods["items"].as_array()?.iter().find(|pod| pod["status"]["phase"] == "Running")?;
                pod["metadata"]["name"].as_str().map(str::to_owned)
            },
        )
        .await
        .unwrap()
}

async fn settled(stage: &Stage) -> Value {
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    kubectl
        .wait("the run ended", RUN, &["-n", namespace, "get", "verticebackup", "shop"], |found| {
            let ended = found["status"]["totals"]["runs"].as_i64()? > 0;
            (ended && found["status"]["phase"] != "Running").then(|| found.clone())
        })
        .await
        .unwrap()
}

/// Both replicas of the operator vanish without a word; the run goes on, and is counted once.
#[tokio::test]
async fn the_operator_dies_while_a_backup_runs() {
    let stage = Stage::set("operator-dies").await;
    start_run(&stage).await;
    let kubectl = &stage.harness.kubectl;
    let words = [
        "delete",
        "pods",
        "--force",
        "--grace-period=0",
        "-l",
        "app.kubernetes.io/name=vertice-operator-backup",
    ];
    kubectl.run(&[&["-n", OPERATOR_NAMESPACE][..], &words].concat()).await.unwrap();
    let found = settled(&stage).await;
    let status = &found["status"];
    assert_eq!(status["lastBackup"]["status"], "Success", "{status}");
    assert_eq!(
        (&status["totals"]["runs"], &status["totals"]["succeeded"], &status["totals"]["failed"]),
        (&1.into(), &1.into(), &0.into())
    );
    stage.strike().await;
}

/// The pod of a run is killed: its Job tries again, and one run with one backup is told.
#[tokio::test]
async fn the_pod_of_a_run_is_killed() {
    let stage = Stage::set("pod-dies").await;
    let pod = start_run(&stage).await;
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    kubectl.run(&["-n", namespace, "delete", "pod", &pod, "--grace-period=0", "--force"]).await.unwrap();
    let found = settled(&stage).await;
    let status = &found["status"];
    assert_eq!(status["lastBackup"]["status"], "Success", "{status}");
    assert_eq!(status["totals"]["runs"], 1, "{status}");
    assert_eq!(condition(&found, "BackupHealthy").unwrap()["status"], "True");
    stage.strike().await;
}

/// The Job of a run is deleted under it: the run is not told as running for ever, and the schedule goes on.
#[tokio::test]
async fn the_job_of_a_run_is_deleted() {
    let stage = Stage::set("job-dies").await;
    start_run(&stage).await;
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    kubectl.run(&["-n", namespace, "delete", "jobs", "-l", "vertice.io/backup=shop"]).await.unwrap();
    let found = kubectl
        .wait("no run is under way", RUN, &["-n", namespace, "get", "verticebackup", "shop"], |found| {
            (found["status"]["phase"] != "Running" && found["status"]["lastBackup"]["status"] != "Running")
                .then(|| found.clone())
        })
        .await
        .unwrap();
    assert!(found["status"]["lastSuccess"].is_null(), "{}", found["status"]);
    assert!(found["status"]["nextBackup"].is_string());
    stage.strike().await;
}

/// Somebody strips the CronJob of its labels, by which the operator sees it: they come back, and the schedule stays in force.
#[tokio::test]
async fn the_cronjob_loses_its_labels() {
    let stage = Stage::set("labels").await;
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    stage.apply(&verticebackup(namespace, "shop", "db", BUCKET)).await;
    judged(kubectl, namespace, "verticebackup/shop", SOON).await.unwrap();
    let before = stage.get("cronjob/shop-backup").await["metadata"].clone();
    let labels = before["labels"].as_object().unwrap();
    let removals: Vec<_> = labels.keys().map(|label| format!("{label}-")).collect();
    let words = ["-n", namespace, "label", "cronjob", "shop-backup"].map(str::to_owned);
    let words: Vec<_> = words.iter().chain(&removals).map(String::as_str).collect();
    kubectl.run(&words).await.unwrap();
    kubectl
        .wait("the labels are back", SOON, &["-n", namespace, "get", "cronjob", "shop-backup"], |found| {
            (found["metadata"]["labels"] == before["labels"]).then_some(())
        })
        .await
        .unwrap();
    assert_eq!(
        stage.get("cronjob/shop-backup").await["metadata"]["uid"],
        before["uid"],
        "it is the same CronJob"
    );
    let found = stage.get("verticebackup/shop").await;
    assert_eq!(condition(&found, "Ready").unwrap()["status"], "True");
    assert!(found["status"]["nextBackup"].is_string());
    stage.strike().await;
}
