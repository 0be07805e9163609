//! Least privilege, by the API servers' audit logs. `cargo xtask test` runs this target after all other end-to-end tests: what they made the operator do is the evidence, together with its deeds at an API server that cannot stream lists.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use vertice_e2e::backup::{judged, verticebackup};
use vertice_e2e::harness::{AUDIT_LOG_ENV, Harness, OPERATOR_NAMESPACE};
use vertice_e2e::kubectl::Kubectl;
use vertice_e2e::operator::RELEASE;
use vertice_testbed::control_plane::{ControlPlane, ControlPlaneOptions, Etcd, EtcdOptions};
use vertice_testbed::paths::Paths;

const ACCOUNT: &str = "vertice-operator-backup";

/// `verb group/resource`.
type Right = String;

fn right(verb: &str, group: &str, resource: &str) -> Right {
    format!("{verb} {group}/{resource}")
}

/// What the account did by this audit log, and what it was refused.
fn deeds(audit_log: &Path) -> (BTreeSet<Right>, Vec<String>) {
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}");
    let (mut done, mut refused) = (BTreeSet::new(), Vec::new());
    for line in std::io::BufReader::new(std::fs::File::open(audit_log).unwrap()).lines() {
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

/// What the same account does at an API server that refuses to begin a watch with the list, as those before 1.34 may: a control
/// plane without nodes, the chart installed in it, and the operator's program run with the token of its ServiceAccount.
async fn deeds_where_lists_are_not_streamed() -> (BTreeSet<Right>, Vec<String>) {
    let harness = Harness::from_env().unwrap();
    let etcd = Etcd::start(&Paths::locate(), EtcdOptions::default()).await.unwrap();
    let mut options = ControlPlaneOptions::new("older");
    options.controller_manager = true;
    options.api_server_flags = vec!["--feature-gates=WatchList=false".to_owned()];
    let plane = ControlPlane::start(&etcd, options).await.unwrap();
    let kubectl = Kubectl::new(harness.kubectl.programs(), Some(plane.kubeconfig()), None);
    kubectl.create_namespace(OPERATOR_NAMESPACE).await.unwrap();
    let mut helm = kubectl.program("helm");
    helm.args(["install", RELEASE]).arg(Paths::locate().workspace().join("deploy/charts/vertice"));
    helm.args(["--namespace", OPERATOR_NAMESPACE, "--set-string", "image.reference=none"]);
    helm.args(["--set-string", "agent.image.reference=agent"]);
    kubectl.output(helm, None).await.unwrap();

    let token = kubectl.run(&["-n", OPERATOR_NAMESPACE, "create", "token", ACCOUNT]).await.unwrap();
    let mut config = kubectl.json(&["config", "view", "--raw", "--flatten"]).await.unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let kubeconfig = etcd.run().dir().join("operator.kubeconfig");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let log = std::fs::File::create(etcd.run().logs().join("operator.log")).unwrap();
    let words = ["operator", "backup", "--agent-image=agent", "--metrics-addr=127.0.0.1:0", "--leader-elect"];
    let mut operator = tokio::process::Command::new(&harness.vertice)
        .args(words)
        .args(["--lease-namespace", OPERATOR_NAMESPACE])
        .env("KUBECONFIG", &kubeconfig)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let backup = verticebackup("default", "shop", "db", "backups");
    kubectl.apply("default", &backup.to_string()).await.unwrap();
    let judged = judged(&kubectl, "default", "verticebackup/shop", Duration::from_mins(1)).await;
    let told = std::fs::read_to_string(etcd.run().logs().join("operator.log"));
    assert!(judged.is_ok(), "{judged:?}; the operator: {told:?}");
    operator.kill().await.unwrap();
    deeds(plane.audit_log().unwrap())
}

#[tokio::test]
async fn the_operator_uses_every_right_that_it_has_and_lacks_none() {
    let granted = grants().await;
    let log = std::env::var(AUDIT_LOG_ENV).expect("run this test through `cargo xtask test e2e`");
    let (mut done, mut refused) = deeds(log.as_ref());
    let (older_done, older_refused) = deeds_where_lists_are_not_streamed().await;
    done.extend(older_done);
    refused.extend(older_refused);
    assert!(!granted.is_empty() && !done.is_empty());
    assert!(!granted.iter().any(|right| right.contains('*')), "{granted:?}");
    assert_eq!(refused, Vec::<String>::new());
    let unused: Vec<_> = granted.difference(&done).collect();
    assert!(unused.is_empty(), "granted, but never used by any end-to-end test: {unused:?}");
}
