//! Two real nodes: pods reach each other and Services; nodes are cut, frozen and switched off, and come back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use vertice_testbed::cluster::{Cluster, STORAGE_CLASS};
use vertice_testbed::images::Image;
use vertice_testbed::node::{Cut, Way};
use vertice_testbed::paths::Paths;
use vertice_testbed::wait;

use common::{address, database, exec, image, query, start, wait_query, wait_ready};

/// A node is NotReady when it has been silent for the grace period of 20 s; the rest is slack for a busy machine.
const NOT_READY: Duration = Duration::from_mins(1);
const READY_AGAIN: Duration = Duration::from_mins(1);

/// Two nodes, with a database on each: `one` on `node1` and `two` on `node2`.
async fn two_nodes(name: &str) -> (Cluster, Image) {
    let image = image(&Paths::locate()).await;
    let cluster = start(name, 2, &image).await;
    database(&cluster, "one", "node1", &image, None).await;
    database(&cluster, "two", "node2", &image, None).await;
    tokio::join!(wait_ready(&cluster, "one"), wait_ready(&cluster, "two"));
    (cluster, image)
}

#[tokio::test]
async fn pods_reach_each_other_by_address_service_and_name() {
    let (cluster, _) = two_nodes("reach").await;
    let [one, two] = [wait_ready(&cluster, "one").await, wait_ready(&cluster, "two").await];
    let nodes: Api<Node> = Api::all(cluster.client());
    for (pod, zone) in [(&one, "zone-a"), (&two, "zone-b")] {
        let node = nodes.get(pod.spec.as_ref().unwrap().node_name.as_deref().unwrap()).await.unwrap();
        assert_eq!(node.labels()["topology.kubernetes.io/zone"], zone);
        assert_eq!(node.labels()["topology.kubernetes.io/region"], "testbed");
    }
    let told = "select inet_server_addr()::text";
    assert_eq!(query(&cluster, "one", &address(&two), told).await, Ok(format!("{}/32", address(&two))));
    assert_eq!(query(&cluster, "two", &address(&one), told).await, Ok(format!("{}/32", address(&one))));
    // By a Service's name: DNS, then translation by the node's kube-proxy.
    wait_query(&cluster, "one", "two.default.svc.cluster.local", true).await;
    assert_eq!(query(&cluster, "one", "two", told).await, Ok(format!("{}/32", address(&two))));
    // Nothing leaves the machine: there is no way to anywhere else.
    let refused = query(&cluster, "one", "203.0.113.1", "select 1").await.unwrap_err();
    assert!(refused.contains("Network is unreachable"), "{refused}");
    // kubectl logs and exec go through certificates that the cluster's authority signed.
    assert_eq!(exec(&cluster, "one", &["id", "-u"]).await, Ok("999".to_owned()));
    assert_eq!(cluster.ended(), Vec::<String>::new());
    cluster.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_cut_is_not_ready_until_it_is_healed() {
    let (cluster, _) = two_nodes("cut").await;
    let node = cluster.node("node2").unwrap();
    let [one, two] = [wait_ready(&cluster, "one").await, wait_ready(&cluster, "two").await];

    // From its peers only: the control plane still sees it, its pods are alone.
    node.cut(Cut::Peers).await.unwrap();
    wait_query(&cluster, "one", &address(&two), false).await;
    wait_query(&cluster, "one", "two", false).await;
    assert_eq!(query(&cluster, "two", "localhost", "select 1").await, Ok("1".to_owned()));
    node.heal().await.unwrap();
    wait_query(&cluster, "one", "two", true).await;

    // One way: what it sends is lost, what is sent to it arrives; so no answer does.
    node.cut_way(Cut::ApiServer, Way::Out).await.unwrap();
    let begin = Instant::now();
    cluster.wait_node("node2", false, NOT_READY).await.unwrap();
    assert!(begin.elapsed() > Duration::from_secs(5), "NotReady before the grace period");
    wait_query(&cluster, "one", &address(&two), true).await;
    node.heal().await.unwrap();
    cluster.wait_node("node2", true, READY_AGAIN).await.unwrap();

    // From everybody.
    node.cut(Cut::All).await.unwrap();
    cluster.wait_node("node2", false, NOT_READY).await.unwrap();
    wait_query(&cluster, "one", &address(&two), false).await;
    node.heal().await.unwrap();
    cluster.wait_node("node2", true, READY_AGAIN).await.unwrap();
    wait_query(&cluster, "two", &address(&one), true).await;
    cluster.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_frozen_node_goes_on_where_it_was() {
    let (cluster, _) = two_nodes("freeze").await;
    let node = cluster.node("node2").unwrap();
    let two = address(&wait_ready(&cluster, "two").await);
    let started = "select pg_postmaster_start_time()";
    let before = query(&cluster, "one", &two, started).await.unwrap();

    node.freeze().await.unwrap();
    // The pod's kernel still takes connections; nobody answers them.
    wait_query_hangs(&cluster, &two).await;
    cluster.wait_node("node2", false, NOT_READY).await.unwrap();
    node.thaw().await.unwrap();
    cluster.wait_node("node2", true, READY_AGAIN).await.unwrap();
    wait_query(&cluster, "one", &two, true).await;
    assert_eq!(query(&cluster, "one", &two, started).await, Ok(before), "the database was started again");
    cluster.shutdown().await.unwrap();
}

async fn wait_query_hangs(cluster: &Cluster, host: &str) {
    let error = query(cluster, "one", host, "select 1").await.unwrap_err();
    assert!(error.contains("timeout expired"), "{error}");
}

#[tokio::test]
async fn a_stopped_node_loses_its_containers_and_keeps_its_disk() {
    let image = image(&Paths::locate()).await;
    let cluster = start("stop", 2, &image).await;
    claim(&cluster, "kept").await;
    database(&cluster, "one", "node1", &image, None).await;
    database(&cluster, "two", "node2", &image, Some("kept")).await;
    tokio::join!(wait_ready(&cluster, "one"), wait_ready(&cluster, "two"));
    let node = cluster.node("node2").unwrap();
    let write = "create table t as select 42 as n; checkpoint";
    query(&cluster, "two", "localhost", write).await.unwrap();
    let started = "select pg_postmaster_start_time()";
    // A ready pod is not yet one that every node's kube-proxy sends its Service's traffic to.
    wait_query(&cluster, "one", "two", true).await;
    let before = query(&cluster, "one", "two", started).await.unwrap();

    node.stop().await.unwrap();
    wait_query(&cluster, "one", "two", false).await;
    assert!(node.freeze().await.unwrap_err().to_string().contains("node2 is switched off"));
    cluster.wait_node("node2", false, NOT_READY).await.unwrap();

    node.start().await.unwrap();
    cluster.wait_node("node2", true, READY_AGAIN).await.unwrap();
    wait_query(&cluster, "one", "two", true).await;
    assert_ne!(
        query(&cluster, "one", "two", started).await,
        Ok(before),
        "the database outlived the power cut"
    );
    assert_eq!(query(&cluster, "one", "two", "select n from t").await, Ok("42".to_owned()));
    cluster.shutdown().await.unwrap();
}

async fn claim(cluster: &Cluster, name: &str) {
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": STORAGE_CLASS,
                 "resources": {"requests": {"storage": "1Gi"}}},
    }))
    .unwrap();
    claims(cluster).create(&PostParams::default(), &claim).await.unwrap();
}

