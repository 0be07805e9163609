//! What tests of clusters share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use vertice_testbed::cluster::{Cluster, ClusterOptions};
use vertice_testbed::images::{self, Image};
use vertice_testbed::ledger::Ledger;
use vertice_testbed::parts::{self, Part};
use vertice_testbed::paths::Paths;
use vertice_testbed::report::Reporter;
use vertice_testbed::wait;

pub(crate) const POD_DEADLINE: Duration = Duration::from_secs(90);

/// A database, because it comes with a shell and tools to reach another one.
pub(crate) async fn image(paths: &Paths) -> Image {
    let paths = paths.clone();
    let made = tokio::task::spawn_blocking(move || {
        let ledger = Ledger::open(&paths, Reporter::default());
        let parts = parts::ensure(&paths, &[Part::Kubernetes], &ledger).unwrap();
        images::postgres15(&paths, &parts).unwrap()
    });
    made.await.unwrap()
}

pub(crate) async fn start(name: &str, nodes: u8, image: &Image) -> Cluster {
    let options = ClusterOptions { images: vec![image.clone()], ..ClusterOptions::new(name, nodes) };
    Cluster::start(options).await.unwrap_or_else(|error| panic!("{}", snafu::Report::from_error(error)))
}

pub(crate) fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client(), "default")
}

/// A database pod on a node, with a Service of its name.
pub(crate) async fn database(cluster: &Cluster, name: &str, node: &str, image: &Image, claim: Option<&str>) {
    let volumes = claim.map(|claim| json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]));
    let mounts = claim.map(|_| json!([{"name": "data", "mountPath": "/var/lib/postgresql/data"}]));
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 1,
            // A volume that has the right group is left alone: PostgreSQL refuses a folder that the group may write to.
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 999, "fsGroup": 999, "fsGroupChangePolicy": "OnRootMismatch",
            },
            "containers": [{
                "name": "postgres",
                "image": image.reference,
                "env": [{"name": "POSTGRES_PASSWORD", "value": "secret"}, {"name": "PGPASSWORD", "value": "secret"}],
                "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    }))
    .unwrap();
    pods(cluster).create(&PostParams::default(), &pod).await.unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 5432}]},
    }))
    .unwrap();
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    services.create(&PostParams::default(), &service).await.unwrap();
}

pub(crate) async fn wait_ready(cluster: &Cluster, name: &str) -> Pod {
    wait::until(format!("pod {name} to be ready"), POD_DEADLINE, || async {
        let pod = pods(cluster).get(name).await.map_err(|error| error.to_string())?;
        let status = pod.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        if ready { Ok(pod) } else { Err(format!("{status:?}")) }
    })
    .await
    .unwrap()
}

pub(crate) fn address(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap()
}

/// What a command in a pod prints, or how it failed.
pub(crate) async fn exec(cluster: &Cluster, pod: &str, command: &[&str]) -> Result<String, String> {
    let mut kubectl = tokio::process::Command::from(cluster.kubectl());
    kubectl.args(["exec", pod, "--request-timeout=30s", "--"]).args(command);
    let output = kubectl.output().await.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs SQL in pod `from` on the database at `host`.
pub(crate) async fn query(cluster: &Cluster, from: &str, host: &str, sql: &str) -> Result<String, String> {
    let host = format!("host={host} user=postgres connect_timeout=3");
    exec(cluster, from, &["psql", "--no-psqlrc", "-At", &host, "-c", sql]).await
}

/// Waits until a query succeeds, or until it fails.
pub(crate) async fn wait_query(cluster: &Cluster, from: &str, host: &str, reachable: bool) -> Duration {
    let begin = std::time::Instant::now();
    let what = format!("{host} to be {} from {from}", if reachable { "reachable" } else { "out of reach" });
    wait::until(what, POD_DEADLINE, || async {
        let answer = query(cluster, from, host, "select 1").await;
        if answer.is_ok() == reachable { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await
    .unwrap();
    begin.elapsed()
}
