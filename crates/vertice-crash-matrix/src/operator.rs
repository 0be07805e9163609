//! The operator under trial: in this process, in a runtime of its own that is dropped to kill it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::StatusCode;
use snafu::{IntoError as _, ResultExt as _};
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;
use vertice_backup::Settings;
use vertice_controller::Clock as _;
use vertice_controller::client::{After, Before, Call, Interceptor, OnEvent, WatchEvent};
use vertice_controller::manager::Options;
use vertice_controller::metrics::{ControllerMetrics, ReconcileResult};
use vertice_controller::mutant;

use crate::error::{IoSnafu, OperatorSnafu, Result};
use crate::fault::Fault;
use crate::hub::{Hub, Order, Victim};
use crate::jobs::Cluster;
use crate::point;

static LIVES: AtomicU64 = AtomicU64::new(1);

/// A running operator.
pub(crate) struct Operator {
    runtime: Option<Runtime>,
    hooks: Arc<Hooks>,
    metrics: [ControllerMetrics; 2],
}

impl Operator {
    /// Starts one that works in one namespace, under the trial's eyes.
    pub(crate) fn start(config: kube::Config, cluster: &Cluster, mutant: Option<String>) -> Result<Self> {
        let hub = &cluster.hub;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.on_thread_start(move || mutant::activate(mutant.as_deref()));
        let runtime = builder.worker_threads(1).enable_all().thread_name("operator").build();
        let runtime = runtime.map_err(|source| {
            IoSnafu { action: "start the operator's", path: "runtime" }.into_error(source)
        })?;
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        let hooks = Arc::new(Hooks {
            hub: Arc::clone(hub),
            cluster: cluster.clone(),
            home: Handle::current(),
            life,
            dead: AtomicBool::new(false),
            sent: Mutex::default(),
            cut: Mutex::default(),
        });
        let settings = Settings {
            agent_image: "vertice-agent:matrix".to_owned(),
            namespace: Some(cluster.namespace.clone()),
            admin: None,
            leader_election: None,
        };
        let options = Options {
            clock: Arc::new(hub.clock.clone()),
            interceptor: Some(Arc::clone(&hooks) as Arc<dyn Interceptor>),
            ..Options::default()
        };
        // Clients start tasks of their own where they are built.
        let manager = {
            let _inside = runtime.enter();
            vertice_backup::manager(config, &settings, options).context(OperatorSnafu)?
        };
        let metrics = [manager.metrics().controller("backup"), manager.metrics().controller("restore")];
        runtime.spawn(manager.run(CancellationToken::new()));
        Ok(Self { runtime: Some(runtime), hooks, metrics })
    }

    /// Reconciles that ended, of both controllers.
    pub(crate) fn reconciles(&self) -> u64 {
        let results = [
            ReconcileResult::Success,
            ReconcileResult::Conflict,
            ReconcileResult::Error,
            ReconcileResult::Panic,
        ];
        self.metrics.iter().flat_map(|metrics| results.map(|result| metrics.reconciles(result))).sum()
    }

