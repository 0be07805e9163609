//! One trial: a namespace with a database, the operator, a cluster that plays its part, and at most one strike.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt as _};
use rand::RngExt as _;
use serde_json::{Value, json};
use snafu::{ResultExt as _, ensure};
use tokio::task::JoinSet;
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};
use vertice_controller::ManualClock;

use crate::error::{ApiSnafu, Result, ShapeSnafu, StuckSnafu};
use crate::fault::Strike;
use crate::ground::{Ground, OPERATORS, Slot};
use crate::hub::{Hub, Victim, advance_to};
use crate::jobs::{self, Agent, Cluster, Kubelet, Object};
use crate::operator::Operator;
use crate::people::Upset;
use crate::postgres::{DATABASE, Postgres};
use crate::proxy::Proxy;
use crate::world::World;

/// How long a story waits for anything, by the machine's clock.
const SOON: Duration = Duration::from_secs(20);
/// Nothing happens any more when nothing happened for so long.
const QUIET: Duration = Duration::from_millis(80);
/// When nothing happens for so long and a story still waits, time passes by the injected clock.
const IDLE: Duration = Duration::from_millis(400);
/// Waits of at most so much pass while a story waits; longer ones are the stories' own.
const NEAR: Duration = Duration::from_mins(6);

/// One trial under way.
#[derive(Debug)]
pub struct Trial<'a> {
    /// The namespace.
    pub namespace: String,
    /// The user that the operator is, for the audit log.
    pub user: String,
    /// What was asked and what was struck.
    pub hub: Arc<Hub>,
    pub(crate) ground: &'a Ground,
    pub(crate) cluster: Cluster,
    pub(crate) world: Arc<World>,
    pub(crate) kubelet: Arc<Kubelet>,
    slot: Slot<'a>,
    parts: Arc<Parts>,
    /// The hash of what the database held before it was damaged: what backups must hold.
    content: Mutex<String>,
    _proxy: Proxy,
    _tasks: JoinSet<()>,
}

/// What is replaced or may fail while a trial goes on.
struct Parts {
    config: kube::Config,
    /// The seeded fault of the operator, if it has one.
    mutant: Option<String>,
    operator: tokio::sync::Mutex<Option<Operator>>,
    reconciles_before: Mutex<u64>,
    panics: Mutex<u64>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl<'a> Trial<'a> {
    /// Sets one up and starts the operator.
    pub async fn begin(
        ground: &'a Ground,
        strike: Option<Strike>,
        mutant: Option<String>,
    ) -> Result<Trial<'a>> {
        let slot = ground.slot().await?;
        let namespace = format!("crash-{:08x}", rand::rng().random::<u32>());
        let user = format!("operator-of-{namespace}");
        let hub = Hub::new(ManualClock::new(ground.epoch), strike);
        furnish(ground, &namespace).await?;
        let proxy = Proxy::start(&hub, ground.gateway.port).await?;
        let world = Arc::new(World::watch(&ground.client, &namespace, &hub));
        let cluster = Cluster {
            client: ground.client.clone(),
            namespace: namespace.clone(),
            world: Arc::clone(&world),
            hub: Arc::clone(&hub),
        };
        let agent = Agent {
            program: ground.agent.clone(),
            postgres: slot.postgres()?.port,
            store: proxy.port,
            mutant: mutant.clone(),
        };
        let kubelet = Arc::new(Kubelet::new(cluster.clone(), agent));
        let mut config = ground.config.clone();
        config.auth_info.impersonate = Some(user.clone());
        config.auth_info.impersonate_groups = Some(vec![OPERATORS.to_owned()]);
        let parts = Arc::new(Parts {
            config,
            mutant: mutant.clone(),
            operator: tokio::sync::Mutex::default(),
            reconciles_before: Mutex::default(),
            panics: Mutex::default(),
        });
        let tasks = tasks(&cluster, &kubelet, &parts);
        let started = Operator::start(parts.config.clone(), &cluster, mutant)?;
        *parts.operator.lock().await = Some(started);
        let content = slot.postgres()?.hash(DATABASE).await?;
        Ok(Self {
            namespace,
            user,
            hub,
            ground,
            cluster,
            world,
            kubelet,
            slot,
            parts,
            content: Mutex::new(content),
            _proxy: proxy,
            _tasks: tasks,
        })
    }

    /// The trial's database server.
    pub(crate) fn postgres(&self) -> Result<&Postgres> {
        self.slot.postgres()
    }

    /// Changes the database before it is backed up.
    pub(crate) async fn change_content(&self, sql: &str) -> Result<()> {
        self.postgres()?.sql(DATABASE, sql).await?;
        *lock(&self.content) = self.postgres()?.hash(DATABASE).await?;
        Ok(())
    }

