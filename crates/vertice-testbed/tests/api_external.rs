//! A cluster of somebody else: what is made there is removed again, and nothing else is touched.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use vertice_testbed::control_plane::{ControlPlane, ControlPlaneOptions, Etcd, EtcdOptions};
use vertice_testbed::external::External;
use vertice_testbed::paths::Paths;

const CONTEXT: &str = "vertice-stranger";

/// A cluster that plays the user's.
async fn stranger() -> (Etcd, ControlPlane) {
    let etcd = Etcd::start(&Paths::locate(), EtcdOptions::default()).await.unwrap();
    let mut options = ControlPlaneOptions::new("stranger");
    options.controller_manager = true;
    let plane = ControlPlane::start(&etcd, options).await.unwrap();
    (etcd, plane)
}

async fn namespaces(plane: &ControlPlane) -> Vec<String> {
    let all = Api::<Namespace>::all(plane.client()).list(&ListParams::default()).await.unwrap();
    all.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn only_what_was_made_is_removed() {
    let (_etcd, plane) = stranger().await;
    let theirs = ObjectMeta { name: Some("theirs".to_owned()), ..ObjectMeta::default() };
    let theirs = Namespace { metadata: theirs, ..Namespace::default() };
    Api::all(plane.client()).create(&PostParams::default(), &theirs).await.unwrap();
    let before = namespaces(&plane).await;

    let paths = Paths::locate();
    let external = External::from_file(&paths, plane.kubeconfig(), CONTEXT).await.unwrap();
    external.make_namespace("ours").await.unwrap();
    let refused = external.make_namespace("theirs").await.unwrap_err();
    assert!(refused.to_string().contains("namespace theirs"), "{refused}");
    assert!(namespaces(&plane).await.contains(&"ours".to_owned()));
    external.shutdown().await.unwrap();
    assert_eq!(namespaces(&plane).await, before);

    // Forgotten, or killed before it could shut down: the end of the run removes it as well.
    let external = External::from_file(&paths, plane.kubeconfig(), CONTEXT).await.unwrap();
    external.make_namespace("forgotten").await.unwrap();
    tokio::task::spawn_blocking(move || drop(external)).await.unwrap();
    assert_eq!(namespaces(&plane).await, before);
}

#[tokio::test]
async fn a_context_that_is_not_there_is_named() {
    let (_etcd, plane) = stranger().await;
    let error = External::from_file(&Paths::locate(), plane.kubeconfig(), "elsewhere").await.unwrap_err();
    assert!(error.to_string().contains("no usable context elsewhere"), "{error}");
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_said_not_to_answer() {
    let (etcd, plane) = stranger().await;
    let kept = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(plane.kubeconfig(), kept.path()).unwrap();
    drop((plane, etcd));
    let paths = Paths::locate();
    let connected = External::from_file(&paths, kept.path(), CONTEXT);
    let error = tokio::time::timeout(Duration::from_mins(1), connected).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the cluster of context vertice-stranger does not answer"), "{error}");
}
