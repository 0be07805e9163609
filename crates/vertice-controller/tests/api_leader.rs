//! Two candidates on a real Lease.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::api::PostParams;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use support::{Cluster, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vertice_controller::{
    Manager, SystemClock, client,
    leader::{Election, KubeLeaseStore, Leadership, Timing},
    manager::{self, LeaderElection, ManagerError},
    metrics::Metrics,
};

const TIMING: Timing = Timing {
    lease_duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_millis(200),
};

struct Candidate {
    leadership: Leadership,
    working: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<Option<()>>,
}

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Candidate {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let leadership = Leadership::new(Arc::new(SystemClock));
        let client = client::build(cluster.config.clone(), client::Options::default()).unwrap();
        let store = KubeLeaseStore::new(client, &cluster.namespace, "test");
        let election =
            Election::new("test", name.into(), store, TIMING, leadership.clone(), Metrics::new()).unwrap();
        let (working, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let alive = Arc::clone(&working);
        let task = tokio::spawn(election.run(stop.clone(), move |asked| {
            let alive = Arc::clone(&alive);
            async move {
                alive.fetch_add(1, Ordering::SeqCst);
                let _alive = Alive(alive);
                asked.cancelled().await;
            }
        }));
        Self { leadership, working, stop, task }
    }

    fn works(&self) -> bool {
        self.working.load(Ordering::SeqCst) > 0
    }
}

#[tokio::test]
async fn the_lease_passes_at_once_on_a_stop_and_after_its_time_on_a_crash() {
    let cluster = Cluster::connect("leader").await;
    let a = Candidate::start(&cluster, "a");
    until("a leads", async || a.works() && a.leadership.leads()).await;
    let b = Candidate::start(&cluster, "b");

    let started = std::time::Instant::now();
    a.stop.cancel();
    a.task.await.unwrap();
    assert!(!a.leadership.leads());
    until("b leads", async || b.works()).await;
    assert!(started.elapsed() < TIMING.lease_duration, "a released lease is not waited for");

    // A crash: nothing is released, nothing renewed.
    let c = Candidate::start(&cluster, "c");
    let leases = cluster.api::<Lease>(&cluster.other);
    until("c looked at the lease", async || {
        let lease = leases.get("test").await.unwrap();
        lease.spec.unwrap().holder_identity.as_deref() == Some("b") && !c.works()
    })
    .await;
    b.task.abort();
    until("c leads", async || {
        assert!(!(b.leadership.leads() && c.leadership.leads()), "both may write");
        c.works()
    })
    .await;
    let spec = leases.get("test").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("c"));
    assert_eq!(spec.lease_duration_seconds, Some(3));
    assert_eq!(spec.lease_transitions, Some(2));
    c.stop.cancel();
    c.task.await.unwrap();
}

#[tokio::test]
async fn a_stolen_lease_stops_the_work_and_fences_its_writes() {
    let cluster = Cluster::connect("stolen").await;
    let a = Candidate::start(&cluster, "a");
    until("a leads", async || a.works()).await;
    let fenced = client::build(
        cluster.config.clone(),
        client::Options::default().fence(Arc::new(a.leadership.clone())),
    )
    .unwrap();
    let config_maps = cluster.api::<ConfigMap>(&fenced);
    let object = |name: &str| -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap()
    };
    config_maps.create(&PostParams::default(), &object("as-leader")).await.unwrap();

    let leases = cluster.api::<Lease>(&cluster.other);
    until("the lease is stolen", async || {
        let mut lease = leases.get("test").await.unwrap();
        lease.spec.as_mut().unwrap().holder_identity = Some("intruder".into());
        leases.replace("test", &PostParams::default(), &lease).await.is_ok()
    })
    .await;
    until("a stopped", async || !a.works() && !a.leadership.leads()).await;
    let error = config_maps.create(&PostParams::default(), &object("too-late")).await.unwrap_err();
    assert!(error.to_string().contains("does not hold the leader lease"), "{error}");
    assert!(cluster.api::<ConfigMap>(&cluster.other).get_opt("too-late").await.unwrap().is_none());
    a.stop.cancel();
    a.task.await.unwrap();
}

/// A figure about objects: the same in every replica.
#[derive(Debug)]
struct Objects;

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let metric = encoder.encode_descriptor("vertice_test_objects", "Objects", None, MetricType::Gauge)?;
        ConstGauge::new(7_i64).encode(metric)
    }
}

struct Replica {
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ManagerError>>,
}

impl Replica {
    fn start(cluster: &Cluster) -> Self {
        let election =
            LeaderElection { namespace: cluster.namespace.clone(), name: "replicas".into(), timing: TIMING };
        let options = manager::Options { leader_election: Some(election), ..manager::Options::default() };
        let manager = Manager::new(cluster.config.clone(), options);
        manager.leader_collector(Objects);
        let (metrics, stop) = (manager.metrics().clone(), CancellationToken::new());
        let task = tokio::spawn(manager.run(stop.clone()));
        Self { metrics, stop, task }
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.encode().unwrap().lines().any(|shown| shown == line)
    }

    fn shows_objects(&self) -> bool {
        self.shows("vertice_test_objects 7")
    }
}

#[tokio::test]
async fn figures_about_objects_are_the_leaders_alone() {
    let cluster = Cluster::connect("replicas").await;
    let mut a = Replica::start(&cluster);
    until("a shows them", async || a.shows_objects()).await;
    let b = Replica::start(&cluster);
    let follows = r#"vertice_controller_leader{lease="replicas"} 0"#;
    until("b runs", async || b.shows(follows)).await;
    assert!(a.shows_objects() && !b.shows_objects());

    a.stop.cancel();
    until("b shows them", async || {
        assert!(!(a.shows_objects() && b.shows_objects()), "both do");
        b.shows_objects()
    })
    .await;
    (&mut a.task).await.unwrap().unwrap();
    assert!(!a.shows_objects());
    b.stop.cancel();
    b.task.await.unwrap().unwrap();
}
