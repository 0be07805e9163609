//! What a person reads when what they wrote cannot work. Each text is a snapshot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{BUCKET, RUN, SOON, Stage};
use insta::assert_snapshot;
use serde_json::{Value, json};
use vertice_e2e::backup::{ended, judged, run_now, verticebackup, verticerestore};
use vertice_e2e::kubectl::condition;
use vertice_e2e::shop;

/// A text without what differs from run to run: the namespace, addresses, the cluster's UID.
fn timeless(stage: &Stage, text: &str) -> String {
    let text = text.replace(&stage.namespace, "NAMESPACE");
    let mut words = Vec::new();
    for word in text.split(' ') {
        let address = word.trim_matches(|c| "(),".contains(c));
        let uid = word.trim_end_matches([',', ':']);
        let plain = if address.parse::<std::net::Ipv4Addr>().is_ok() {
            word.replace(address, "ADDRESS")
        } else if uid.len() == 36 && uid.matches('-').count() == 4 {
            word.replace(uid, "UID")
        } else {
            word.to_owned()
        };
        words.push(plain);
    }
    words.join(" ")
}

/// The API server's refusal of an object.
async fn refusal(stage: &Stage, object: &Value) -> String {
    let refusal =
        stage.harness.kubectl.apply(&stage.namespace, &object.to_string()).await.unwrap_err().to_string();
    timeless(stage, refusal.rsplit_once("-f -: ").unwrap().1)
}

/// `reason: message` of a condition.
fn told(stage: &Stage, object: &Value, r#type: &str) -> String {
    let condition = condition(object, r#type).unwrap_or_else(|| panic!("no {type} in {}", object["status"]));
    let text = format!(
        "{}={} {}: {}",
        r#type,
        condition["status"].as_str().unwrap(),
        condition["reason"].as_str().unwrap(),
        condition["message"].as_str().unwrap()
    );
    timeless(stage, &text)
}

/// Applies a VerticeBackup that the API server accepts and the operator refuses.
async fn refused_by_the_operator(stage: &Stage, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut backup = verticebackup(&stage.namespace, name, "db", BUCKET);
    change(&mut backup["spec"]);
    stage.apply(&backup).await;
    let object = format!("verticebackup/{name}");
    let found = judged(&stage.harness.kubectl, &stage.namespace, &object, SOON).await.unwrap();
    assert!(found["status"]["nextBackup"].is_null());
    told(stage, &found, "Ready")
}

/// Applies a VerticeBackup whose runs fail, runs it by hand, and returns what status and command line say.
async fn fails_when_run(stage: &Stage, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut backup = verticebackup(&stage.namespace, name, "db", BUCKET);
    change(&mut backup["spec"]);
    stage.apply(&backup).await;
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    judged(kubectl, namespace, &format!("verticebackup/{name}"), SOON).await.unwrap();
    let run = run_now(&stage.harness, namespace, name).await.unwrap();
    assert_eq!(run.code, Some(1), "{}", run.text);
    let found = kubectl
        .wait("the failure is told", SOON, &["-n", namespace, "get", "verticebackup", name], |found| {
            (condition(found, "BackupHealthy")?["status"] == "False").then(|| found.clone())
        })
        .await
        .unwrap();
    assert_eq!(found["status"]["lastBackup"]["status"], "Failed");
    assert_eq!(found["status"]["totals"]["failed"], 1);
    assert!(found["status"]["lastSuccess"].is_null());
    let text = told(stage, &found, "BackupHealthy");
    let message = condition(&found, "BackupHealthy").unwrap()["message"].as_str().unwrap();
    assert!(run.text.contains(message), "the command line says otherwise: {}", run.text);
    text
}

/// What is told of each case at once; a case is the snapshot's name and what stands in this part of the spec.
async fn all_fail_when_run<'a>(
    stage: &Stage,
    part: &str,
    cases: &'a [(&'a str, Value)],
) -> Vec<(&'a str, String)> {
    let runs = cases.iter().map(|(snapshot, fields)| async move {
        let name = snapshot.replace('_', "-");
        let change = |spec: &mut Value| {
            for (field, value) in fields.as_object().unwrap() {
                spec[part][field] = value.clone();
            }
        };
        (*snapshot, fails_when_run(stage, &name, change).await)
    });
    futures::future::join_all(runs).await
}

