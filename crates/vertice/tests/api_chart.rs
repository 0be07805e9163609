//! The chart as helm renders it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::{IMAGES, helm, objects, render, root};

fn rendered(settings: &[&str]) -> Vec<Value> {
    objects(&render(&[&IMAGES, settings].concat()).unwrap())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn helm_finds_no_fault() {
    let settings = IMAGES.join(",");
    let output = helm(&["lint", "--strict", "deploy/charts/vertice", "--set", &settings]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn as_it_comes() {
    insta::assert_snapshot!(render(&IMAGES).unwrap());
}

#[test]
fn with_every_setting_changed() {
    let settings = [
        "image.pullPolicy=Always",
        "imagePullSecrets[0].name=pull-secret",
        "log.filter=debug",
        "operators.backup.replicas=3",
        "operators.backup.watchNamespace=team-a",
        "operators.backup.metricsAddress=[::]:8080",
        "operators.backup.resources.limits.memory=512Mi",
        "operators.backup.priorityClassName=important",
        "operators.backup.nodeSelector.disk=ssd",
        "operators.backup.tolerations[0].operator=Exists",
        "operators.backup.affinity.nodeAffinity.example=1",
        "operators.backup.podAnnotations.note=hello",
        "operators.backup.podLabels.team=storage",
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.interval=15s",
        "metrics.serviceMonitor.labels.release=prometheus",
        "policies.secretAccess=Warn",
        "policies.warnings=false",
    ];
    insta::assert_snapshot!(render(&[&IMAGES[..], &settings].concat()).unwrap());
}

#[test]
fn nothing_is_left_of_an_operator_that_is_switched_off() {
    assert_eq!(rendered(&["operators.backup.enabled=false"]), Vec::<Value>::new());
    let kinds: Vec<_> = rendered(&["policies.secretAccess=Off", "policies.warnings=false"])
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    assert!(!kinds.iter().any(|kind| kind.contains("Policy")), "{kinds:?}");
}

#[test]
fn no_role_has_a_wildcard_or_may_read_secrets() {
    for settings in [&[][..], &["operators.backup.watchNamespace=team-a"]] {
        let objects = rendered(settings);
        let roles = [of_kind(&objects, "ClusterRole"), of_kind(&objects, "Role")].concat();
        assert!(roles.len() > 1, "{roles:?}");
        for role in roles {
            let granted = role["rules"].to_string();
            assert!(!granted.contains('*') && !granted.contains("\"secrets\""), "{granted}");
        }
    }
}

#[test]
fn watching_one_namespace_needs_one_right_outside_of_it() {
    let objects = rendered(&["operators.backup.watchNamespace=team-a"]);
    let [role] = of_kind(&objects, "ClusterRole")[..] else { panic!("one ClusterRole") };
    let rules = serde_json::json!([
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]}
    ]);
    assert_eq!(role["rules"], rules);
    let all = rendered(&[]);
    let everywhere = of_kind(&all, "ClusterRole")[0]["rules"].as_array().unwrap().len();
    let namespaced =
        of_kind(&objects, "Role").into_iter().find(|role| role["metadata"]["namespace"] == "team-a");
    assert_eq!(namespaced.unwrap()["rules"].as_array().unwrap().len(), everywhere - 1);
}

#[test]
fn wrong_settings_are_refused_in_words() {
    let told = |settings: &[&str]| {
        let text = render(settings).unwrap_err();
        text.replace(&root().display().to_string(), "ROOT")
    };
    let wrong = [
        told(&[]),
        told(&[&IMAGES[..], &["policies.secretAccess=Maybe"]].concat()),
        told(&[&IMAGES[..], &["operators.backup.replica=2"]].concat()),
        told(&[&IMAGES[..], &["operators.backup.replicas=0"]].concat()),
    ];
    insta::assert_snapshot!(wrong.join("\n---\n"));
}

#[test]
fn has_the_version_of_the_programs() {
    let chart = std::fs::read_to_string(root().join("deploy/charts/vertice/Chart.yaml")).unwrap();
    for field in ["version", "appVersion"] {
        assert!(chart.contains(&format!("\n{field}: {}\n", env!("CARGO_PKG_VERSION"))), "{field}");
    }
}
