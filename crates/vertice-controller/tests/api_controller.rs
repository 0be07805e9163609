//! A whole controller on a real API server: a ConfigMap owns a Secret-like child, changes come from all sides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use kube::{
    Api, Resource as _,
    api::{DeleteParams, ListParams},
    core::PartialObjectMeta,
    runtime::{reflector::Store, watcher},
};
use serde_json::json;
use support::{Cluster, until, writes};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vertice_controller::{
    Context, Controller, MetadataWatch, Next, ObjectKey, Reconciler, RunConfig, Watch,
    apply::ApplyError,
    client,
    metrics::{ControllerMetrics, ReconcileResult},
    readiness::Readiness,
};

/// Makes `<name>-copy` of each ConfigMap labelled `copy=yes`.
struct Copy {
    copies: Store<PartialObjectMeta<ConfigMap>>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    reconciles: Mutex<HashMap<String, usize>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Reconciler for Copy {
    type Object = ConfigMap;
    type Error = ApplyError;
    const NAME: &'static str = "copy";

    async fn reconcile(&self, object: Arc<ConfigMap>, context: &Context) -> Result<Next, ApplyError> {
        let key = ObjectKey::of(object.as_ref());
        *self.seen.reconciles.lock().unwrap().entry(key.name.clone()).or_default() += 1;
        let now = self.seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most.fetch_max(now, Ordering::SeqCst);
        let result = self.copy(&key, &object, context).await;
        self.seen.now.fetch_sub(1, Ordering::SeqCst);
        let panics = object.data.as_ref().is_some_and(|data| data.contains_key("panic"));
        assert!(!panics, "asked to panic");
        result
    }
}

impl Copy {
    async fn copy(&self, key: &ObjectKey, object: &ConfigMap, context: &Context) -> Result<Next, ApplyError> {
        let name = format!("{}-copy", key.name);
        let observed = self.copies.find(|copy| copy.metadata.name.as_deref() == Some(&name));
        let mut wanted: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": key.namespace, "labels": {"copy": "no"}}, "data": object.data,
        }))
        .unwrap_or_default();
        wanted.metadata.owner_references = object.controller_owner_ref(&()).map(|owner| vec![owner]);
        let api = Api::namespaced(context.client.clone(), key.namespace.as_deref().unwrap_or_default());
        context.applier.apply(&api, object, &wanted, observed.as_ref().map(|copy| &copy.metadata)).await?;
        Ok(Next::Await)
    }
}

struct Running {
    cluster: Cluster,
    seen: Arc<Seen>,
    metrics: ControllerMetrics,
    readiness: Readiness,
    stop: CancellationToken,
    tasks: (JoinHandle<()>, JoinHandle<()>),
}

impl Running {
    async fn start(test: &str, objects: usize) -> Self {
        let cluster = Cluster::connect(test).await;
        for i in 0..objects {
            Self::source(&cluster, &format!("object-{i}"), json!({"x": "1"})).await;
        }
        let context = cluster.context("copy");
        let metrics = context.metrics.clone();
        let (api, readiness) = (cluster.api::<ConfigMap>(&context.client), Readiness::default());
        let copies = MetadataWatch::<ConfigMap>::new(
            Api::namespaced(context.client.clone(), &cluster.namespace),
            watcher::Config::default().labels("copy=no"),
        );
        let objects = Watch::new(api, watcher::Config::default().labels("copy=yes"));
        let seen = Arc::<Seen>::default();
        let copy = Copy { copies: copies.store(), seen: Arc::clone(&seen) };
        let controller =
            Controller::new(copy, objects, context, RunConfig::default(), &readiness).owns(copies);
        let (caches, worker) = controller.split();
        let stop = CancellationToken::new();
        let tasks = (tokio::spawn(caches), tokio::spawn(worker.run(stop.clone())));
        Self { cluster, seen, metrics, readiness, stop, tasks }
    }

