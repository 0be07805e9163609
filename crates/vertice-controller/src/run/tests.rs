use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::{Api, runtime::watcher};
use serde_json::json;
use snafu::Snafu;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    clock::ManualClock,
    metrics::{Metrics, ReconcileResult},
    testing::{FakeServer, config_map, until},
};

#[derive(Debug, Snafu)]
#[snafu(display("told to fail"))]
struct Told;

/// What the reconciler does, and what it saw.
#[derive(Default)]
struct Script {
    /// Names in the order of their reconciles.
    started: Mutex<Vec<String>>,
    gone: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
    fail: AtomicBool,
    panic: AtomicBool,
    next: Mutex<Option<Next>>,
    /// Each reconcile takes one permit, when `hold` is set.
    hold: AtomicBool,
    permits: Option<Semaphore>,
}

struct Test(Arc<Script>);

impl Reconciler for Test {
    type Object = ConfigMap;
    type Error = Told;
    const NAME: &'static str = "test";

    async fn reconcile(&self, object: Arc<ConfigMap>, _: &Context) -> Result<Next, Told> {
        let script = &self.0;
        script.started.lock().unwrap().push(object.metadata.name.clone().unwrap());
        let now = script.now.fetch_add(1, Ordering::SeqCst) + 1;
        script.most.fetch_max(now, Ordering::SeqCst);
        if script.hold.load(Ordering::SeqCst) {
            script.permits.as_ref().unwrap().acquire().await.unwrap().forget();
        }
        script.now.fetch_sub(1, Ordering::SeqCst);
        assert!(!script.panic.load(Ordering::SeqCst), "told to panic");
        if script.fail.load(Ordering::SeqCst) {
            ToldSnafu.fail()
        } else {
            Ok(script.next.lock().unwrap().unwrap_or(Next::Await))
        }
    }

    fn gone(&self, key: &ObjectKey) {
        self.0.gone.lock().unwrap().push(key.to_string());
    }
}

struct Running {
    script: Arc<Script>,
    server: FakeServer,
    clock: ManualClock,
    metrics: ControllerMetrics,
    stop: CancellationToken,
    worker: Option<JoinHandle<()>>,
    caches: JoinHandle<()>,
}

impl Running {
    fn start(server: FakeServer, script: Script, config: Config) -> Self {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let metrics = Metrics::new().controller("test");
        let client = server.client();
        let events = Events::new(client.clone(), "vertice-test");
        let context = Context {
            applier: Applier::new("vertice-test", events.clone(), metrics.clone()),
            client: client.clone(),
            clock: Arc::new(clock.clone()),
            events,
            metrics: metrics.clone(),
        };
        let script = Arc::new(script);
        let watch = Watch::new(Api::namespaced(client, "ns"), watcher::Config::default());
        let controller =
            Controller::new(Test(Arc::clone(&script)), watch, context, config, &Readiness::default());
        let (caches, worker) = controller.split();
        let stop = CancellationToken::new();
        let worker = tokio::spawn(worker.run(stop.clone()));
        Self { script, server, clock, metrics, stop, worker: Some(worker), caches: tokio::spawn(caches) }
    }

    fn started(&self) -> usize {
        self.script.started.lock().unwrap().len()
    }

    /// Lets the debounce window pass and waits for as many reconciles in all.
    async fn reconciles(&self, count: usize) {
        until(&format!("{count} reconciles"), || {
            if self.started() < count && self.clock.next_wake() == Some(WINDOW) {
                self.clock.advance(WINDOW);
            }
            self.started() >= count
        })
        .await;
    }

    /// Waits until the worker sleeps for exactly this long.
    async fn sleeps(&self, wake: Duration) {
        until(&format!("a sleep of {wake:?}, is {:?}", self.clock.next_wake()), || {
            self.clock.next_wake() == Some(wake)
        })
        .await;
    }

    async fn changed(&self, object: &serde_json::Value) {
        until("an open watch", || self.server.event("MODIFIED", object) > 0).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.caches.abort();
        if let Some(worker) = &self.worker {
            worker.abort();
        }
    }
}

const WINDOW: Duration = Duration::from_millis(50);

fn config() -> Config {
    Config {
        backoff: Backoff { base: Duration::from_secs(1), max: Duration::from_mins(1) },
        ..Config::default()
    }
}

