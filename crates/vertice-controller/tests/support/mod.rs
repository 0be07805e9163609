//! What the tests against a real API server share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use vertice_controller::{
    Context, SystemClock,
    apply::Applier,
    client,
    events::Events,
    metrics::{ControllerMetrics, Metrics},
};

/// A namespace of its own on the API server that `VERTICE_TEST_KUBECONFIG` names.
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) namespace: String,
    /// Somebody else.
    pub(crate) other: Client,
}

impl Cluster {
    pub(crate) async fn connect(test: &str) -> Self {
        let path = std::env::var("VERTICE_TEST_KUBECONFIG")
            .expect("VERTICE_TEST_KUBECONFIG must name a kubeconfig: run `cargo xtask test api`");
        let kubeconfig = Kubeconfig::read_from(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let other = Client::try_from(config.clone()).unwrap();
        let namespace = format!("{test}-{:08x}", rand::random::<u32>());
        let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Api::<Namespace>::all(other.clone()).create(&PostParams::default(), &object).await.unwrap();
        Self { config, namespace, other }
    }

    /// What a controller named `name` works with; its field manager is `vertice-<name>`.
    pub(crate) fn context(&self, name: &str) -> Context {
        let metrics = Metrics::new().controller(name);
        let client =
            client::build(self.config.clone(), client::Options::default().metrics(metrics.clone())).unwrap();
        let manager = format!("vertice-{name}");
        let events = Events::new(client.clone(), &manager);
        let applier = Applier::new(&manager, events.clone(), metrics.clone());
        Context { client, clock: Arc::new(SystemClock), applier, events, metrics }
    }

    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(client.clone(), &self.namespace)
    }

    /// Makes or changes a ConfigMap as somebody else.
    pub(crate) async fn put(&self, name: &str, data: serde_json::Value) -> ConfigMap {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        let params = PatchParams::apply("somebody").force();
        self.api::<ConfigMap>(&self.other).patch(name, &params, &Patch::Apply(&body)).await.unwrap()
    }
}

/// All writes that a controller counted, whatever their kind.
pub(crate) fn writes(metrics: &ControllerMetrics, kinds: &[&str]) -> u64 {
    kinds.iter().map(|kind| metrics.writes(kind)).sum()
}

/// Waits for a condition, thirty seconds at most.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