    /// Reconciles that panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.metrics.iter().map(|metrics| metrics.reconciles(ReconcileResult::Panic)).sum()
    }

    /// Ends it as `kill -9` would: nothing of it runs when this returns.
    pub(crate) async fn kill(mut self) {
        self.hooks.dead.store(true, Ordering::SeqCst);
        if let Some(runtime) = self.runtime.take() {
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            let _ = ended.await;
        }
        self.hooks.hub.died(self.hooks.life);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.hooks.dead.store(true, Ordering::SeqCst);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The number of a request, and what to do with its answer.
type Sent = (usize, Order);

/// Stands between one life of the operator and the API server.
#[derive(Debug)]
struct Hooks {
    hub: Arc<Hub>,
    cluster: Cluster,
    /// The matrix's own runtime: what a person does goes on when the operator is killed, and so do the connections for it.
    home: Handle,
    life: u64,
    /// Set at the instant of the kill: what another task of the same process was about to do is not done any more.
    dead: AtomicBool,
    /// Requests that were sent, with their numbers and what to do with their answers.
    sent: Mutex<HashMap<(Call, u64), Vec<Sent>>>,
    /// Breaks and expiries happen once to each watch, else it would never get past the event.
    cut: Mutex<HashSet<(String, String)>>,
}

impl Hooks {
    async fn die<T>(&self) -> T {
        if !self.dead.swap(true, Ordering::SeqCst) {
            self.hub.kill(Victim::Operator);
        }
        futures::future::pending().await
    }

    async fn alive(&self) {
        if self.dead.load(Ordering::SeqCst) {
            futures::future::pending::<()>().await;
        }
    }

    /// Returns when nothing else happens any more, or when that takes too long.
    async fn rest(&self) {
        let began = self.hub.clock.elapsed();
        while !self.hub.is_still(LAG) && self.hub.clock.elapsed().saturating_sub(began) < LONGEST_LAG {
            tokio::time::sleep(LAG / 8).await;
        }
        self.hub.stir();
    }

    /// A person does something meanwhile.
    async fn upset(&self, fault: Fault, call: &Call) {
        let resource = if fault.remakes() { point::about(call) } else { Some(call.resource.as_str()) };
        let (resource, name) = (resource.unwrap_or_default().to_owned(), call.name.clone());
        let cluster = self.cluster.clone();
        let done = self.home.spawn(async move {
            if let Err(error) = cluster.upset(fault, &resource, name.as_deref()).await {
                cluster.hub.breaks(error);
            }
        });
        // Ends with the trial.
        let _ = done.await;
    }

    fn first_cut(&self, name: &str, version: &str) -> bool {
        lock(&self.cut).insert((name.to_owned(), version.to_owned()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cache lags until nothing else has happened for so long.
const LAG: Duration = Duration::from_millis(120);
/// By the injected clock.
const LONGEST_LAG: Duration = Duration::from_secs(8);

impl Interceptor for Hooks {
    fn before<'a>(&'a self, call: &'a Call, occurrence: u64) -> BoxFuture<'a, Before> {
        Box::pin(async move {
            self.alive().await;
            let Some(name) = point::of_call(call) else { return Before::Send };
            let (number, order) = self.hub.leaves(self.life, name, Some(call));
            if let Order::First(fault) = order {
                self.upset(fault, call).await;
                self.hub.goes(self.life);
            }
            match order {
                Order::DieNow => self.die().await,
                Order::Answer(429) => Before::Throttle(Duration::from_secs(1)),
                Order::Answer(status) => {
                    Before::Answer(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
                }
                Order::Pass | Order::LoseAnswer | Order::DieAfter | Order::First(_) | Order::Then(_) => {
                    let key = (call.clone(), occurrence);
                    lock(&self.sent).entry(key).or_default().push((number, order));
                    Before::Send
                }
            }
        })
    }

    fn after<'a>(&'a self, call: &'a Call, occurrence: u64, status: StatusCode) -> BoxFuture<'a, After> {
        Box::pin(async move {
            self.alive().await;
            let key = (call.clone(), occurrence);
            let Some((number, order)) = lock(&self.sent).get_mut(&key).and_then(Vec::pop) else {
                return After::Deliver;
            };
            self.hub.answered(self.life, number, status.as_u16());
            if let Order::Then(fault) = order {
                self.upset(fault, call).await;
            }
            if call.resource == "cronjobs" && status == StatusCode::CREATED {
                self.cluster.settled_in(call.name.as_deref().unwrap_or_default()).await;
            }
            match order {
                Order::DieAfter => self.die().await,
                Order::LoseAnswer => After::Lose,
                Order::Pass | Order::Answer(_) | Order::DieNow | Order::First(_) | Order::Then(_) => {
                    After::Deliver
                }
            }
        })
    }

    fn abandoned(&self, call: &Call, occurrence: u64) {
        if lock(&self.sent).get_mut(&(call.clone(), occurrence)).and_then(Vec::pop).is_some() {
            self.hub.abandoned(self.life);
        }
    }

    fn event<'a>(&'a self, call: &'a Call, event: &'a WatchEvent) -> BoxFuture<'a, OnEvent> {
        Box::pin(async move {
            self.alive().await;
            let version = event.resource_version.as_deref().unwrap_or_default();
            let Some(name) = point::of_event(call, event) else { return OnEvent::Deliver };
            match self.hub.told(&name, version) {
                Some(Fault::Skip) => {
                    self.rest().await;
                    let later = self.cluster.world.has_later(&call.resource, event.name.as_deref(), version);
                    if later { OnEvent::Drop } else { OnEvent::Deliver }
                }
                Some(Fault::Repeat) => OnEvent::Repeat,
                Some(Fault::Break) if self.first_cut(&name, version) => OnEvent::Break,
                Some(Fault::Expire) if self.first_cut(&name, version) => OnEvent::Expire,
                Some(Fault::Lag) => {
                    self.rest().await;
                    OnEvent::Deliver
                }
                _ => OnEvent::Deliver,
            }
        })
    }
}
