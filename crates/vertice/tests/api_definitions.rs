//! Definitions, policies and examples on a real API server: what it takes, and what it says to what it refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use http::Request;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use support::{
    IMAGES, client, client_as, dynamic, eventually, install_definitions, namespace, objects, render, root,
};

fn backup() -> Value {
    json!({
        "apiVersion": "vertice.io/v1alpha1",
        "kind": "VerticeBackup",
        "metadata": {"name": "shop"},
        "spec": {
            "target": {"type": "postgresql", "name": "db", "credentials": "db-secret"},
            "schedule": "0 2 * * *",
            "storage": {"type": "s3", "bucket": "backups", "credentials": "s3-secret"},
        },
    })
}

fn restore() -> Value {
    json!({
        "apiVersion": "vertice.io/v1alpha1",
        "kind": "VerticeRestore",
        "metadata": {"name": "shop-back"},
        "spec": {"source": {"backupName": "shop"}},
    })
}

fn plural(object: &Value) -> &'static str {
    match object["kind"].as_str().unwrap() {
        "VerticeBackup" => "verticebackups",
        "VerticeRestore" => "verticerestores",
        "Secret" => "secrets",
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding" => "validatingadmissionpolicybindings",
        kind => panic!("{kind}"),
    }
}

/// Creates an object, or does as if, in strict validation; what the server says, and its warnings.
async fn create(
    client: &Client,
    namespace: &str,
    object: &Value,
    dry: bool,
) -> (Result<(), String>, Vec<String>) {
    let (group, plural) = (object["apiVersion"].as_str().unwrap(), plural(object));
    let base = if group == "v1" { "api".to_owned() } else { "apis".to_owned() };
    let dry = if dry { "&dryRun=All" } else { "" };
    let uri = format!("/{base}/{group}/namespaces/{namespace}/{plural}?fieldValidation=Strict{dry}");
    let body = Body::from(object.to_string().into_bytes());
    let request = Request::post(uri).header("content-type", "application/json").body(body).unwrap();
    let response = client.send(request).await.unwrap();
    let warnings =
        response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    let created = response.status().is_success();
    let body = response.into_body().collect_bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let told = answer["message"].as_str().unwrap_or_default().to_owned();
    (if created { Ok(()) } else { Err(told) }, warnings)
}

