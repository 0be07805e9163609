//! What a person reads after a mistake: the refusal of the API server, or the Ready condition.

use kube::api::PostParams;
use serde_json::{Value, json};
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};

use crate::stage::{Stage, backup};

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_told_in_words_that_help() {
    let stage = Stage::set("mistakes").await;
    let operator = stage.operator();
    let mistakes = [
        ("cron", json!({"schedule": "61 2 * * *"})),
        ("cron-words", json!({"schedule": "every night"})),
        ("cron-never", json!({"schedule": "0 0 31 2 *"})),
        ("cron-zone", json!({"schedule": "TZ=Europe/Zurich 0 2 * * *"})),
        ("zone", json!({"timeZone": "Europe/Zuerich"})),
        ("zone-case", json!({"timeZone": "europe/zurich"})),
        ("timeout", json!({"timeout": "soon"})),
        ("timeout-zero", json!({"timeout": "0s"})),
        ("deadline", json!({"startingDeadline": "-5m"})),
        ("target", json!({"target": {"name": "nobody"}})),
        ("target-kind", json!({"target": {"kind": "Deployment"}})),
        (
            "target-both",
            json!({"target": {"kind": "Service", "host": "db.example.com", "image": "postgres:16"}}),
        ),
        ("target-image", json!({"target": {"host": "db.example.com"}})),
    ];
    let mut told = Vec::new();
    for (name, changes) in mistakes {
        told.push(format!("{name}: {changes}\n    {}", answer(&stage, name, changes.clone()).await));
    }
    operator.stop().await;
    let text = told.join("\n").replace(&stage.namespace, "NAMESPACE");
    insta::assert_snapshot!(text);
}

/// What becomes of a VerticeBackup with this mistake.
async fn answer(stage: &Stage, name: &str, changes: Value) -> String {
    let object: VerticeBackup = match serde_json::from_value(backup(name, changes)) {
        Ok(object) => object,
        Err(error) => panic!("{name}: {error}"),
    };
    if let Err(error) = stage.api().create(&PostParams::default(), &object).await {
        let kube::Error::Api(status) = error else { panic!("{error}") };
        return format!("refused: {}", status.message);
    }
    let judged = stage.judged(name).await;
    let status = judged.status.unwrap();
    let ready = &status.conditions[0];
    format!("{:?}, {} {}: {}", status.phase.unwrap(), ready.type_, ready.reason, ready.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_start_says_why_and_starts_when_it_can() {
    let stage = Stage::set("waits").await;
    let operator = stage.operator();
    stage.restore("back", "shop").await;
    let waiting: VerticeRestore = stage
        .until("back", "is judged", |found: &VerticeRestore| {
            found.status.as_ref().is_some_and(|status| !status.conditions.is_empty())
        })
        .await;
    let ready = &waiting.status.as_ref().unwrap().conditions[0];
    let text =
        format!("{} {}: {}", ready.type_, ready.reason, ready.message).replace(&stage.namespace, "NAMESPACE");
    insta::assert_snapshot!(text);
    stage.backup("shop", json!({})).await;
    stage
        .until("back", "has a Job", |found: &VerticeRestore| {
            found.status.as_ref().is_some_and(|status| status.job_uid.is_some())
        })
        .await;
    operator.stop().await;
}