    /// The hash of what backups must hold.
    pub(crate) fn content(&self) -> String {
        lock(&self.content).clone()
    }

    /// Ends the operator.
    pub(crate) async fn end(&self) {
        if let Some(operator) = self.parts.operator.lock().await.take() {
            *lock(&self.parts.panics) += operator.panics();
            operator.kill().await;
        }
    }

    /// Reconciles that ended, over all lives of the operator.
    pub(crate) async fn reconciles(&self) -> u64 {
        let before = *lock(&self.parts.reconciles_before);
        before + self.parts.operator.lock().await.as_ref().map_or(0, Operator::reconciles)
    }

    /// Reconciles that panicked.
    pub(crate) async fn panics(&self) -> u64 {
        let before = *lock(&self.parts.panics);
        before + self.parts.operator.lock().await.as_ref().map_or(0, Operator::panics)
    }

    /// Makes an object, as a person would.
    pub(crate) async fn create<K: Object>(&self, object: Value) -> Result<K> {
        let kind = K::kind(&());
        let object: K = serde_json::from_value(object).context(ShapeSnafu { what: kind.clone() })?;
        self.hub.stir();
        let doing = || format!("make {kind} {}", object.name_any());
        let made = self.cluster.api::<K>().create(&PostParams::default(), &object).await;
        made.with_context(|_| ApiSnafu { doing: doing() })
    }

    /// Changes an object, as `kubectl patch` would.
    pub(crate) async fn patch<K: Object>(&self, name: &str, patch: Value) -> Result<K> {
        self.hub.stir();
        let patched =
            self.cluster.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.with_context(|_| ApiSnafu { doing: format!("change {} {name}", K::kind(&())) })
    }

    /// Deletes an object, as `kubectl delete` would, and waits until it is gone.
    pub(crate) async fn delete<K: Object>(&self, store: &Store<K>, name: &str) -> Result<()> {
        self.hub.stir();
        let deleted = self.cluster.api::<K>().delete(name, &DeleteParams::background()).await;
        deleted.with_context(|_| ApiSnafu { doing: format!("delete {} {name}", K::kind(&())) })?;
        self.until(store, name, "is gone", |found| found.is_none()).await.map(drop)
    }