/// What the server says against an object after one change.
async fn refusal(client: &Client, namespace: &str, mut object: Value, path: &str, value: Value) -> String {
    if let Some((parent, field)) = path.rsplit_once('/') {
        object.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    let (answer, _) = create(client, namespace, &object, true).await;
    format!("{} {path} = {value}\n    {}", object["kind"].as_str().unwrap(), answer.expect_err(path))
}

#[tokio::test]
async fn every_refusal_says_what_is_right() {
    let client = client().await;
    install_definitions(&client).await;
    let namespace = namespace(&client, "refusals").await;
    let long = "n".repeat(46);
    let mut told = Vec::new();
    for (path, value) in [
        ("/metadata/name", json!(long)),
        ("/spec/schedule", json!("TZ=Europe/Zurich 0 2 * * *")),
        ("/spec/schedule", json!("")),
        ("/spec/timeout", json!("2 hours")),
        ("/spec/timeout", json!("10ms")),
        ("/spec/startingDeadline", json!("soon")),
        ("/spec/target/type", json!("oracle")),
        ("/spec/target/host", json!("db.example.com")),
        (
            "/spec/target",
            json!({"type": "postgresql", "name": "db", "credentials": "c", "image": "i", "host": "h", "kind": "Service"}),
        ),
        ("/spec/target/port", json!(70000)),
        ("/spec/storage/prefix", json!("/shop")),
        ("/spec/storage/prefix", json!("a//b")),
        ("/spec/storage/endpoint", json!("s3.example.com")),
        ("/spec/storage/type", json!("ftp")),
        ("/spec/options", json!({"compression": {"type": "gzip", "level": 12}})),
        ("/spec/options", json!({"compression": {"type": "none", "level": 1}})),
        ("/spec/retention", json!({"days": 30})),
    ] {
        told.push(refusal(&client, &namespace, backup(), path, value).await);
    }
    for (path, value) in [
        ("/metadata/name", json!("n".repeat(53))),
        ("/spec/source", json!({})),
        ("/spec/source", json!({"storage": {"type": "s3", "bucket": "b", "credentials": "c"}})),
        (
            "/spec/source",
            json!({"storage": {"type": "s3", "bucket": "b", "credentials": "c", "prefix": "p"}}),
        ),
        ("/spec/recoverTo", json!({"latest": false})),
        ("/spec/recoverTo", json!({"latest": true, "backupId": "x"})),
        ("/spec/timeout", json!("tomorrow")),
        ("/spec/databases", json!([])),
    ] {
        told.push(refusal(&client, &namespace, restore(), path, value).await);
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test]
async fn a_restore_cannot_be_changed() {
    let client = client().await;
    install_definitions(&client).await;
    let namespace = namespace(&client, "immutable").await;
    create(&client, &namespace, &restore(), false).await.0.unwrap();
    let api: Api<DynamicObject> = dynamic(&client, &restore(), "verticerestores", Some(&namespace));
    let change = Patch::Merge(json!({"spec": {"overwrite": true}}));
    let refused = api.patch("shop-back", &PatchParams::default(), &change).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    insta::assert_snapshot!(status.message);
    let labelled = Patch::Merge(json!({"metadata": {"labels": {"note": "allowed"}}}));
    api.patch("shop-back", &PatchParams::default(), &labelled).await.unwrap();
}

#[tokio::test]
async fn the_examples_are_taken_strictly() {
    let client = client().await;
    install_definitions(&client).await;
    let namespace = namespace(&client, "examples").await;
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("examples/backup")).unwrap() {
        let path = entry.unwrap().path();
        for object in objects(&std::fs::read_to_string(&path).unwrap()) {
            let (answer, warnings) = create(&client, &namespace, &object, true).await;
            assert_eq!((answer, warnings), (Ok(()), vec![]), "{} in {}", object["kind"], path.display());
            count += 1;
        }
    }
    assert!(count >= 4, "{count} objects");
}

/// Installs the chart's policies and waits until they answer.
async fn install_policies(client: &Client, namespace: &str) {
    for object in objects(&render(&IMAGES).unwrap()) {
        if object["kind"].as_str().unwrap().starts_with("ValidatingAdmissionPolicy") {
            let api = dynamic(client, &object, plural(&object), None);
            let wanted: DynamicObject = serde_json::from_value(object).unwrap();
            let apply = PatchParams::apply("tests").force();
            api.patch(&wanted.name_any(), &apply, &Patch::Apply(&wanted)).await.unwrap();
        }
    }
    // Each of the four is in force when it answers to what it is made for.
    let nobody = author(client, namespace, "probe", &[]).await;
    let mut store = restore();
    store["spec"] = json!({
        "source": {"storage": {"type": "s3", "bucket": "b", "prefix": "p", "credentials": "c", "endpoint": "http://s3"}},
        "target": {"type": "postgresql", "name": "db", "credentials": "c"},
    });
    let mut plain = backup();
    plain["spec"]["storage"]["endpoint"] = json!("http://s3");
    for object in [plain, store] {
        // What is denied is not warned of: two authors ask.
        eventually("the policy on Secrets is in force", async || {
            let (denied, _) = create(&nobody, namespace, &object, true).await;
            denied.is_err_and(|told| told.contains("you may not get Secret")).then_some(())
        })
        .await;
        eventually("the warnings are in force", async || {
            let (_, warnings) = create(client, namespace, &object, true).await;
            (!warnings.is_empty()).then_some(())
        })
        .await;
    }
}

/// Somebody who may write VerticeBackups and VerticeRestores and get the named Secrets; `*` stands for all.
async fn author(client: &Client, namespace: &str, user: &str, secrets: &[&str]) -> Client {
    let mut rules =
        vec![json!({"apiGroups": ["vertice.io"], "resources": ["verticebackups", "verticerestores"],
        "verbs": ["create", "update", "patch", "get"]})];
    let named: Vec<_> = secrets.iter().filter(|name| **name != "*").collect();
    if !named.is_empty() {
        rules.push(
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": named, "verbs": ["get"]}),
        );
    }
    if secrets.contains(&"*") {
        rules.push(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}));
    }
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    for (object, plural) in [(role, "roles"), (binding, "rolebindings")] {
        let api = dynamic(client, &object, plural, Some(namespace));
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    client_as(user).await
}

