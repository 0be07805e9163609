//! Caches, and what in them wakes a controller.
//!
//! kube's predicates work on a stream of objects and can swallow a deletion (the generation does not change). Here an event is
//! compared with the cached object instead: a deletion always counts, also one that only shows as an object missing from a
//! list after the watch was cut; an object that is listed again unchanged never does.

use std::{
    collections::HashSet,
    fmt::{self, Debug},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{Store, store::Writer},
        watcher::{self, InitialListStrategy, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::ObjectKey;
use crate::{
    apply,
    backoff::WatchBackoff,
    mutant::{self, Mutant},
    readiness::{Gate, Readiness},
    text::chain,
};

/// For how long a watch is opened. Not longer than an API server lets one be that does not say it.
const LIFETIME_SECONDS: Range<u32> = 1500..1800;

/// Objects of a page of a list, at the most.
const PAGE: u32 = 200;

/// A cache of one kind that is kept up to date by a watch. For kinds whose spec and status do not matter, watch
/// `PartialObjectMeta<K>`: the API server then sends metadata only.
pub struct Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    listeners: Listeners<K>,
    filled: CancellationToken,
}

/// What hears of the changes in a cache.
struct Listener<K> {
    changed: fn(&K, &K) -> bool,
    wakes: Wakes<K>,
}

type Wakes<K> = Box<dyn Fn(Change<'_, K>) + Send>;
type Listeners<K> = Arc<Mutex<Vec<Listener<K>>>>;

/// A cache that another controller of the process keeps up to date, see [`Watch::share`]. Cheap to clone.
pub struct SharedWatch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store: Store<K>,
    listeners: Listeners<K>,
    /// Cancelled with the first list. Not the store's own sign: of several that wait for it at once, kube wakes one.
    filled: CancellationToken,
}

impl<K> Clone for SharedWatch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            listeners: Arc::clone(&self.listeners),
            filled: self.filled.clone(),
        }
    }
}

impl<K> Debug for SharedWatch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWatch").field("kind", &kind::<K>()).finish_non_exhaustive()
    }
}

impl<K> SharedWatch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    /// The cache, for reading. It fills once the controller runs that has the watch.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Is cancelled once the cache is filled.
    pub(crate) fn filled(&self) -> CancellationToken {
        self.filled.clone()
    }

    /// `wakes` gets the object before and after each change that counts by `changed`. Only before the watch runs.
    pub(crate) fn listen(&self, changed: fn(&K, &K) -> bool, wakes: impl Fn(Change<'_, K>) + Send + 'static) {
        let listener = Listener { changed, wakes: Box::new(wakes) };
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }
}

/// Where a controller hears of changes: a watch of its own, or one that another controller of the process has.
#[derive(Debug)]
pub enum Source<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    /// The controller runs it.
    Own(Box<Watch<K>>),
    /// Another one does.
    Shared(SharedWatch<K>),
}

impl<K> From<Watch<K>> for Source<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn from(watch: Watch<K>) -> Self {
        Self::Own(Box::new(watch))
    }
}

impl<K> From<SharedWatch<K>> for Source<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn from(watch: SharedWatch<K>) -> Self {
        Self::Shared(watch)
    }
}

impl<K> Debug for Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("kind", &kind::<K>())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A metadata-only cache.
pub type MetadataWatch<K> = Watch<PartialObjectMeta<K>>;

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Watches what `config` selects. Keep the selector narrow: what is not selected is neither sent nor held. Unless `config` says
    /// for how long a watch is opened, it is for about half an hour; kube's 290 s would be most of what an idle operator asks for.
    #[must_use]
    pub fn new(api: Api<K>, mut config: watcher::Config) -> Self {
        // Not all at once: they are opened together.
        config.timeout.get_or_insert_with(|| rand::random_range(LIFETIME_SECONDS));
        // What a list takes while it is read is many times what is kept of it.
        config.page_size = config.page_size.map(|size| size.min(PAGE));
        Self {
            api,
            config,
            writer: Writer::default(),
            listeners: Arc::default(),
            filled: CancellationToken::new(),
        }
    }

    /// The cache, for reading. It fills once the controller runs.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        self.writer.as_reader()
    }

    /// For a second controller of the process: objects are then watched and held once. Of `managedFields` they have what the
    /// controller that runs the watch applied.
    #[must_use]
    pub fn share(&self) -> SharedWatch<K> {
        SharedWatch {
            store: self.store(),
            listeners: Arc::clone(&self.listeners),
            filled: self.filled.clone(),
        }
    }

    /// Runs the watch for ever. `manager`'s entry in `managedFields` is kept.
    pub(crate) fn run(mut self, manager: String, readiness: &Readiness) -> BoxFuture<'static, ()> {
        let kind = kind::<K>();
        let gate = readiness
            .gate(format!("{manager}: watch {kind}"), format!("waiting for the first list of {kind}"));
        Box::pin(async move {
            let store = self.store();
            let listeners =
                std::mem::take(&mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner));
            let mut listed = HashSet::new();
            let mut filled = false;
            let open = |config: &watcher::Config| {
                watcher(self.api.clone(), config.clone()).backoff(WatchBackoff::new()).boxed()
            };
            let mut events = open(&self.config);
            while let Some(event) = events.next().await {
                let event = match event {
                    Err(error) if cannot_stream(&error, &self.config) => {
                        tracing::info!(kind, "the API server does not stream lists; asking for pages");
                        self.config.initial_list_strategy = InitialListStrategy::ListWatch;
                        events = open(&self.config);
                        continue;
                    }
                    Ok(event) => event.modify(|object| apply::prune(object.meta_mut(), &manager)),
                    Err(error) => {
                        report(&error, &kind, &gate, filled);
                        continue;
                    }
                };
                let known = |object: &K| store.get(&kube::runtime::reflector::ObjectRef::from_obj(object));
                // Wakes come after the cache was changed, so that a reconcile cannot run on what was before.
                match &event {
                    watcher::Event::Apply(object) => {
                        let before = known(object);
                        self.writer.apply_watcher_event(&event);
                        wake_if(before.as_deref(), object, &listeners);
                        gate.ready();
                    }
                    watcher::Event::Delete(_) if mutant::on(Mutant::DeletionIgnored) => {}
                    watcher::Event::Delete(object) => {
                        self.writer.apply_watcher_event(&event);
                        wake(&listeners, Some(object), None);
                    }
                    watcher::Event::Init => {
                        listed.clear();
                        self.writer.apply_watcher_event(&event);
                    }
                    watcher::Event::InitApply(object) => {
                        listed.insert(ObjectKey::of(object));
                        self.writer.apply_watcher_event(&event);
                    }
                    watcher::Event::InitDone => {
                        let before = store.state();
                        self.writer.apply_watcher_event(&event);
                        relisted(&before, &std::mem::take(&mut listed), &store, &listeners);
                        filled = true;
                        self.filled.cancel();
                        gate.ready();
                    }
                }
            }
        })
    }
}

