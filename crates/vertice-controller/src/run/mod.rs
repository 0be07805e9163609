//! The run loop of a controller.
//!
//! kube's own `Controller` is not used, its watchers and caches are: its scheduler runs on tokio's timer (tests could not move
//! the clock past a cron entry without stopping real I/O), its debounce can put an object off for ever, its concurrency is
//! unbounded by default, one panic ends it, and its caches cannot stay warm in a replica that waits for the lease.

mod driver;
mod key;
mod queue;
mod watch;

use std::{
    error::Error,
    fmt::{self, Debug},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, runtime::reflector::Store};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use self::{driver::Shared, queue::Queue};
pub use self::{
    driver::Worker,
    key::ObjectKey,
    watch::{MetadataWatch, SharedWatch, Source, Watch},
};
use crate::{
    apply::Applier, backoff::Backoff, clock::SharedClock, events::Events, metrics::ControllerMetrics,
    readiness::Readiness,
};

/// When to look at an object again if nothing happens to it or to what it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Not before something changes (and at the slow safety resync).
    Await,
    /// At an instant of the wall clock, for example when a schedule fires.
    At(Timestamp),
    /// After a while.
    After(Duration),
}

/// What one controller does with one object.
pub trait Reconciler: Send + Sync + 'static {
    /// The kind that is reconciled.
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static;
    /// Why a reconcile may fail. Its text and causes are logged.
    type Error: Error + Send + Sync + 'static;

    /// The controller's name in metrics and logs, for example `backup`.
    const NAME: &'static str;

    /// Brings the world closer to what `object` asks for. An error is retried with exponential backoff; what no retry can
    /// mend (an invalid spec) belongs into a condition, with [`Next::Await`].
    fn reconcile(
        &self,
        object: Arc<Self::Object>,
        context: &Context,
    ) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// The object no longer exists. Everything in the cluster has to go by owner references or finalizers; this is for what is
    /// held in memory.
    fn gone(&self, key: &ObjectKey) {
        let _ = key;
    }
}

/// What a reconciler works with.
#[derive(Clone)]
pub struct Context {
    /// The API server. Writes are counted, bounded in time, and refused once the lease is lost.
    pub client: kube::Client,
    /// The time.
    pub clock: SharedClock,
    /// Writes objects and status.
    pub applier: Applier,
    /// Tells people.
    pub events: Events,
    /// The controller's own metrics.
    pub metrics: ControllerMetrics,
}

impl Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("clock", &self.clock)
            .field("applier", &self.applier)
            .finish_non_exhaustive()
    }
}

/// How a controller runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many objects are reconciled at once. 4.
    pub concurrency: usize,
    /// How long events of one object are collected from the first one on before it is reconciled. 50 ms.
    pub debounce: Duration,
    /// How long a failed object waits.
    pub backoff: Backoff,
    /// How often every object is looked at although nothing happened, minus up to a tenth: a net below the watches. 30 minutes.
    pub resync: Duration,
    /// How long running reconciles may go on after a stop was asked for. 20 s.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 4,
            debounce: Duration::from_millis(50),
            backoff: Backoff::default(),
            resync: Duration::from_mins(30),
            grace: Duration::from_secs(20),
        }
    }
}

/// A controller: a reconciler with its caches, ready to run. Hand it to [`crate::manager::Manager::controller`], or
/// [`Controller::split`] it to drive both halves yourself.
pub struct Controller<R: Reconciler> {
    shared: Arc<Shared<R>>,
    watches: Vec<BoxFuture<'static, ()>>,
    readiness: Readiness,
}

impl<R: Reconciler> Debug for Controller<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("name", &R::NAME)
            .field("watches", &self.watches.len())
            .finish_non_exhaustive()
    }
}

