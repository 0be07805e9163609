//! An API server that goes away and comes back under a controller that has nothing to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::{net::SocketAddr, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{reflector::Store, watcher},
};
use serde_json::json;
use support::until;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use vertice_controller::{
    Context, Controller, Manager, Next, ObjectKey, Reconciler, RunConfig, Watch, admin::Admin,
    apply::ApplyError, manager,
};
use vertice_testbed::{
    control_plane::{ControlPlane, ControlPlaneOptions, Etcd, EtcdOptions},
    paths::Paths,
};

/// Makes `<name>-copy` of each ConfigMap labelled `copy=yes`.
struct Copy {
    copies: Store<ConfigMap>,
}

impl Reconciler for Copy {
    type Object = ConfigMap;
    type Error = ApplyError;
    const NAME: &'static str = "copy";

    async fn reconcile(&self, object: Arc<ConfigMap>, context: &Context) -> Result<Next, ApplyError> {
        let key = ObjectKey::of(object.as_ref());
        let name = format!("{}-copy", key.name);
        let observed = self.copies.find(|copy| copy.metadata.name.as_deref() == Some(&name));
        let wanted: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": key.namespace, "labels": {"copy": "no"}}, "data": object.data,
        }))
        .unwrap();
        let api = Api::default_namespaced(context.client.clone());
        context
            .applier
            .apply(&api, object.as_ref(), &wanted, observed.as_ref().map(|copy| &copy.metadata))
            .await?;
        Ok(Next::Await)
    }
}

/// A process with one controller, and its `/readyz`.
struct Operator {
    probes: SocketAddr,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Operator {
    async fn start(config: Config) -> Self {
        let mut manager = Manager::new(config, manager::Options::default());
        let context = manager.context(Copy::NAME).unwrap();
        let watch = |selector| {
            let api = Api::default_namespaced(context.client.clone());
            Watch::<ConfigMap>::new(api, watcher::Config::default().labels(selector))
        };
        let (objects, copies) = (watch("copy=yes"), watch("copy=no"));
        let copy = Copy { copies: copies.store() };
        let controller = Controller::new(copy, objects, context, RunConfig::default(), manager.readiness());
        manager.controller(controller.owns(copies));

        let loopback = ([127, 0, 0, 1], 0).into();
        let admin =
            Admin::bind(loopback, manager.readiness().clone(), manager.metrics().clone()).await.unwrap();
        let (probes, stop) = (admin.address().unwrap(), CancellationToken::new());
        let (served, ran) = (stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(async move { admin.serve(served).await.unwrap() }),
            tokio::spawn(async move { manager.run(ran).await.unwrap() }),
        ];
        Self { probes, stop, tasks }
    }

    /// The answer of `/readyz`: its status, then what is waited for.
    async fn readyz(&self) -> String {
        let mut connection = TcpStream::connect(self.probes).await.unwrap();
        connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        format!("{} {body}", head.split(' ').nth(1).unwrap())
    }

    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn put(client: &Client, x: &str) {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "object", "labels": {"copy": "yes"}},
        "data": {"x": x},
    });
    api.patch("object", &PatchParams::apply("somebody"), &Patch::Apply(&object)).await.unwrap();
}

async fn copied(client: &Client, x: &str) {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    until(&format!("the copy has x={x}"), async || {
        let copy = api.get_opt("object-copy").await.unwrap();
        copy.and_then(|copy| copy.data?.get("x").cloned()).as_deref() == Some(x)
    })
    .await;
}

#[tokio::test]
async fn readiness_tells_of_an_api_server_that_is_away_and_work_goes_on_when_it_is_back() {
    let etcd = Etcd::start(&Paths::locate(), EtcdOptions::default()).await.unwrap();
    let mut plane = ControlPlane::start(&etcd, ControlPlaneOptions::new("restarted")).await.unwrap();
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let operator = Operator::start(config).await;
    let somebody = plane.client();
    put(&somebody, "1").await;
    copied(&somebody, "1").await;
    until("ready", async || operator.readyz().await == "200 ok\n").await;

    plane.stop_api_server();
    until("both watches are missed", async || {
        let answer = operator.readyz().await;
        answer.starts_with("503") && answer.matches("cannot watch configmaps: ").count() == 2
    })
    .await;

    plane.restart_api_server().await.unwrap();
    // Nothing changes meanwhile: that it is ready again must show without an event.
    until("ready again", async || operator.readyz().await == "200 ok\n").await;
    put(&somebody, "2").await;
    copied(&somebody, "2").await;
    operator.end().await;
}
