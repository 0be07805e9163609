//! Feeds the queue and works it off.

use std::{
    collections::HashMap,
    fmt::{self, Debug},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::{
    sync::Notify,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Config, Context, Next, ObjectKey, Reconciler,
    queue::{Now, Outcome, Queue},
};
use crate::{
    apply::is_conflict,
    backoff::roll,
    metrics::ReconcileResult,
    mutant::{self, Mutant},
    telemetry,
    text::{chain, panic_message},
};

/// What the caches and the worker of one controller share.
pub(crate) struct Shared<R: Reconciler> {
    pub(crate) reconciler: R,
    pub(crate) store: Store<R::Object>,
    /// One for each cache, cancelled once it is filled.
    pub(crate) ready: Mutex<Vec<CancellationToken>>,
    pub(crate) queue: Mutex<Queue<ObjectKey>>,
    pub(crate) wake: Notify,
    pub(crate) context: Context,
    pub(crate) config: Config,
}

impl<R: Reconciler> Shared<R> {
    pub(crate) fn trigger(&self, keys: impl Iterator<Item = ObjectKey>) {
        let now = self.now();
        let mut queue = self.queue();
        for key in keys {
            queue.trigger(key, now);
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// The worker does not start before this cache was filled.
    pub(crate) fn await_cache(&self, filled: CancellationToken) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(filled);
    }

    fn queue(&self) -> MutexGuard<'_, Queue<ObjectKey>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { wall: self.context.clock.now(), elapsed: self.context.clock.elapsed() }
    }

    fn get(&self, key: &ObjectKey) -> Option<Arc<R::Object>> {
        let mut reference = ObjectRef::<R::Object>::new(&key.name);
        reference.namespace.clone_from(&key.namespace);
        self.store.get(&reference)
    }
}

/// Reconciles what the queue holds. Cheap to clone; run one at a time.
pub struct Worker<R: Reconciler> {
    shared: Arc<Shared<R>>,
}

impl<R: Reconciler> Clone for Worker<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Reconciler> Debug for Worker<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("controller", &R::NAME).finish_non_exhaustive()
    }
}

/// What the reconcile tasks that run now work on.
type Running = HashMap<Id, ObjectKey>;

impl<R: Reconciler> Worker<R> {
    pub(crate) fn new(shared: Arc<Shared<R>>) -> Self {
        Self { shared }
    }

