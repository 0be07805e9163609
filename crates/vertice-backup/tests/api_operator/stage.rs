//! A namespace of its own for each test, with a database in it, and an operator that works in this namespace only and with the
//! rights of the chart's ClusterRole only.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt as _};
use rand::RngExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};
use vertice_backup::{ManagerError, Settings};
use vertice_controller::manager::Options;
use vertice_controller::metrics::{ControllerMetrics, Metrics};

const KUBECONFIG: &str = "VERTICE_TEST_KUBECONFIG";
const SOON: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What the tests apply: any kind of object in a namespace.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
{
}

pub(crate) struct Stage {
    config: Config,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// A running operator.
pub(crate) struct Operator {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ManagerError>>,
    metrics: Metrics,
    pub(crate) backup: ControllerMetrics,
    pub(crate) restore: ControllerMetrics,
}

impl Stage {
    /// A new namespace with the database `db`.
    pub(crate) async fn set(name: &str) -> Self {
        let stage = Self::empty(name).await;
        stage
            .create::<Service>(json!({
                "metadata": {"name": "db"},
                "spec": {"selector": {"app": "db"}, "ports": [{"name": "postgres", "port": 5432}]},
            }))
            .await;
        stage
            .create::<StatefulSet>(json!({
                "metadata": {"name": "db"},
                "spec": {
                    "serviceName": "db",
                    "selector": {"matchLabels": {"app": "db"}},
                    "template": {
                        "metadata": {"labels": {"app": "db"}},
                        "spec": {"containers": [{"name": "server", "image": "postgres:15.18"}]},
                    },
                },
            }))
            .await;
        stage
    }

    /// A new namespace with nothing in it.
    pub(crate) async fn empty(name: &str) -> Self {
        let path = std::env::var(KUBECONFIG).unwrap_or_else(|_| {
            panic!("{KUBECONFIG} must name the kubeconfig of a test API server; cargo xtask test api sets it")
        });
        let kubeconfig = Kubeconfig::read_from(PathBuf::from(path)).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config.clone()).unwrap();
        let suffix: u32 = rand::rng().random();
        let namespace = format!("backup-{name}-{suffix:08x}");
        let stage = Self { config, client, namespace };
        stage.install_crds().await;
        stage.prepare_namespace().await;
        stage
    }

    async fn install_crds(&self) {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        for crd in vertice_api::crds() {
            let params = PatchParams::apply("vertice-tests").force();
            api.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await.unwrap();
            let name = crd.name_any();
            wait(&format!("{name} is established"), async || {
                let found = api.get(&name).await.unwrap();
                let conditions = found.status?.conditions?;
                conditions.iter().find(|one| one.type_ == "Established" && one.status == "True").map(|_| ())
            })
            .await;
        }
    }