fn claims(cluster: &Cluster) -> Api<PersistentVolumeClaim> {
    Api::namespaced(cluster.client(), "default")
}

#[tokio::test]
async fn a_claim_that_is_deleted_takes_its_data_with_it() {
    let image = image(&Paths::locate()).await;
    let cluster = start("volumes", 1, &image).await;
    // The volume that is there is taken first, and one is made for the claim that finds none.
    cluster.add_volume("by-hand", "1Gi", "node1").await.unwrap();
    for name in ["one", "two"] {
        claim(&cluster, name).await;
        database(&cluster, name, "node1", &image, Some(name)).await;
        wait_ready(&cluster, name).await;
    }
    assert_eq!(volume_of(&cluster, "one").await.0, "by-hand");
    for name in ["one", "two"] {
        let (volume, path) = volume_of(&cluster, name).await;
        assert!(path.join("pgdata/PG_VERSION").exists(), "{} has no database", path.display());
        common::pods(&cluster).delete(name, &DeleteParams::default()).await.unwrap();
        claims(&cluster).delete(name, &DeleteParams::default()).await.unwrap();
        let volumes: Api<PersistentVolume> = Api::all(cluster.client());
        wait::until(format!("volume {volume} to be gone"), Duration::from_mins(1), || async {
            let left = volumes.get_opt(&volume).await.map_err(|error| error.to_string())?;
            left.map_or(Ok(()), |volume| Err(format!("{:?} {:?}", volume.status, volume.metadata.finalizers)))
        })
        .await
        .unwrap();
        assert!(!path.exists(), "{} is still there", path.display());
    }
    cluster.shutdown().await.unwrap();
}

/// The volume that a claim is bound to, and its folder.
async fn volume_of(cluster: &Cluster, claim: &str) -> (String, PathBuf) {
    let claim = claims(cluster).get(claim).await.unwrap();
    let name = claim.spec.unwrap().volume_name.unwrap();
    let volume = Api::<PersistentVolume>::all(cluster.client()).get(&name).await.unwrap();
    (name, volume.spec.unwrap().local.unwrap().path.into())
}