    /// Works until `stop` is cancelled: then nothing new is started, and what runs may finish within the grace period. Dropping
    /// the future ends everything at once (at the next await point), as a lost lease demands.
    pub async fn run(self, stop: CancellationToken) {
        let shared = &self.shared;
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.caches_filled() => {}
        }
        shared.queue().reset();
        let everything = shared.store.state();
        shared.trigger(everything.iter().map(|object| ObjectKey::of(object.as_ref())));
        let mut tasks = JoinSet::new();
        let mut running = Running::new();
        while !stop.is_cancelled() {
            self.start_ready(&mut tasks, &mut running);
            let (wait, depth) = {
                let (now, mut queue) = (shared.now(), shared.queue());
                let depth = queue.depth(now);
                (queue.next(now), depth)
            };
            shared.context.metrics.queue(depth, running.len());
            // With all workers busy only the end of one matters.
            let wait = wait.filter(|_| running.len() < shared.config.concurrency.max(1));
            tokio::select! {
                () = stop.cancelled() => {}
                () = shared.wake.notified() => {}
                () = self.sleep(wait) => {}
                Some(done) = tasks.join_next_with_id() => self.finished(done, &mut running),
            }
        }
        self.drain(&mut tasks, &mut running).await;
    }

    async fn caches_filled(&self) {
        let caches = self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for filled in caches {
            filled.cancelled().await;
        }
    }

    /// Waits for the earlier of both clocks' idea of `wait`; for ever with `None`.
    async fn sleep(&self, wait: Option<Duration>) {
        let Some(wait) = wait else { return futures::future::pending().await };
        let clock = &self.shared.context.clock;
        let at = clock.now().saturating_add(wait).unwrap_or(jiff::Timestamp::MAX);
        tokio::select! {
            () = clock.sleep(wait) => {}
            () = clock.sleep_until(at) => {}
        }
    }

    fn start_ready(&self, tasks: &mut JoinSet<Outcome>, running: &mut Running) {
        while running.len() < self.shared.config.concurrency.max(1) {
            let now = self.shared.now();
            let Some(key) = self.shared.queue().pop(now) else { return };
            let worker = self.clone();
            let handle = tasks.spawn({
                let key = key.clone();
                async move { worker.reconcile(&key).await }
            });
            running.insert(handle.id(), key);
        }
    }

    fn finished(&self, done: Result<(Id, Outcome), JoinError>, running: &mut Running) {
        let (id, outcome) = match done {
            Ok(done) => done,
            // Panics are caught inside the task: this is the net below.
            Err(error) => (error.id(), Outcome::Failed { roll: roll() }),
        };
        if let Some(key) = running.remove(&id) {
            let now = self.shared.now();
            self.shared.queue().finish(&key, outcome, now);
        }
    }

    /// Lets what runs finish, for as long as the grace period lasts.
    async fn drain(&self, tasks: &mut JoinSet<Outcome>, running: &mut Running) {
        let grace = self.shared.context.clock.sleep(self.shared.config.grace);
        tokio::pin!(grace);
        while !running.is_empty() {
            tokio::select! {
                Some(done) = tasks.join_next_with_id() => self.finished(done, running),
                () = &mut grace => {
                    let objects: Vec<_> = running.values().map(ToString::to_string).collect();
                    tracing::warn!(controller = R::NAME, ?objects, "reconciles were cut off, they did not end in time");
                    break;
                }
            }
        }
        tasks.shutdown().await;
        self.shared.context.metrics.queue(0, 0);
    }

    /// Reconciles one object, in a span of its own that carries the trace id.
    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let span = tracing::info_span!("reconcile", controller = R::NAME, object = %key, trace_id = tracing::field::Empty);
        telemetry::record_trace_id(&span);
        self.reconcile_in_span(key).instrument(span).await
    }

    async fn reconcile_in_span(&self, key: &ObjectKey) -> Outcome {
        let shared = &self.shared;
        let Some(object) = shared.get(key) else {
            shared.reconciler.gone(key);
            return Outcome::Gone;
        };
        let clock = &shared.context.clock;
        let started = clock.elapsed();
        let work = async { shared.reconciler.reconcile(object, &shared.context).await };
        let ended = AssertUnwindSafe(work).catch_unwind().await;
        let took = clock.elapsed().saturating_sub(started);
        let (result, outcome) = match ended {
            Ok(Ok(next)) => {
                tracing::debug!(?next, ?took, "reconciled");
                (ReconcileResult::Success, self.planned(next))
            }
            Ok(Err(_)) if mutant::on(Mutant::ErrorNotRetried) => {
                (ReconcileResult::Error, self.planned(Next::Await))
            }
            Ok(Err(error)) if is_conflict(&error) => {
                tracing::debug!(error = chain(&error), "worked on an outdated copy, trying again");
                (ReconcileResult::Conflict, Outcome::Failed { roll: roll() })
            }
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), ?took, "reconcile failed, trying again later");
                (ReconcileResult::Error, Outcome::Failed { roll: roll() })
            }
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                tracing::error!(
                    panic = message,
                    ?took,
                    "reconcile panicked: this is a bug; trying again later"
                );
                (ReconcileResult::Panic, Outcome::Failed { roll: roll() })
            }
        };
        shared.context.metrics.reconciled(result, took);
        outcome
    }

    fn planned(&self, next: Next) -> Outcome {
        let resync = self.shared.config.resync.mul_f64(1.0 - 0.1 * roll());
        match next {
            Next::Await => Outcome::Done { at: None, after: Some(resync) },
            Next::At(at) => Outcome::Done { at: Some(at), after: Some(resync) },
            Next::After(after) => Outcome::Done { at: None, after: Some(after.min(resync)) },
        }
    }
}
