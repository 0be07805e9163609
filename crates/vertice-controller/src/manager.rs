//! One process: its controllers, its tasks, its lease, its admin server, and their orderly start and stop.

use std::{fmt, future::Future, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use prometheus_client::collector::Collector;
use snafu::{ResultExt as _, Snafu};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Admin, AdminError},
    apply::Applier,
    client::{self, Interceptor},
    clock::{SharedClock, SystemClock},
    events::Events,
    leader::{self, Election, KubeLeaseStore, Leadership, Timing},
    metrics::Metrics,
    readiness::Readiness,
    run::{Context, Controller, Reconciler},
    text::panic_message,
};

/// What a task may fail with.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

type Task = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, Result<(), TaskError>> + Send>;
type LeaderTask = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<(), TaskError>> + Send + Sync>;

/// Where the lease lies and how it is run for.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// The election's times.
    pub timing: Timing,
}

/// Settings of a process.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where probes and metrics are served; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// `None`: this process is alone and always leads.
    pub leader_election: Option<LeaderElection>,
    /// How long one API call may take.
    pub deadline: Duration,
    /// The time.
    pub clock: SharedClock,
    /// For tests that stand between the controllers and the API server.
    pub interceptor: Option<Arc<dyn Interceptor>>,
    /// How long tasks may take to stop.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admin: None,
            leader_election: None,
            deadline: client::DEADLINE,
            clock: SystemClock::shared(),
            interceptor: None,
            grace: Duration::from_secs(20),
        }
    }
}

/// The process could not be started, or one of its parts failed.
#[derive(Debug, Snafu)]
pub enum ManagerError {
    /// The API server's client could not be built.
    #[snafu(transparent)]
    Client {
        /// What is wrong.
        source: client::BuildError,
    },
    /// The admin server could not be started.
    #[snafu(transparent)]
    Admin {
        /// What is wrong.
        source: AdminError,
    },
    /// The election's times do not fit together.
    #[snafu(transparent)]
    Timing {
        /// What is wrong.
        source: leader::TimingError,
    },
    /// SIGTERM cannot be listened for.
    #[snafu(display("cannot listen for SIGTERM and SIGINT"))]
    Signals {
        /// What is wrong.
        source: std::io::Error,
    },
    /// A task failed, and with it the process.
    #[snafu(display("task \"{task}\" failed"))]
    Task {
        /// Its name.
        task: String,
        /// What it says.
        source: TaskError,
    },
    /// A task panicked, and with it the process.
    #[snafu(display("task \"{task}\" panicked: {message}"))]
    Panic {
        /// Its name.
        task: String,
        /// The panic's message.
        message: String,
    },
}

/// Builds and runs one process.
pub struct Manager {
    config: kube::Config,
    options: Options,
    metrics: Metrics,
    readiness: Readiness,
    leadership: Leadership,
    tasks: Vec<(String, Task)>,
    leader_tasks: Vec<(String, LeaderTask)>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |tasks: Vec<&String>| tasks.into_iter().cloned().collect::<Vec<_>>();
        f.debug_struct("Manager")
            .field("options", &self.options)
            .field("tasks", &names(self.tasks.iter().map(|(name, _)| name).collect()))
            .field("leader_tasks", &names(self.leader_tasks.iter().map(|(name, _)| name).collect()))
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// A process without parts yet.
    #[must_use]
    pub fn new(config: kube::Config, options: Options) -> Self {
        let leadership = Leadership::new(Arc::clone(&options.clock));
        Self {
            config,
            options,
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            leadership,
            tasks: Vec::new(),
            leader_tasks: Vec::new(),
        }
    }

    /// The process's metrics, to register a kind's own.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Registers a collector of figures about objects, which every replica could tell from its caches: only the leader does, so
    /// that a sum over the replicas counts each object once. With the next leader the series go on in its scrapes.
    pub fn leader_collector(&self, collector: impl Collector) {
        if self.options.leader_election.is_some() {
            self.metrics.register_leader_collector(self.leadership.clone(), collector);
        } else {
            self.metrics.register_collector(collector);
        }
    }

    /// What the process waits for before it is ready.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// A context for the controller `name`: its field manager and event source are `vertice-<name>`, its client counts its writes and
    /// refuses them while this process does not lead.
    pub fn context(&self, name: &str) -> Result<Context, ManagerError> {
        let metrics = self.metrics.controller(name);
        let mut options =
            self.client_options().metrics(metrics.clone()).watches(self.readiness.clone(), name);
        if self.options.leader_election.is_some() {
            options = options.fence(Arc::new(self.leadership.clone()));
        }
        let client = client::build(self.config.clone(), options)?;
        let manager = format!("vertice-{name}");
        let events = Events::new(client.clone(), &manager);
        let applier = Applier::new(&manager, events.clone(), metrics.clone());
        Ok(Context { client, clock: Arc::clone(&self.options.clock), applier, events, metrics })
    }

    /// A client for tasks that run in every replica: it may write without leadership.
    pub fn unfenced_client(&self, name: &str) -> Result<kube::Client, ManagerError> {
        Ok(client::build(self.config.clone(), self.client_options().metrics(self.metrics.controller(name)))?)
    }

    fn client_options(&self) -> client::Options {
        let options = client::Options::default().deadline(self.options.deadline);
        match &self.options.interceptor {
            Some(interceptor) => options.interceptor(Arc::clone(interceptor)),
            None => options,
        }
    }