#[tokio::test]
async fn specs_that_cannot_work_are_told_before_any_run() {
    let stage = Stage::set("specs").await;
    let cron = refused_by_the_operator(&stage, "cron", |spec| spec["schedule"] = json!("61 2 * * *")).await;
    assert_snapshot!("invalid_cron", cron);
    let zone =
        refused_by_the_operator(&stage, "zone", |spec| spec["timeZone"] = json!("Europe/Zürich")).await;
    assert_snapshot!("invalid_zone", zone);
    let target =
        refused_by_the_operator(&stage, "target", |spec| spec["target"]["name"] = json!("dbb")).await;
    assert_snapshot!("target_missing", target);

    let mut backup = verticebackup(&stage.namespace, "duration", "db", BUCKET);
    backup["spec"]["timeout"] = json!("2 hours");
    assert_snapshot!("invalid_duration", refusal(&stage, &backup).await);
    backup["spec"]["timeout"] = json!("2h");
    backup["spec"]["retention"] = json!({"days": 3});
    assert_snapshot!("unknown_field", refusal(&stage, &backup).await);
    stage.strike().await;
}

#[tokio::test]
async fn a_target_that_appears_later_is_found() {
    let stage = Stage::set("later").await;
    let text = refused_by_the_operator(&stage, "later", |spec| spec["target"]["name"] = json!("db2")).await;
    assert!(text.contains("TargetNotFound"), "{text}");
    let kubectl = &stage.harness.kubectl;
    let mut service = stage.get("service/db").await;
    service["metadata"] = json!({"name": "db2"});
    service["spec"] = json!({"selector": service["spec"]["selector"], "ports": service["spec"]["ports"]});
    stage.apply(&service).await;
    kubectl
        .wait("Ready", SOON, &["-n", &stage.namespace, "get", "verticebackup", "later"], |found| {
            (condition(found, "Ready")?["status"] == "True").then_some(())
        })
        .await
        .unwrap();
    stage.strike().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_or_read_is_told() {
    let stage = Stage::set("database").await;
    let secrets = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong-password"}, "stringData": {"username": "postgres", "password": "guess"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "no-password"}, "stringData": {"username": "postgres"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nobody"}, "stringData": {"username": "nobody", "password": "guess"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nothing-behind"}, "spec": {"ports": [{"name": "postgres", "port": 5432}]}},
    ]});
    stage.apply(&secrets).await;
    shop::fill(&stage.server, 200).await.unwrap();
    stage.server.sql("postgres", "CREATE ROLE nobody LOGIN PASSWORD 'guess'").await.unwrap();
    let image = &stage.harness.images.postgres;
    let nobody_listens = format!("nothing-behind.{}.svc", stage.namespace);
    let no_such_host = format!("no-such-host.{}.svc", stage.namespace);
    let cases = [
        ("secret_missing", json!({"credentials": "absent"})),
        ("secret_key_missing", json!({"credentials": "no-password"})),
        ("wrong_password", json!({"credentials": "wrong-password"})),
        ("no_permission_in_the_database", json!({"credentials": "nobody"})),
        ("database_missing", json!({"databases": ["shop", "shoop"]})),
        ("host_unreachable", json!({"host": nobody_listens, "image": image})),
        ("host_not_found", json!({"host": no_such_host, "image": image})),
    ];
    for (snapshot, text) in all_fail_when_run(&stage, "target", &cases).await {
        assert_snapshot!(snapshot, text);
    }
    stage.strike().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_or_written_is_told() {
    let stage = Stage::set("store").await;
    let secrets = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong-key"}, "stringData": {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "guess"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nothing-behind"}, "spec": {"ports": [{"name": "s3", "port": 7070}]}},
    ]});
    stage.apply(&secrets).await;
    let nobody_listens = format!("http://nothing-behind.{}.svc:7070", stage.namespace);
    let cases = [
        ("bucket_missing", json!({"bucket": "backup"})),
        ("no_permission_in_the_store", json!({"credentials": "wrong-key"})),
        ("storage_secret_missing", json!({"credentials": "absent"})),
        ("store_unreachable", json!({"endpoint": nobody_listens})),
    ];
    for (snapshot, text) in all_fail_when_run(&stage, "storage", &cases).await {
        assert_snapshot!(snapshot, text);
    }
    stage.strike().await;
}