/// An object before and after a change; one of them is missing when it is new or gone.
#[derive(Debug)]
pub(crate) struct Change<'a, K> {
    pub(crate) before: Option<&'a K>,
    pub(crate) after: Option<&'a K>,
}

fn wake<K>(listeners: &[Listener<K>], before: Option<&K>, after: Option<&K>) {
    for listener in listeners {
        (listener.wakes)(Change { before, after });
    }
}

fn wake_if<K>(before: Option<&K>, after: &K, listeners: &[Listener<K>]) {
    for listener in listeners {
        if before.is_none_or(|before| (listener.changed)(before, after)) {
            (listener.wakes)(Change { before, after: Some(after) });
        }
    }
}

/// Compares the cache before and after a new list: what differs, what is new, and what is no longer there.
fn relisted<K>(before: &[Arc<K>], listed: &HashSet<ObjectKey>, store: &Store<K>, listeners: &[Listener<K>])
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let known: std::collections::HashMap<_, _> =
        before.iter().map(|old| (ObjectKey::of(old.as_ref()), old)).collect();
    for (key, old) in &known {
        if !listed.contains(key) && !mutant::on(Mutant::RelistedDeletionIgnored) {
            wake(listeners, Some(old), None);
        }
    }
    for object in store.state() {
        let before = known.get(&ObjectKey::of(object.as_ref())).map(|old| &***old);
        wake_if(before, &*object, listeners);
    }
}

/// Whether anything changed; for kinds whose status matters.
pub(crate) fn any_change<K: Resource>(before: &K, after: &K) -> bool {
    let (before, after) = (before.meta(), after.meta());
    before.resource_version != after.resource_version || before.uid != after.uid
}

/// Whether anything but the status changed; for the kind that is reconciled, whose status is written by the controller itself.
pub(crate) fn intent_change<K: Resource>(before: &K, after: &K) -> bool {
    let (before, after) = (before.meta(), after.meta());
    if after.generation.is_none() {
        return before.resource_version != after.resource_version;
    }
    let intent = |meta: &ObjectMeta| {
        (
            meta.uid.clone(),
            meta.generation.filter(|_| !mutant::on(Mutant::GenerationIgnored)),
            meta.deletion_timestamp.clone(),
            meta.labels.clone(),
            meta.annotations.clone(),
        )
    };
    intent(before) != intent(after) || before.finalizers != after.finalizers
}

/// A kind as people name it: `verticebackups.vertice.io`, `pods`.
pub(crate) fn kind<K: Resource<DynamicType = ()>>() -> String {
    let (plural, group) = (K::plural(&()), K::group(&()));
    if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") }
}

/// Whether the API server refused to begin a watch with the list, as versions before 1.34 may.
fn cannot_stream(error: &watcher::Error, config: &watcher::Config) -> bool {
    config.initial_list_strategy == InitialListStrategy::StreamingList
        && matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

/// Logs why a watch does not work, and says what is waited for until there is a list again.
///
/// A cache that is `filled` is not waited for when only its watch cannot be opened: an opened watch says nothing until an object
/// changes, so nobody would learn of the recovery here. The client does, see [`crate::client::Options::watches`].
fn report(error: &watcher::Error, kind: &str, gate: &Gate, filled: bool) {
    use watcher::Error as E;
    if filled && matches!(error, E::WatchStartFailed(_)) {
        tracing::warn!(kind, error = chain(error), "cannot watch; the cache stays as it was");
        return;
    }
    let status = match error {
        E::InitialListFailed(kube::Error::Api(status)) | E::WatchStartFailed(kube::Error::Api(status)) => {
            status
        }
        // Cut watches are normal and are taken up again from where they broke off.
        E::WatchFailed(_) | E::WatchError(_) => {
            tracing::debug!(kind, error = chain(error), "watch cut, taking it up again");
            return;
        }
        _ => {
            tracing::warn!(kind, error = chain(error), "cannot watch");
            gate.wait(format!("cannot list {kind}: {}", chain(error)));
            return;
        }
    };
    tracing::warn!(kind, error = chain(error), "cannot watch");
    gate.wait(match status.code {
        404 => format!("waiting for CustomResourceDefinition {kind}"),
        403 => format!("not allowed to list {kind}: {}", status.message),
        _ => format!("cannot list {kind}: {}", status.message),
    });
}

#[cfg(test)]
mod tests;