    /// Adds a controller: its caches are kept in every replica, its objects are reconciled by the leader.
    pub fn controller<R: Reconciler>(&mut self, controller: Controller<R>) {
        let (caches, worker) = controller.split();
        self.task(format!("caches of {}", R::NAME), move |stop| async move {
            tokio::select! {
                () = caches => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
        self.leader_task(format!("controller {}", R::NAME), move |stop| {
            let worker = worker.clone();
            async move {
                worker.run(stop).await;
                Ok(())
            }
        });
    }

    /// Adds a task that runs in every replica. It should end soon after its token is cancelled; an error ends the process.
    pub fn task<T, F>(&mut self, name: impl Into<String>, task: T)
    where
        T: FnOnce(CancellationToken) -> F + Send + 'static,
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.tasks.push((name.into(), Box::new(move |stop| Box::pin(task(stop)))));
    }

    /// Adds a task that runs in the leader only: it is dropped when the lease is lost and called again with the next leadership.
    pub fn leader_task<T, F>(&mut self, name: impl Into<String>, task: T)
    where
        T: Fn(CancellationToken) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.leader_tasks.push((name.into(), Arc::new(move |stop| Box::pin(task(stop)))));
    }

    /// Runs until `stop` is cancelled or a part fails. Then, in this order: not ready any more, controllers finish what they are
    /// at while the lease is still renewed, the lease is released, and everything else stops.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ManagerError> {
        let Self { config, options, metrics, readiness, leadership, mut tasks, leader_tasks } = self;
        if let Some(address) = options.admin {
            let admin = Admin::bind(address, readiness.clone(), metrics.clone()).await?;
            tracing::info!(address = %admin.address()?, "serving probes and metrics");
            let serve: Task = Box::new(move |stop| Box::pin(async move { Ok(admin.serve(stop).await?) }));
            tasks.push(("admin server".into(), serve));
        }
        let election = match &options.leader_election {
            None => None,
            Some(wanted) => {
                let client_options = client::Options::default()
                    .deadline(wanted.timing.renew_deadline)
                    .metrics(metrics.controller("leader-election"));
                let client = client::build(config, client_options)?;
                let store = KubeLeaseStore::new(client, &wanted.namespace, &wanted.name);
                let (name, id) = (&wanted.name, leader::identity());
                Some(Election::new(name, id, store, wanted.timing, leadership, metrics)?)
            }
        };
        let ending = stop.child_token();
        let last = CancellationToken::new();
        let mut parts = JoinSet::new();
        for (name, task) in tasks {
            let work = task(last.clone());
            parts.spawn(named(name, work));
        }
        let work = lead_with(election, leader_tasks, ending.clone());
        let result = run_both(work, &mut parts, &ending, &readiness).await;
        last.cancel();
        let stopped = stop_all(parts, &options).await;
        result.and(stopped)
    }
}

/// Runs the leader's tasks, under the lease if there is one, until `ending`.
async fn lead_with(
    election: Option<Election<KubeLeaseStore>>,
    tasks: Vec<(String, LeaderTask)>,
    ending: CancellationToken,
) -> Result<(), ManagerError> {
    let work = |stop: CancellationToken| {
        let mut running = JoinSet::new();
        for (name, task) in &tasks {
            running.spawn(named(name.clone(), task(stop.clone())));
        }
        async move {
            while let Some(ended) = running.join_next().await {
                flatten(ended)?;
            }
            // Also with nothing to do there is a lease to hold.
            stop.cancelled().await;
            Ok(())
        }
    };
    match election {
        Some(election) => election.run(ending, work).await.unwrap_or(Ok(())),
        None => work(ending).await,
    }
}

/// Runs the leader's work; a part that fails meanwhile ends it.
async fn run_both(
    work: impl Future<Output = Result<(), ManagerError>>,
    parts: &mut JoinSet<Result<(), ManagerError>>,
    ending: &CancellationToken,
    readiness: &Readiness,
) -> Result<(), ManagerError> {
    let mut work = std::pin::pin!(work);
    let mut result = Ok(());
    let mut told = false;
    loop {
        tokio::select! {
            ended = &mut work => return result.and(ended),
            Some(ended) = parts.join_next() => {
                if let Err(error) = flatten(ended) {
                    result = Err(error);
                    ending.cancel();
                }
            }
            () = ending.cancelled(), if !told => {
                told = true;
                tracing::info!("stopping");
                readiness.gate("stopping", "stopping").wait("stopping");
            }
        }
    }
}

async fn stop_all(
    mut parts: JoinSet<Result<(), ManagerError>>,
    options: &Options,
) -> Result<(), ManagerError> {
    let mut grace = options.clock.sleep(options.grace);
    let mut result = Ok(());
    loop {
        tokio::select! {
            ended = parts.join_next() => match ended {
                Some(ended) => result = result.and(flatten(ended)),
                None => return result,
            },
            () = &mut grace => {
                tracing::warn!(left = parts.len(), "tasks were cut off, they did not end in time");
                parts.shutdown().await;
                return result;
            }
        }
    }
}

async fn named(name: String, work: impl Future<Output = Result<(), TaskError>>) -> Result<(), ManagerError> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result.context(TaskSnafu { task: name }),
        Err(panic) => PanicSnafu { task: name, message: panic_message(panic.as_ref()) }.fail(),
    }
}

/// Panics are caught in [`named`], so a task that could not be joined was stopped by us.
fn flatten(ended: Result<Result<(), ManagerError>, JoinError>) -> Result<(), ManagerError> {
    ended.unwrap_or(Ok(()))
}

/// A token that is cancelled by SIGTERM or SIGINT.
pub fn stop_on_signals() -> Result<CancellationToken, ManagerError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context(SignalsSnafu)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(SignalsSnafu)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests;
