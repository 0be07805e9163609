//! What is in a trial's namespace, kept up to date by watches of the matrix's own.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};
use vertice_controller::Clock as _;

use crate::hub::Hub;

/// Caches of a namespace.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) backups: Store<VerticeBackup>,
    pub(crate) restores: Store<VerticeRestore>,
    pub(crate) cronjobs: Store<CronJob>,
    pub(crate) jobs: Store<Job>,
    pub(crate) pods: Store<Pod>,
    changes: Arc<Changes>,
    namespace: String,
    _watches: JoinSet<()>,
}

#[derive(Debug)]
struct Changes {
    count: watch::Sender<u64>,
    /// Every object that ever was, by its UID: kind and name, and when it was seen first by the injected clock.
    uids: Mutex<HashMap<String, (String, Timestamp)>>,
    hub: Arc<Hub>,
}

impl World {
    /// Begins to watch.
    pub(crate) fn watch(client: &Client, namespace: &str, hub: &Arc<Hub>) -> Self {
        let changes = Changes { count: watch::channel(0).0, uids: Mutex::default(), hub: Arc::clone(hub) };
        let changes = Arc::new(changes);
        let mut watches = JoinSet::new();
        Self {
            backups: follow(client, namespace, &changes, &mut watches),
            restores: follow(client, namespace, &changes, &mut watches),
            cronjobs: follow(client, namespace, &changes, &mut watches),
            jobs: follow(client, namespace, &changes, &mut watches),
            pods: follow(client, namespace, &changes, &mut watches),
            changes,
            namespace: namespace.to_owned(),
            _watches: watches,
        }
    }

    /// Resolves at the next change after those that were seen.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.count.subscribe()
    }

    /// Something else changed that whoever waits should look at, such as the clock.
    pub(crate) fn nudge(&self) {
        self.changes.count.send_modify(|count| *count += 1);
    }

    /// Every object that ever was, by its UID: kind and name.
    pub(crate) fn uids(&self) -> HashMap<String, String> {
        let uids = self.changes.uids.lock().unwrap_or_else(PoisonError::into_inner);
        uids.iter().map(|(uid, (name, _))| (uid.clone(), name.clone())).collect()
    }

    /// When an object was made by the injected clock.
    pub(crate) fn born(&self, uid: &str) -> Option<Timestamp> {
        let uids = self.changes.uids.lock().unwrap_or_else(PoisonError::into_inner);
        uids.get(uid).map(|(_, born)| *born)
    }

    /// The custom resources that are there, as requests name them.
    pub(crate) fn custom_resources(&self) -> Vec<&'static str> {
        let there = [
            ("verticebackups", self.backups.state().is_empty()),
            ("verticerestores", self.restores.state().is_empty()),
        ];
        there.into_iter().filter(|(_, none)| !none).map(|(resource, _)| resource).collect()
    }

    /// Whether there is a later version of an object than this one, or none at all any more. Of kinds that are not followed nothing is
    /// known.
    pub(crate) fn has_later(&self, resource: &str, name: Option<&str>, version: &str) -> bool {
        let name = name.unwrap_or_default();
        let later = |found: Option<&ObjectMeta>| {
            let number = |version: &str| version.parse::<u64>().unwrap_or_default();
            found.is_none_or(|found| {
                number(found.resource_version.as_deref().unwrap_or_default()) > number(version)
            })
        };
        match resource {
            "verticebackups" => later(self.get(&self.backups, name).as_deref().map(Resource::meta)),
            "verticerestores" => later(self.get(&self.restores, name).as_deref().map(Resource::meta)),
            "cronjobs" => later(self.get(&self.cronjobs, name).as_deref().map(Resource::meta)),
            "jobs" => later(self.get(&self.jobs, name).as_deref().map(Resource::meta)),
            "pods" => later(self.get(&self.pods, name).as_deref().map(Resource::meta)),
            _ => false,
        }
    }

    pub(crate) fn get<K>(&self, store: &Store<K>, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        store.get(&ObjectRef::new(name).within(&self.namespace))
    }
}

fn follow<K>(client: &Client, namespace: &str, changes: &Arc<Changes>, watches: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::namespaced(client.clone(), namespace), watcher::Config::default());
    let changes = Arc::clone(changes);
    watches.spawn(async move {
        let mut events = std::pin::pin!(reflector::reflector(writer, events).default_backoff());
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = &event {
                let name = format!("{} {}", K::kind(&()), object.name_any());
                let mut uids = changes.uids.lock().unwrap_or_else(PoisonError::into_inner);
                let now = changes.hub.clock.now();
                uids.entry(object.uid().unwrap_or_default()).or_insert((name, now));
            }
            changes.hub.stir();
            changes.count.send_modify(|count| *count += 1);
        }
    });
    store
}
