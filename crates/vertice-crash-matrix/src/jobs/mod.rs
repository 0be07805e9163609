//! What kube-controller-manager and the kubelet would do, at an API server without nodes and by the injected clock: CronJobs fire,
//! Jobs get pods, pods run the agent as a process, and what nobody owns any more is deleted.

mod cronjob;
mod gc;
mod job;
mod kubelet;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use snafu::ResultExt as _;
use vertice_controller::Clock as _;

pub(crate) use self::cronjob::from_template;
pub(crate) use self::kubelet::{Agent, Carried, Kubelet, secrets};
use crate::error::{ApiSnafu, Result, ShapeSnafu};
use crate::hub::Hub;
use crate::world::World;

/// The operator sees one step before the next one happens when nothing went on for so long; by itself that is no part of any
/// verdict, it only makes the same points appear in every run.
const PACE: Duration = Duration::from_millis(50);
/// Longer than any step takes: an operator that never rests must not hold the cluster up.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the controllers and the kubelet work with.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) world: Arc<World>,
    pub(crate) hub: Arc<Hub>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Any kind of object in a namespace.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Runs the controllers until dropped. Returns only when one of them cannot go on.
pub(crate) async fn run(cluster: Cluster) -> Result<()> {
    let mut changes = cluster.world.changes();
    loop {
        changes.borrow_and_update();
        let did = {
            let _working = cluster.hub.working();
            step(&cluster).await?
        };
        if !did && changes.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Does one thing, if there is one to do.
async fn step(cluster: &Cluster) -> Result<bool> {
    if gc::collect(cluster).await? {
        return Ok(true);
    }
    for cronjob in cluster.world.cronjobs.state() {
        if cronjob::sync(cluster, &cronjob).await? {
            return Ok(true);
        }
    }
    let mut jobs = cluster.world.jobs.state();
    jobs.sort_by_key(|job| job.name_any());
    for job in jobs {
        if job::sync(cluster, &job).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Cluster {
    pub(crate) fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The injected time, as `metav1.Time` has it.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.hub.clock.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// Lets the operator finish what it is at.
    pub(crate) async fn pace(&self) {
        self.rest(PACE).await;
    }

    /// Waits until nothing has happened for so long, though not for ever.
    async fn rest(&self, window: Duration) {
        let began = Instant::now();
        while !self.hub.is_still(window) && began.elapsed() < PATIENCE {
            tokio::time::sleep(PACE / 5).await;
        }
    }

    /// Makes an object, and waits until our own caches have it. One that exists already is fine.
    async fn create<K: Object>(&self, store: &Store<K>, object: Value) -> Result<()> {
        let kind = K::kind(&());
        let object: K = serde_json::from_value(object).context(ShapeSnafu { what: kind.clone() })?;
        let name = object.name_any();
        match self.api().create(&PostParams::default(), &object).await {
            Ok(made) => self.caught_up(store, &made).await,
            Err(kube::Error::Api(status)) if status.code == 409 => self.changed_since(store, &name).await,
            Err(error) => Err(error).context(ApiSnafu { doing: format!("make {kind} {name}") })?,
        }
        self.pace().await;
        Ok(())
    }

    /// Changes the status of the very version that was seen; somebody else's change makes it nothing, and is looked at anew.
    async fn status<K: Object>(&self, store: &Store<K>, seen: &K, status: Value) -> Result<()> {
        let name = seen.name_any();
        let metadata = serde_json::json!({"resourceVersion": seen.resource_version(), "uid": seen.uid()});
        let patch = serde_json::json!({"metadata": metadata, "status": status});
        let patched =
            self.api::<K>().patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match patched {
            Ok(changed) => self.caught_up(store, &changed).await,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.moved_on(store, seen).await;
            }
            Err(error) => {
                let doing = format!("change the status of {} {name}", K::kind(&()));
                return Err(error).context(ApiSnafu { doing });
            }
        }
        self.pace().await;
        Ok(())
    }

    /// Deletes this very object, at once.
    async fn delete<K: Object>(&self, store: &Store<K>, object: &K) -> Result<()> {
        let name = object.name_any();
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
            ..DeleteParams::background()
        };
        match self.api::<K>().delete(&name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                return Err(error).context(ApiSnafu { doing: format!("delete {} {name}", K::kind(&())) });
            }
        }
        self.until(|| self.world.get(store, &name).is_none_or(|found| found.uid() != object.uid())).await;
        self.pace().await;
        Ok(())
    }

    /// Waits until a CronJob that was just made is as old as the injected clock says, see [`cronjob`].
    pub(crate) async fn settled_in(&self, name: &str) {
        let there = || self.world.get(&self.world.cronjobs, name);
        self.until(|| there().is_some_and(|made| cronjob::fired_before(self, &made).is_none())).await;
    }

    async fn caught_up<K: Object>(&self, store: &Store<K>, made: &K) {
        let (name, wanted) = (made.name_any(), version(made));
        let has = |found: Arc<K>| version(&*found) >= wanted || found.uid() != made.uid();
        self.until(|| self.world.get(store, &name).is_some_and(has)).await;
    }

    async fn moved_on<K: Object>(&self, store: &Store<K>, seen: &K) {
        let (name, old) = (seen.name_any(), version(seen));
        self.until(|| self.world.get(store, &name).is_none_or(|found| version(&*found) != old)).await;
    }

    async fn changed_since<K: Object>(&self, store: &Store<K>, name: &str) {
        self.until(|| self.world.get(store, name).is_some()).await;
    }

    /// Waits until our own caches are as `look` wants them, or for a while: then the controllers look again anyway.
    pub(crate) async fn until(&self, look: impl Fn() -> bool) {
        let mut changes = self.world.changes();
        let wait = async {
            while !look() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, wait).await;
    }
}

/// Versions grow (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Whether an object is controlled by the one with this UID.
fn is_controlled_by<K: Resource>(object: &K, uid: Option<&str>) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}