#[tokio::test]
async fn nobody_uses_secrets_that_are_not_theirs() {
    let client = client().await;
    install_definitions(&client).await;
    let namespace = namespace(&client, "policies").await;
    install_policies(&client, &namespace).await;

    let neither = author(&client, &namespace, "neither", &[]).await;
    let one = author(&client, &namespace, "one", &["db-secret"]).await;
    let both = author(&client, &namespace, "both", &["db-secret", "s3-secret"]).await;
    let all = author(&client, &namespace, "all", &["*"]).await;
    // The API server's authorizer learns of new roles a moment later.
    eventually("the author's rights are known", async || {
        create(&all, &namespace, &restore(), true).await.0.ok()
    })
    .await;
    eventually("the author's rights are known", async || {
        create(&both, &namespace, &backup(), true).await.0.ok()
    })
    .await;

    let mut written_out = restore();
    written_out["spec"] = json!({
        "source": {"storage": {"type": "s3", "bucket": "b", "prefix": "p", "credentials": "s3-secret"}},
        "target": {"type": "postgresql", "name": "db", "credentials": "db-secret"},
    });
    let mut told = Vec::new();
    for (who, author) in [("neither", &neither), ("one", &one), ("both", &both), ("all", &all)] {
        for (what, object) in [
            ("backup", backup()),
            ("restore by name", restore()),
            ("restore written out", written_out.clone()),
        ] {
            let answer = create(author, &namespace, &object, true)
                .await
                .0
                .map_or_else(|told| told, |()| "allowed".to_owned());
            told.push(format!("{who}, {what}: {}", answer.replace(&namespace, "NAMESPACE")));
        }
    }
    insta::assert_snapshot!(told.join("\n"));

    // Who may not read the Secrets may still label an object; and not point it elsewhere.
    create(&client, &namespace, &backup(), false).await.0.unwrap();
    let api = dynamic(&neither, &backup(), "verticebackups", Some(&namespace));
    let merge = |change: Value| Patch::Merge(change);
    api.patch("shop", &PatchParams::default(), &merge(json!({"metadata": {"labels": {"a": "b"}}})))
        .await
        .unwrap();
    let change = merge(json!({"spec": {"storage": {"bucket": "elsewhere"}}}));
    let refused = api.patch("shop", &PatchParams::default(), &change).await.unwrap_err().to_string();
    assert!(refused.contains("you may not get Secret db-secret"), "{refused}");
}

#[tokio::test]
async fn a_store_without_tls_is_warned_of() {
    let client = client().await;
    install_definitions(&client).await;
    let namespace = namespace(&client, "warnings").await;
    install_policies(&client, &namespace).await;
    let mut plain = backup();
    plain["spec"]["storage"]["endpoint"] = json!("http://s3.example.com");
    let (answer, warnings) = create(&client, &namespace, &plain, true).await;
    assert_eq!(answer, Ok(()));
    insta::assert_snapshot!(warnings.join("\n"));
    plain["spec"]["storage"]["endpoint"] = json!("https://s3.example.com");
    assert_eq!(create(&client, &namespace, &plain, true).await, (Ok(()), vec![]));
}