#[tokio::test]
async fn a_prefix_of_another_backup_is_not_written_to() {
    let stage = Stage::set("owner").await;
    stage.apply(&verticebackup(&stage.namespace, "first", "db", BUCKET)).await;
    judged(&stage.harness.kubectl, &stage.namespace, "verticebackup/first", SOON).await.unwrap();
    let run = run_now(&stage.harness, &stage.namespace, "first").await.unwrap();
    assert_eq!(run.code, Some(0), "{}", run.text);
    let prefix = format!("{}/first", stage.namespace);
    let text = fails_when_run(&stage, "second", |spec| spec["storage"]["prefix"] = json!(prefix)).await;
    assert_snapshot!("prefix_not_ours", text);
    stage.strike().await;
}

#[tokio::test]
async fn a_restore_that_cannot_work_changes_nothing_and_says_why() {
    let stage = Stage::set("restore").await;
    let (kubectl, namespace) = (&stage.harness.kubectl, &stage.namespace);
    stage.apply(&verticebackup(namespace, "shop", "db", BUCKET)).await;
    judged(kubectl, namespace, "verticebackup/shop", SOON).await.unwrap();

    stage.apply(&verticerestore("too-early", "shop")).await;
    let found = ended(kubectl, namespace, "too-early", RUN).await.unwrap();
    assert_snapshot!("nothing_to_restore", told(&stage, &found, "Complete"));

    stage.apply(&verticerestore("no-backup", "shopp")).await;
    let found = judged(kubectl, namespace, "verticerestore/no-backup", SOON).await.unwrap();
    assert_snapshot!("backup_missing", told(&stage, &found, "Ready"));

    shop::fill(&stage.server, 200).await.unwrap();
    let run = run_now(&stage.harness, namespace, "shop").await.unwrap();
    assert_eq!(run.code, Some(0), "{}", run.text);
    let before = stage.server.fingerprint(shop::DATABASE).await.unwrap();
    stage.apply(&verticerestore("over-live", "shop")).await;
    let found = ended(kubectl, namespace, "over-live", RUN).await.unwrap();
    assert_eq!(found["status"]["phase"], "Failed");
    assert_snapshot!("target_not_empty", told(&stage, &found, "Complete"));
    assert_eq!(stage.server.fingerprint(shop::DATABASE).await.unwrap(), before);

    let mut changed = verticerestore("over-live", "shop");
    changed["spec"]["overwrite"] = json!(true);
    assert_snapshot!("restore_is_immutable", refusal(&stage, &changed).await);

    stage.server.sql("shop", "DROP TABLE order_lines CASCADE").await.unwrap();
    changed["metadata"]["name"] = json!("over-live-again");
    stage.apply(&changed).await;
    let found = ended(kubectl, namespace, "over-live-again", RUN).await.unwrap();
    assert_eq!(found["status"]["phase"], "Succeeded", "{}", found["status"]);
    assert_eq!(stage.server.fingerprint(shop::DATABASE).await.unwrap(), before);
    assert_eq!(stage.server.databases().await.unwrap(), ["postgres", "shop"]);
    stage.strike().await;
}
