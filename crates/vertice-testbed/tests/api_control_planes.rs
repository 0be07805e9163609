//! Control planes alone: many on one etcd, apart from each other, with an audit log.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Api, ResourceExt};
use vertice_testbed::control_plane::{Audit, ControlPlane, ControlPlaneOptions, Error, Etcd, EtcdOptions};
use vertice_testbed::paths::Paths;
use vertice_testbed::wait;

fn config_map(name: &str, value: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some([("key".to_owned(), value.to_owned())].into()), ..ConfigMap::default() }
}

fn config_maps(plane: &ControlPlane) -> Api<ConfigMap> {
    Api::namespaced(plane.client(), "default")
}

#[tokio::test]
async fn two_on_one_etcd_do_not_see_each_other() {
    let etcd = Etcd::start(&Paths::locate(), EtcdOptions::default()).await.unwrap();
    let (one, two) = tokio::try_join!(
        ControlPlane::start(&etcd, ControlPlaneOptions::new("one")),
        ControlPlane::start(&etcd, ControlPlaneOptions::new("two")),
    )
    .unwrap();

    config_maps(&one).create(&PostParams::default(), &config_map("mine", "1")).await.unwrap();
    assert!(config_maps(&two).get_opt("mine").await.unwrap().is_none());
    config_maps(&two).create(&PostParams::default(), &config_map("mine", "2")).await.unwrap();
    let seen = config_maps(&one).get("mine").await.unwrap().data.unwrap();
    assert_eq!(seen, BTreeMap::from([("key".to_owned(), "1".to_owned())]));

    // A certificate of one is nothing to the other.
    let stranger = kube::config::Kubeconfig::read_from(one.kubeconfig()).unwrap();
    let mut stranger =
        kube::Config::from_custom_kubeconfig(stranger, &KubeConfigOptions::default()).await.unwrap();
    stranger.cluster_url = two.server().parse().unwrap();
    let refused = Api::<ConfigMap>::namespaced(kube::Client::try_from(stranger).unwrap(), "default");
    assert!(refused.get_opt("mine").await.is_err());

    assert_eq!(one.ended(), Vec::<&str>::new());
    let dir = etcd.run().dir().to_owned();
    drop((one, two, etcd));
    assert!(!dir.exists(), "{} was left behind", dir.display());
}

#[tokio::test]
async fn the_audit_log_says_who_did_what() {
    let etcd = Etcd::start(&Paths::locate(), EtcdOptions::default()).await.unwrap();
    let mut options = ControlPlaneOptions::new("audited");
    options.audit = Audit::RequestResponse;
    let plane = ControlPlane::start(&etcd, options).await.unwrap();
    config_maps(&plane).create(&PostParams::default(), &config_map("seen", "payload")).await.unwrap();

    let log = plane.audit_log().unwrap();
    let event = wait::until("the creation in the audit log", Duration::from_secs(20), || async {
        let text = std::fs::read_to_string(log).map_err(|error| error.to_string())?;
        let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut creations =
            events.filter(|event| event["verb"] == "create" && event["objectRef"]["name"] == "seen");
        creations.next().ok_or_else(|| format!("{} lines without it", text.lines().count()))
    })
    .await
    .unwrap();
    assert_eq!(event["user"]["username"], "kubernetes-admin");
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["requestObject"]["data"]["key"], "payload");
}

#[tokio::test]
async fn with_a_controller_manager_service_accounts_get_tokens() {
    let etcd = Etcd::start(&Paths::locate(), EtcdOptions::default()).await.unwrap();
    let mut options = ControlPlaneOptions::new("managed");
    options.controller_manager = true;
    let plane = ControlPlane::start(&etcd, options).await.unwrap();
    let token: Secret = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "token", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token",
    }))
    .unwrap();
    let secrets: Api<Secret> = Api::namespaced(plane.client(), "default");
    secrets.create(&PostParams::default(), &token).await.unwrap();
    let token = wait::until("the token", Duration::from_secs(30), || async {
        let secret = secrets.get("token").await.map_err(|error| error.to_string())?;
        let data = secret.data.as_ref().and_then(|data| data.get("token")).cloned();
        data.ok_or_else(|| format!("{} has no token yet", secret.name_any()))
    })
    .await
    .unwrap();

    let mut config = kube::Config::new(plane.server().parse().unwrap());
    let admin = kube::config::Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    config.root_cert =
        kube::Config::from_custom_kubeconfig(admin, &KubeConfigOptions::default()).await.unwrap().root_cert;
    config.auth_info.token = Some(String::from_utf8(token.0).unwrap().into());
    let client = kube::Client::try_from(config).unwrap();
    let refusal =
        Api::<Secret>::namespaced(client, "default").list(&ListParams::default()).await.unwrap_err();
    let kube::Error::Api(status) = refusal else { panic!("not refused by the API server: {refusal}") };
    assert!(status.message.contains("system:serviceaccount:default:default"), "{}", status.message);
}

#[tokio::test]
async fn one_that_cannot_start_shows_the_end_of_its_log() {
    let etcd = Etcd::start(&Paths::locate(), EtcdOptions::default()).await.unwrap();
    let mut options = ControlPlaneOptions::new("wrong");
    options.api_server_flags = vec!["--no-such-flag".to_owned()];
    let error = ControlPlane::start(&etcd, options).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
    let shown = error.to_string();
    assert!(
        shown.contains("wrong-kube-apiserver did not become ready") && shown.contains("no-such-flag"),
        "{shown}"
    );
}
