//! What all trials stand on: one API server, one S3 gateway, and a PostgreSQL for each trial that runs at the same time.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use snafu::{ResultExt as _, ensure};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{ApiSnafu, IoSnafu, KubeconfigSnafu, Result, ShapeSnafu, StuckSnafu};
use crate::gateway::Gateway;
use crate::postgres::{self, Postgres};

/// The group of the users that operators under trial are.
pub const OPERATORS: &str = "crash-matrix-operators";
const ESTABLISHED: Duration = Duration::from_secs(30);
/// Full hours between now and a trial's beginning.
const HOURS_AHEAD: i64 = 2;

/// Where the ground's parts are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of an administrator of an API server without kube-controller-manager.
    pub kubeconfig: PathBuf,
    /// Where that API server writes its audit log, if it does.
    pub audit_log: Option<PathBuf>,
    /// The S3 gateway's program.
    pub versitygw: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
    /// How many trials run at once.
    pub parallel: usize,
}

/// The ground. Dropping it ends its servers.
pub struct Ground {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) gateway: Gateway,
    pub(crate) agent: PathBuf,
    /// When every trial begins, by the injected clock: a full hour that the machine's own clock does not reach, so that what the API
    /// server dates by that one always lies before.
    pub epoch: Timestamp,
    /// Where the API server writes its audit log, if it does.
    pub audit_log: Option<PathBuf>,
    slots: Mutex<Vec<Postgres>>,
    free: Semaphore,
    _folder: TempDir,
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("server", &self.config.cluster_url).finish_non_exhaustive()
    }
}

/// A PostgreSQL that one trial has for itself; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    postgres: Option<Postgres>,
    ground: &'a Ground,
    _permit: SemaphorePermit<'a>,
}

impl Ground {
    /// Starts the servers and prepares the API server.
    pub async fn start(options: Options) -> Result<Self> {
        let folder = tempfile::tempdir().context(IoSnafu { action: "make", path: "a temporary folder" })?;
        let path = &options.kubeconfig;
        let kubeconfig = Kubeconfig::read_from(path).context(KubeconfigSnafu { path })?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.context(KubeconfigSnafu { path })?;
        // The API server is on this machine: a proxy of the environment does not know it.
        config.proxy_url = None;
        let client = Client::try_from(config.clone());
        let client = client.context(ApiSnafu { doing: "make a client for the API server" })?;
        let gateway = Gateway::start(&options.versitygw, folder.path()).await?;
        let template = postgres::prepare(folder.path()).await?;
        let mut slots = Vec::new();
        for number in 0..options.parallel.max(1) {
            slots.push(Postgres::start(folder.path(), &template, &format!("postgres-{number}")).await?);
        }
        let ground = Self {
            config,
            client,
            gateway,
            agent: options.agent,
            epoch: epoch(Timestamp::now()),
            audit_log: options.audit_log,
            free: Semaphore::new(slots.len()),
            slots: Mutex::new(slots),
            _folder: folder,
        };
        ground.prepare().await?;
        Ok(ground)
    }

    /// The kinds, and the rights of the chart's ClusterRole for whoever is in the group of operators.
    async fn prepare(&self) -> Result<()> {
        for crd in vertice_api::crds() {
            self.apply::<CustomResourceDefinition>(json!(crd)).await?;
        }
        for crd in vertice_api::crds() {
            self.established(&crd.name_any()).await?;
        }
        let role = json!({"metadata": {"name": OPERATORS}, "rules": vertice_backup::rbac::rules()});
        self.apply::<ClusterRole>(role).await?;
        let binding = json!({
            "metadata": {"name": OPERATORS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OPERATORS},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": OPERATORS}],
        });
        self.apply::<ClusterRoleBinding>(binding).await
    }

    async fn apply<K>(&self, object: Value) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
        K: Resource<Scope = k8s_openapi::ClusterResourceScope>,
    {
        let what = K::kind(&()).into_owned();
        let object: K = serde_json::from_value(object).context(ShapeSnafu { what: &what })?;
        let params = PatchParams::apply("vertice-crash-matrix").force();
        let api = Api::<K>::all(self.client.clone());
        let applied = api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await;
        applied.map(drop).context(ApiSnafu { doing: format!("apply {what}") })
    }

    async fn established(&self, name: &str) -> Result<()> {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let began = std::time::Instant::now();
        loop {
            let found = api.get(name).await.context(ApiSnafu { doing: format!("read {name}") })?;
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|one| one.type_ == "Established" && one.status == "True") {
                return Ok(());
            }
            let last = format!("{conditions:?}");
            ensure!(
                began.elapsed() < ESTABLISHED,
                StuckSnafu { what: format!("{name} is established"), waited: ESTABLISHED, last }
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a free PostgreSQL and makes it fresh.
    pub(crate) async fn slot(&self) -> Result<Slot<'_>> {
        let gone = |_| StuckSnafu { what: "a free server", waited: Duration::ZERO, last: "closed" }.build();
        let permit = self.free.acquire().await.map_err(gone)?;
        let postgres = self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = Slot { postgres, ground: self, _permit: permit };
        slot.postgres()?.reset().await?;
        Ok(slot)
    }
}

/// The next full hour but a few.
fn epoch(now: Timestamp) -> Timestamp {
    let hour = 3600;
    let ahead = now.as_second() / hour * hour + HOURS_AHEAD * hour;
    Timestamp::from_second(ahead).unwrap_or(now.saturating_add(SignedDuration::from_hours(1)).unwrap_or(now))
}

impl Slot<'_> {
    pub(crate) fn postgres(&self) -> Result<&Postgres> {
        self.postgres.as_ref().ok_or_else(|| {
            StuckSnafu { what: "a free server", waited: Duration::ZERO, last: "none is left" }.build()
        })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let slots = &self.ground.slots;
        slots.lock().unwrap_or_else(PoisonError::into_inner).extend(self.postgres.take());
    }
}
