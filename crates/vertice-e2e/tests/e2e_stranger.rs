//! The demo in somebody else's cluster: a second cluster plays the stranger, and must be found afterwards as it was before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::Stdio;

use vertice_e2e::harness::{ARCHIVES_ENV, PROGRAMS_ENV, XTASK_ENV};
use vertice_e2e::kubectl::Kubectl;
use vertice_testbed::cluster::{Cluster, ClusterOptions};

/// Kinds that the cluster itself changes all the time.
const RESTLESS: [&str; 6] = [
    "leases.coordination.k8s.io",
    "events",
    "events.events.k8s.io",
    "nodes",
    "endpoints",
    "endpointslices.discovery.k8s.io",
];

/// Every object of every kind, as `kind namespace/name` → UID and resourceVersion.
async fn everything(kubectl: &Kubectl) -> BTreeMap<String, String> {
    let kinds = kubectl.run(&["api-resources", "--verbs=list", "-o", "name"]).await.unwrap();
    let kinds: Vec<_> = kinds.lines().filter(|kind| !RESTLESS.contains(kind)).collect();
    let found = kubectl.json(&["get", "--all-namespaces", &kinds.join(",")]).await.unwrap();
    let mut objects = BTreeMap::new();
    for object in found["items"].as_array().unwrap() {
        let metadata = &object["metadata"];
        // Bookkeeping of the API server about its own storage, and of allocations inside of it.
        let name = format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"]);
        objects.insert(name, format!("{} {}", metadata["uid"], metadata["resourceVersion"]));
    }
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_leaves_a_strangers_cluster_as_it_was() {
    let variable = |name| std::env::var(name).expect("run this test through `cargo xtask test e2e`");
    let images = serde_json::from_str(&variable(ARCHIVES_ENV)).unwrap();
    let options = ClusterOptions { images, ..ClusterOptions::new("stranger", 1) };
    let stranger = Cluster::start(options).await.unwrap();
    let kubectl = Kubectl::new(variable(PROGRAMS_ENV).as_ref(), Some(stranger.kubeconfig()), None);
    kubectl.run(&["create", "namespace", "theirs"]).await.unwrap();
    kubectl
        .run(&["-n", "theirs", "create", "configmap", "precious", "--from-literal=key=value"])
        .await
        .unwrap();
    let before = everything(&kubectl).await;

    let demo = tokio::process::Command::new(variable(XTASK_ENV))
        .args(["demo", "--once", "--orders", "500", "--context", "vertice-stranger"])
        .env("KUBECONFIG", stranger.kubeconfig())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = [demo.stdout, demo.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(demo.status.success(), "{text}");
    assert!(text.contains("definitions, privileges and roles: equal"), "{text}");

    let after = everything(&kubectl).await;
    let gone: Vec<_> = before.iter().filter(|(name, _)| !after.contains_key(*name)).collect();
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    let changed: Vec<_> =
        before.iter().filter(|(name, was)| after.get(*name).is_some_and(|is| is != *was)).collect();
    assert!(
        gone.is_empty() && new.is_empty() && changed.is_empty(),
        "gone {gone:?}\nnew {new:?}\nchanged {changed:?}"
    );
    stranger.shutdown().await.unwrap();
}