impl<R: Reconciler> Controller<R> {
    /// A controller for all objects in `watch`. Changes of their status do not wake it (it writes the status itself).
    #[must_use]
    pub fn new(
        reconciler: R,
        watch: Watch<R::Object>,
        context: Context,
        config: Config,
        readiness: &Readiness,
    ) -> Self {
        let queue = Queue::new(config.debounce, config.backoff);
        let shared = Arc::new(Shared {
            reconciler,
            store: watch.store(),
            ready: Mutex::new(Vec::new()),
            queue: Mutex::new(queue),
            wake: Notify::new(),
            context,
            config,
        });
        let mut controller = Self { shared, watches: Vec::new(), readiness: readiness.clone() };
        controller.watch(watch.into(), watch::intent_change, |object| vec![ObjectKey::of(object)]);
        controller
    }

    /// Reconciles the owner whenever an object that it controls (`ownerReferences` with `controller: true`) changes in any way.
    #[must_use]
    pub fn owns<K>(mut self, watch: impl Into<Source<K>>) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.watch(watch.into(), watch::any_change, owners::<R::Object, K>);
        self
    }

    /// Reconciles the objects that `map` names whenever an object in `watch` changes in any way.
    #[must_use]
    pub fn watches<K, F>(mut self, watch: impl Into<Source<K>>, map: F) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        F: Fn(&K) -> Vec<ObjectKey> + Send + Sync + 'static,
    {
        self.watch(watch.into(), watch::any_change, map);
        self
    }

    /// Like [`Self::watches`], but not for a change of the status alone: for kinds whose spec is what matters, such as the workloads
    /// that a name leads to.
    #[must_use]
    pub fn watches_intent<K, F>(mut self, watch: impl Into<Source<K>>, map: F) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        F: Fn(&K) -> Vec<ObjectKey> + Send + Sync + 'static,
    {
        self.watch(watch.into(), watch::intent_change, map);
        self
    }

    /// Keeps a cache up to date that the reconciler only reads.
    #[must_use]
    pub fn reads<K>(self, watch: impl Into<Source<K>>) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.watches(watch, |_| Vec::new())
    }

    /// The cache of the reconciled kind.
    #[must_use]
    pub fn store(&self) -> Store<R::Object> {
        self.shared.store.clone()
    }

    /// The two halves: a future that keeps the caches (runs in every replica, so that a new leader starts warm), and the
    /// worker that reconciles (runs in the leader only, and may run again after it was stopped).
    #[must_use]
    pub fn split(self) -> (BoxFuture<'static, ()>, Worker<R>) {
        let watches = self.watches;
        let caches = Box::pin(async move {
            futures::future::join_all(watches).await;
        });
        (caches, Worker::new(self.shared))
    }

    fn watch<K, F>(&mut self, source: Source<K>, changed: fn(&K, &K) -> bool, map: F)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        F: Fn(&K) -> Vec<ObjectKey> + Send + Sync + 'static,
    {
        let (cache, own) = match source {
            Source::Own(watch) => (watch.share(), Some(watch)),
            Source::Shared(cache) => (cache, None),
        };
        self.shared.await_cache(cache.filled());
        let shared = Arc::clone(&self.shared);
        cache.listen(changed, move |change| {
            // Both sides: an object that changes hands wakes the old owner and the new one.
            let keys = change.before.into_iter().chain(change.after).flat_map(&map);
            shared.trigger(keys);
        });
        if let Some(watch) = own {
            let manager = self.shared.context.applier.manager().to_owned();
            self.watches.push(watch.run(manager, &self.readiness));
        }
    }
}

/// The object of kind `O` that controls `child`.
fn owners<O, K>(child: &K) -> Vec<ObjectKey>
where
    O: Resource<DynamicType = ()>,
    K: Resource,
{
    let metadata = child.meta();
    let owner = metadata.owner_references.iter().flatten().find(|owner| {
        // The version may be another one that the group serves.
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        owner.controller == Some(true) && owner.kind == O::kind(&()) && group == O::group(&())
    });
    let key = |owner: &OwnerReference| ObjectKey {
        namespace: metadata.namespace.clone(),
        name: owner.name.clone(),
    };
    owner.map(key).into_iter().collect()
}

#[cfg(test)]
mod tests;