#[tokio::test]
async fn at_most_four_objects_are_reconciled_at_once() {
    let names: Vec<_> = (0..10).map(|i| format!("object-{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let script = Script { hold: true.into(), permits: Some(Semaphore::new(0)), ..Script::default() };
    let running = Running::start(FakeServer::with_config_maps(&names), script, config());
    running.reconciles(4).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.started(), 4);
    running.script.permits.as_ref().unwrap().add_permits(10);
    running.reconciles(10).await;
    assert_eq!(running.script.most.load(Ordering::SeqCst), 4);
    let started: std::collections::BTreeSet<_> =
        running.script.started.lock().unwrap().iter().cloned().collect();
    assert_eq!(started.len(), 10);
}

#[tokio::test]
async fn a_burst_of_events_makes_one_reconcile() {
    let running = Running::start(FakeServer::with_config_maps(&["a"]), Script::default(), config());
    running.reconciles(1).await;
    for version in 2..20 {
        running.changed(&config_map("a", version)).await;
    }
    running.changed(&config_map("b", 1)).await;
    running.sleeps(WINDOW).await;
    running.clock.advance(WINDOW);
    // `b` came last: when it was reconciled, everything about `a` was.
    running.reconciles(3).await;
    let started = running.script.started.lock().unwrap().clone();
    assert_eq!(started.iter().filter(|name| *name == "a").count(), 2, "{started:?}");
}

#[tokio::test]
async fn a_panic_is_caught_counted_and_backed_off_and_the_controller_lives_on() {
    let script = Script { panic: true.into(), ..Script::default() };
    let running = Running::start(FakeServer::with_config_maps(&["a"]), script, config());
    running.reconciles(1).await;
    until("the panic", || running.metrics.reconciles(ReconcileResult::Panic) == 1).await;
    running.script.panic.store(false, Ordering::SeqCst);
    until("a backoff", || {
        running
            .clock
            .next_wake()
            .is_some_and(|wake| wake >= Duration::from_millis(450) && wake <= Duration::from_secs(1))
    })
    .await;
    running.clock.advance(Duration::from_secs(1));
    until("a success", || running.metrics.reconciles(ReconcileResult::Success) == 1).await;
}

#[tokio::test]
async fn failures_wait_longer_each_time() {
    let script = Script { fail: true.into(), ..Script::default() };
    let running = Running::start(FakeServer::with_config_maps(&["a"]), script, config());
    running.reconciles(1).await;
    for (failures, bound) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let bound = Duration::from_secs(bound);
        until("the failure", || running.metrics.reconciles(ReconcileResult::Error) == failures).await;
        until("its backoff", || {
            running.clock.next_wake().is_some_and(|wake| wake >= bound / 2 && wake <= bound)
        })
        .await;
        running.clock.advance(bound);
        until("the next try", || running.started() > usize::try_from(failures).unwrap()).await;
    }
}

#[tokio::test]
async fn a_planned_instant_and_the_resync_wake_by_the_injected_clock() {
    let at: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    let wait = Duration::from_mins(10).saturating_sub(WINDOW);
    let script = Script { next: Mutex::new(Some(Next::At(at))), ..Script::default() };
    let running = Running::start(FakeServer::with_config_maps(&["a"]), script, config());
    running.reconciles(1).await;
    running.sleeps(wait).await;
    *running.script.next.lock().unwrap() = None;
    running.clock.advance(wait);
    running.reconciles(2).await;
    let resync = config().resync;
    until("the resync", || {
        running.clock.next_wake().is_some_and(|wake| wake <= resync && wake >= resync.mul_f64(0.89))
    })
    .await;
}

#[tokio::test]
async fn a_deleted_object_is_reported_gone_and_its_backoff_forgotten() {
    let script = Script { fail: true.into(), ..Script::default() };
    let running = Running::start(FakeServer::with_config_maps(&["a"]), script, config());
    running.reconciles(1).await;
    until("an open watch", || running.server.event("DELETED", &config_map("a", 1)) > 0).await;
    until("the end of a", || {
        if let Some(wake) = running.clock.next_wake() {
            running.clock.advance(wake);
        }
        *running.script.gone.lock().unwrap() == ["ns/a"]
    })
    .await;
    until("nothing planned", || running.clock.next_wake().is_none()).await;
}

#[tokio::test]
async fn a_stop_lets_running_reconciles_finish_and_starts_no_new_ones() {
    let script = Script { hold: true.into(), permits: Some(Semaphore::new(0)), ..Script::default() };
    let mut running = Running::start(
        FakeServer::with_config_maps(&["a", "b"]),
        script,
        Config { concurrency: 1, ..config() },
    );
    running.reconciles(1).await;
    running.stop.cancel();
    running.script.permits.as_ref().unwrap().add_permits(5);
    running.worker.take().unwrap().await.unwrap();
    assert_eq!(running.started(), 1);
    assert_eq!(running.metrics.reconciles(ReconcileResult::Success), 1);
}

#[tokio::test]
async fn a_reconcile_that_does_not_end_is_cut_off_after_the_grace_period() {
    let script = Script { hold: true.into(), permits: Some(Semaphore::new(0)), ..Script::default() };
    let mut running = Running::start(FakeServer::with_config_maps(&["a"]), script, config());
    running.reconciles(1).await;
    running.stop.cancel();
    running.sleeps(config().grace).await;
    running.clock.advance(config().grace);
    running.worker.take().unwrap().await.unwrap();
    assert_eq!(running.metrics.reconciles(ReconcileResult::Success), 0);
}

#[test]
fn the_owner_is_found_whatever_version_the_reference_names() {
    let child = |owner: serde_json::Value| -> ConfigMap {
        serde_json::from_value(
            json!({"metadata": {"name": "x", "namespace": "ns", "ownerReferences": [owner]}}),
        )
        .unwrap()
    };
    let owner = |api_version: &str, kind: &str, controller: bool| json!({"apiVersion": api_version, "kind": kind, "name": "o", "uid": "u", "controller": controller});
    let found = |owner| owners::<Job, _>(&child(owner));
    assert_eq!(found(owner("batch/v1", "Job", true)), [ObjectKey::namespaced("ns", "o")]);
    assert_eq!(found(owner("batch/v2", "Job", true)).len(), 1);
    assert_eq!(found(owner("batch/v1", "Job", false)), []);
    assert_eq!(found(owner("batch/v1", "CronJob", true)), []);
    assert_eq!(found(owner("other/v1", "Job", true)), []);
}