    async fn source(cluster: &Cluster, name: &str, data: serde_json::Value) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"copy": "yes"}}, "data": data});
        let params = kube::api::PatchParams::apply("somebody").force();
        let api = cluster.api::<ConfigMap>(&cluster.other);
        api.patch(name, &params, &kube::api::Patch::Apply(&object)).await.unwrap();
    }

    async fn copied(&self, name: &str, x: &str) {
        let api = self.cluster.api::<ConfigMap>(&self.cluster.other);
        until(&format!("{name}-copy has x={x}"), async || {
            let copy = api.get_opt(&format!("{name}-copy")).await.unwrap();
            copy.and_then(|copy| copy.data?.get("x").cloned()).as_deref() == Some(x)
        })
        .await;
    }

    fn reconciles(&self, name: &str) -> usize {
        self.seen.reconciles.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    /// Waits until nothing is reconciled for half a second.
    async fn quiet(&self) {
        let last = Mutex::new((0, std::time::Instant::now()));
        until("quiet", async || {
            let total = self.seen.reconciles.lock().unwrap().values().sum::<usize>();
            let mut last = last.lock().unwrap();
            if last.0 != total {
                *last = (total, std::time::Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(500)
        })
        .await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.1.await.unwrap();
        self.tasks.0.abort();
    }
}

#[tokio::test]
async fn objects_are_made_kept_right_and_made_again_and_quiet_costs_nothing() {
    let running = Running::start("copies", 12).await;
    for i in 0..12 {
        running.copied(&format!("object-{i}"), "1").await;
    }
    assert!(running.readiness.waiting().is_empty());
    assert!(running.seen.most.load(Ordering::SeqCst) <= 4, "at most four at once");
    running.quiet().await;
    let kinds = ["configmaps", "events"];
    let before = writes(&running.metrics, &kinds);
    assert_eq!(before, 12, "one write an object");

    // A restart of the world's view (every object reconciled again) writes nothing.
    Running::source(&running.cluster, "object-0", json!({"x": "1"})).await;
    running.quiet().await;
    assert_eq!(writes(&running.metrics, &kinds), before);

    // Drift: seen by the watch, set right, counted, told.
    running.cluster.put("object-3-copy", json!({"x": "evil"})).await;
    running.copied("object-3", "1").await;
    until("the drift is counted", async || running.metrics.drift("configmaps") == 1).await;
    let events = running.cluster.api::<Event>(&running.cluster.other);
    until("the drift is told", async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.iter().any(|event| {
            event.reason.as_deref() == Some("DriftCorrected")
                && event.regarding.as_ref().and_then(|owner| owner.name.as_deref()) == Some("object-3")
        })
    })
    .await;

    // A deleted child is made again.
    let api = running.cluster.api::<ConfigMap>(&running.cluster.other);
    let uid = api.get("object-5-copy").await.unwrap().metadata.uid;
    api.delete("object-5-copy", &DeleteParams::default()).await.unwrap();
    until("object-5-copy is new", async || {
        api.get_opt("object-5-copy").await.unwrap().is_some_and(|copy| copy.metadata.uid != uid)
    })
    .await;
    running.end().await;
}

#[tokio::test]
async fn a_burst_of_changes_makes_few_reconciles_and_the_last_one_counts() {
    let running = Running::start("burst", 1).await;
    running.copied("object-0", "1").await;
    running.quiet().await;
    let before = running.reconciles("object-0");
    let changes = (0..40).map(|i| Running::source(&running.cluster, "object-0", json!({"x": i.to_string()})));
    futures::future::join_all(changes).await;
    Running::source(&running.cluster, "object-0", json!({"x": "last"})).await;
    running.copied("object-0", "last").await;
    running.quiet().await;
    let reconciles = running.reconciles("object-0") - before;
    assert!(reconciles <= 30, "{reconciles} reconciles for 41 changes and the writes that they caused");
    running.end().await;
}

#[tokio::test]
async fn a_panic_in_one_object_leaves_the_others_alone() {
    let running = Running::start("panic", 2).await;
    Running::source(&running.cluster, "bad", json!({"x": "1", "panic": "yes"})).await;
    until("a panic", async || running.metrics.reconciles(ReconcileResult::Panic) >= 1).await;
    Running::source(&running.cluster, "good", json!({"x": "7"})).await;
    running.copied("good", "7").await;
    Running::source(&running.cluster, "bad", json!({"x": "2"})).await;
    running.copied("bad", "2").await;
    running.end().await;
}

#[tokio::test]
async fn an_api_server_that_hangs_is_given_up_at_the_deadline() {
    // It takes connections and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = kube::Config::new(url.parse().unwrap());
    let options = client::Options::default().deadline(Duration::from_millis(300));
    let api: Api<ConfigMap> = Api::default_namespaced(client::build(config, options).unwrap());
    let started = std::time::Instant::now();
    let error = api.get("x").await.unwrap_err();
    assert!(
        error.to_string().contains("did not answer \"get configmaps default/x\" within 0.3 s"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(listener);
}
