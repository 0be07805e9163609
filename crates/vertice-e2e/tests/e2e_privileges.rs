//! Least privilege, by the API server's audit log. `cargo xtask test` runs this target after all other end-to-end tests: what they made the operator do is the evidence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::BufRead as _;

use serde_json::Value;
use vertice_e2e::harness::{AUDIT_LOG_ENV, Harness, OPERATOR_NAMESPACE};
use vertice_e2e::operator::RELEASE;

const ACCOUNT: &str = "vertice-operator-backup";

/// `verb group/resource`.
type Right = String;

fn right(verb: &str, group: &str, resource: &str) -> Right {
    format!("{verb} {group}/{resource}")
}

/// What the account did, and what it was refused.
fn deeds() -> (BTreeSet<Right>, Vec<String>) {
    let path = std::env::var(AUDIT_LOG_ENV).expect("run this test through `cargo xtask test e2e`");
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}");
    let (mut done, mut refused) = (BTreeSet::new(), Vec::new());
    for line in std::io::BufReader::new(std::fs::File::open(path).unwrap()).lines() {
        let Ok(event) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
        if event["user"]["username"] != user.as_str() || event["objectRef"]["resource"].is_null() {
            continue;
        }
        let object = &event["objectRef"];
        let mut resource = object["resource"].as_str().unwrap().to_owned();
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        let right = right(
            event["verb"].as_str().unwrap(),
            object["apiGroup"].as_str().unwrap_or_default(),
            &resource,
        );
        // A namespace on its way out admits nothing new, from anybody: that is no lack of rights.
        let ending =
            event["responseStatus"]["message"].as_str().is_some_and(|text| text.contains("being terminated"));
        if event["responseStatus"]["code"] == 403 && !ending {
            refused.push(format!("{right}: {}", event["responseStatus"]["message"]));
        }
        // Server-side apply of an object that does not exist is a patch that needs the right to create, and says so by its answer.
        if event["verb"] == "patch" && event["responseStatus"]["code"] == 201 {
            done.insert(right.replacen("patch", "create", 1));
        }
        done.insert(right);
    }
    (done, refused)
}

/// What the chart grants it.
async fn grants() -> BTreeSet<Right> {
    let harness = Harness::from_env().unwrap();
    let label = format!("app.kubernetes.io/instance={RELEASE}");
    let words = ["get", "clusterroles,roles", "--all-namespaces", "-l", &label];
    let roles = harness.kubectl.json(&words).await.unwrap();
    let words = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for role in roles["items"].as_array().unwrap() {
        if !role["metadata"]["name"].as_str().unwrap().starts_with(ACCOUNT) {
            continue;
        }
        for rule in role["rules"].as_array().unwrap() {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    rights.extend(words(rule, "verbs").iter().map(|verb| right(verb, &group, &resource)));
                }
            }
        }
    }
    rights
}

#[tokio::test]
async fn the_operator_uses_every_right_that_it_has_and_lacks_none() {
    let granted = grants().await;
    let (done, refused) = deeds();
    assert!(!granted.is_empty() && !done.is_empty());
    assert!(!granted.iter().any(|right| right.contains('*')), "{granted:?}");
    assert_eq!(refused, Vec::<String>::new());
    let unused: Vec<_> = granted.difference(&done).collect();
    assert!(unused.is_empty(), "granted, but never used by any end-to-end test: {unused:?}");
}