    /// Starts a run by hand, as `kubectl create job --from=cronjob/…` does.
    pub(crate) async fn run_now(&self, cronjob: &str, name: &str) -> Result<()> {
        let found = self.until(&self.world.cronjobs, cronjob, "is there", |found| found.is_some()).await?;
        let Some(found) = found else { return Ok(()) };
        let mut job = jobs::from_template(&found, name);
        job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] = "manual".into();
        self.create::<Job>(job).await.map(drop)
    }

    /// Waits until a VerticeBackup is as `done` wants it.
    pub(crate) async fn backup(
        &self,
        name: &str,
        what: &str,
        done: impl Fn(&VerticeBackup) -> bool,
    ) -> Result<()> {
        self.until(&self.world.backups, name, what, |found| found.is_some_and(&done)).await.map(drop)
    }

    /// Waits until a VerticeRestore is as `done` wants it.
    pub(crate) async fn restore(
        &self,
        name: &str,
        what: &str,
        done: impl Fn(&VerticeRestore) -> bool,
    ) -> Result<()> {
        self.until(&self.world.restores, name, what, |found| found.is_some_and(&done)).await.map(drop)
    }

    /// Waits until an object is as `done` wants it.
    pub(crate) async fn until<K: Object>(
        &self,
        store: &Store<K>,
        name: &str,
        what: &str,
        done: impl Fn(Option<&K>) -> bool,
    ) -> Result<Option<Arc<K>>> {
        let began = Instant::now();
        let mut changes = self.world.changes();
        loop {
            changes.borrow_and_update();
            let found = self.world.get(store, name);
            if done(found.as_deref()) {
                return Ok(found);
            }
            self.check_parts()?;
            let last = found.map_or("nothing".to_owned(), |found| json!(*found)["status"].to_string());
            let what = format!("{} {name} {what}", K::kind(&()));
            ensure!(began.elapsed() < SOON, StuckSnafu { what, waited: SOON, last });
            let _ = tokio::time::timeout(QUIET, changes.changed()).await;
            let waits = !self.hub.is_quiet(IDLE) || self.pass_near();
            // What it waits for may be lost with an object: what the trial comes to is for the oracles.
            let is_lost = |upset: Upset| upset.fault.remakes() || !upset.cut.is_empty();
            if !waits && self.hub.upset().is_some_and(is_lost) {
                return Ok(self.world.get(store, name));
            }
        }
    }

    /// Lets the nearest wait pass, if it is near.
    fn pass_near(&self) -> bool {
        let Some(wake) = self.hub.clock.next_wake().filter(|wake| *wake <= NEAR) else { return false };
        self.hub.clock.advance(wake.max(Duration::from_millis(1)));
        self.hub.stir();
        self.world.nudge();
        true
    }

    /// A story's rest: waits until nothing happens any more. Here a person may make its custom resource again.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.still().await?;
        if let Some((fault, resource)) = self.hub.rests(self.world.custom_resources()) {
            self.cluster.upset(fault, resource, None).await?;
            self.still().await?;
        }
        Ok(())
    }

    /// Waits until nothing happens any more, also not within minutes.
    pub(crate) async fn still(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.check_parts()?;
            if self.hub.is_quiet(QUIET) && !self.pass_near() {
                return Ok(());
            }
            let last = || self.hub.seen().last().map_or("nothing".to_owned(), |seen| seen.point.to_string());
            ensure!(
                began.elapsed() < SOON,
                StuckSnafu { what: "nothing happens any more", waited: SOON, last: last() }
            );
            tokio::time::sleep(QUIET / 8).await;
        }
    }

    /// The instant so many minutes after the trial's beginning.
    #[must_use]
    pub fn minute(&self, minutes: i64) -> Timestamp {
        self.ground.epoch.saturating_add(SignedDuration::from_mins(minutes)).unwrap_or(self.ground.epoch)
    }

    /// Sets the injected clock to so many minutes after the trial's beginning.
    pub fn at(&self, minutes: i64) {
        self.hub.stir();
        advance_to(&self.hub.clock, self.minute(minutes));
        self.world.nudge();
    }

    /// Lets time pass by the injected clock.
    pub(crate) fn pass(&self, by: Duration) {
        self.hub.stir();
        self.hub.clock.advance(by);
        self.world.nudge();
    }

    fn check_parts(&self) -> Result<()> {
        self.hub.broken().map_or(Ok(()), Err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What goes on beside a story.
fn tasks(cluster: &Cluster, kubelet: &Arc<Kubelet>, parts: &Arc<Parts>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&cluster.hub).tick());
    let (owned, hub) = (cluster.clone(), Arc::clone(&cluster.hub));
    tasks.spawn(async move {
        if let Err(error) = jobs::run(owned).await {
            hub.breaks(error);
        }
    });
    let (owned, hub) = (Arc::clone(kubelet), Arc::clone(&cluster.hub));
    tasks.spawn(async move {
        if let Err(error) = owned.run().await {
            hub.breaks(error);
        }
    });
    let (cluster, kubelet, parts) = (cluster.clone(), Arc::clone(kubelet), Arc::clone(parts));
    tasks.spawn(async move {
        loop {
            match cluster.hub.next_victim().await {
                Victim::Agent => kubelet.kill(),
                Victim::Operator => {
                    if let Err(error) = restart(&cluster, &parts).await {
                        cluster.hub.breaks(error);
                    }
                }
            }
        }
    });
    tasks
}

/// Kills the operator and starts it again.
async fn restart(cluster: &Cluster, parts: &Parts) -> Result<()> {
    let _working = cluster.hub.working();
    let mut operator = parts.operator.lock().await;
    if let Some(killed) = operator.take() {
        *lock(&parts.reconciles_before) += killed.reconciles();
        *lock(&parts.panics) += killed.panics();
        killed.kill().await;
    }
    let (config, mutant) = (parts.config.clone(), parts.mutant.clone());
    *operator = Some(Operator::start(config, cluster, mutant)?);
    Ok(())
}

/// A namespace with a database, and the Secrets that runs need.
async fn furnish(ground: &Ground, namespace: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(ground.client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": namespace}}));
    let object = object.context(ShapeSnafu { what: "Namespace" })?;
    let made = namespaces.create(&PostParams::default(), &object).await;
    made.context(ApiSnafu { doing: "make a namespace" })?;
    // What kube-controller-manager would make; pods are not admitted without.
    put::<ServiceAccount>(ground, namespace, json!({"metadata": {"name": "default"}})).await?;
    for secret in jobs::secrets() {
        put::<Secret>(ground, namespace, secret).await?;
    }
    let service = json!({
        "metadata": {"name": "db"},
        // Without an address of its own: the range of a small cluster ends after 250.
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "postgres", "port": 5432}]},
    });
    put::<Service>(ground, namespace, service).await?;
    let workload = json!({
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "server", "image": "postgres:15.18"}]},
            },
        },
    });
    put::<StatefulSet>(ground, namespace, workload).await
}

async fn put<K: Object>(ground: &Ground, namespace: &str, object: Value) -> Result<()> {
    let kind = K::kind(&());
    let object: K = serde_json::from_value(object).context(ShapeSnafu { what: kind.clone() })?;
    let api = Api::<K>::namespaced(ground.client.clone(), namespace);
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).context(ApiSnafu { doing: format!("make {kind}") }),
    }
}