    async fn prepare_namespace(&self) {
        let namespace = json!({"metadata": {"name": self.namespace}});
        create(&Api::<Namespace>::all(self.client.clone()), namespace).await;
        // What kube-controller-manager would make; pods are not admitted without.
        let account = json!({"metadata": {"name": "default"}});
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), &self.namespace);
        let account: ServiceAccount = serde_json::from_value(account).unwrap();
        match accounts.create(&PostParams::default(), &account).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("{error}"),
        }
        let role = json!({"metadata": {"name": self.namespace}, "rules": vertice_backup::rbac::rules()});
        create(&Api::<ClusterRole>::all(self.client.clone()), role).await;
        let binding = json!({
            "metadata": {"name": self.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": self.namespace},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.account()}],
        });
        create(&Api::<ClusterRoleBinding>::all(self.client.clone()), binding).await;
    }

    /// Who the operator is.
    fn account(&self) -> String {
        format!("operator-of-{}", self.namespace)
    }

    /// Starts an operator.
    pub(crate) fn operator(&self) -> Operator {
        self.operator_with(Options::default())
    }

    /// Starts an operator with a clock or an interceptor of the test's.
    pub(crate) fn operator_with(&self, options: Options) -> Operator {
        let settings = Settings {
            agent_image: "vertice-agent:test".to_owned(),
            namespace: Some(self.namespace.clone()),
            admin: None,
            leader_election: None,
        };
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(self.account());
        let manager = vertice_backup::manager(config, &settings, options).unwrap();
        let metrics = manager.metrics().clone();
        let stop = CancellationToken::new();
        let (backup, restore) = (metrics.controller("backup"), metrics.controller("restore"));
        Operator { task: tokio::spawn(manager.run(stop.clone())), stop, metrics, backup, restore }
    }

    pub(crate) fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create<K: Object>(&self, object: Value) -> K {
        create(&self.api(), object).await
    }

    pub(crate) async fn get<K: Object>(&self, name: &str) -> K {
        self.api().get(name).await.unwrap()
    }

    /// Changes an object, as a person with `kubectl patch` would.
    pub(crate) async fn patch<K: Object>(&self, name: &str, patch: Value) -> K {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    /// Changes an object's status, as a controller or the kubelet would.
    pub(crate) async fn patch_status<K: Object>(&self, name: &str, status: Value) -> K {
        let patch = Patch::Merge(json!({"status": status}));
        self.api().patch_status(name, &PatchParams::default(), &patch).await.unwrap()
    }

    /// A VerticeBackup of the database, with changes to its spec.
    pub(crate) async fn backup(&self, name: &str, changes: Value) -> VerticeBackup {
        self.create(backup(name, changes)).await
    }

    /// A VerticeRestore of the newest backup of `backup`.
    pub(crate) async fn restore(&self, name: &str, backup: &str) -> VerticeRestore {
        let spec = json!({"source": {"backupName": backup}});
        self.create(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// Waits until a VerticeBackup is as `done` wants it.
    pub(crate) async fn backup_until(
        &self,
        name: &str,
        what: &str,
        done: impl Fn(&VerticeBackup) -> bool,
    ) -> VerticeBackup {
        self.until(name, what, done).await
    }

    /// Waits until an object is as `done` wants it.
    pub(crate) async fn until<K: Object>(&self, name: &str, what: &str, done: impl Fn(&K) -> bool) -> K {
        let api = self.api::<K>();
        wait(&format!("{name}: {what}"), async || {
            api.get_opt(name).await.unwrap().filter(|found| done(found))
        })
        .await
    }

    /// Waits until the Ready condition of a VerticeBackup speaks of its current spec.
    pub(crate) async fn judged(&self, name: &str) -> VerticeBackup {
        self.backup_until(name, "has a Ready condition of this spec", |found| {
            let status = found.status.as_ref();
            status.is_some_and(|status| status.observed_generation == found.metadata.generation)
        })
        .await
    }

    /// The events about an object as `Type Reason note`, oldest first.
    pub(crate) async fn events(&self, name: &str) -> Vec<String> {
        let found = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let mut about: Vec<_> = found
            .iter()
            .filter(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name))
            .collect();
        about.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        about
            .iter()
            .map(|event| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{} {} {}", text(&event.type_), text(&event.reason), text(&event.note))
            })
            .collect()
    }

    /// Waits for an event of this reason about an object.
    pub(crate) async fn event(&self, name: &str, reason: &str) -> String {
        wait(&format!("event {reason} about {name}"), async || {
            let word = format!(" {reason} ");
            self.events(name).await.into_iter().find(|event| event.contains(&word))
        })
        .await
    }

    /// The CronJob of a VerticeBackup, once it is there.
    pub(crate) async fn cronjob(&self, backup: &str) -> CronJob {
        self.until(&format!("{backup}-backup"), "is there", |_: &CronJob| true).await
    }
}

impl Operator {
    /// Ends it as `kill -9` would.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Ends it as SIGTERM would.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// What a scrape says.
    pub(crate) fn scrape(&self) -> String {
        self.metrics.encode().unwrap()
    }
}

/// A VerticeBackup of the database `db`, with changes to its spec.
pub(crate) fn backup(name: &str, changes: Value) -> Value {
    let mut spec = json!({
        "target": {"type": "postgresql", "name": "db", "credentials": "db"},
        "schedule": "30 2 * * *",
        "timeZone": "Europe/Zurich",
        "storage": {"type": "s3", "bucket": "backups", "credentials": "s3"},
    });
    merge(&mut spec, changes);
    json!({"metadata": {"name": name}, "spec": spec})
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(into.entry(key).or_insert(Value::Null), change);
            }
        }
        (into, changes) => *into = changes,
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// Looks until `look` sees it.
pub(crate) async fn wait<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < SOON, "not within {} s: {what}", SOON.as_secs());
        tokio::time::sleep(POLL).await;
    }
}
