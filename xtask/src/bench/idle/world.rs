//! An API server with the operators' accounts, and nothing that works beside them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use vertice_testbed::control_plane::{Audit, ControlPlane, ControlPlaneOptions, Etcd};
use vertice_testbed::wait;

use super::operator::Program;
use super::requests::{self, Requests};

/// Where the operators would live.
pub const NAMESPACE: &str = "vertice-system";
/// How long a definition may take until it is served.
const SERVED: Duration = Duration::from_mins(1);
/// How long the accounts' tokens are good for.
const TOKEN_SECONDS: i64 = 48 * 3600;

/// One API server with a number of `VerticeBackups`.
pub struct World {
    size: u32,
    plane: ControlPlane,
    client: Client,
    folder: PathBuf,
    rested: BTreeMap<Program, Requests>,
}

impl World {
    /// Starts an API server, and makes definitions and accounts.
    pub async fn start(etcd: &Etcd, size: u32, folder: &Path) -> Result<Self> {
        let name = format!("idle-{size}");
        let folder = folder.join(&name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut options = ControlPlaneOptions::new(name);
        options.audit = Audit::Off;
        let plane = ControlPlane::start(etcd, options).await?;
        let world = Self { size, client: plane.client(), plane, folder, rested: BTreeMap::new() };
        world.define().await?;
        world.make_accounts().await?;
        Ok(world)
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    /// An administrator's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// With the program's account.
    pub fn kubeconfig(&self, program: Program) -> PathBuf {
        self.folder.join(format!("{}.kubeconfig", program.name()))
    }

    /// What the API server has counted for the program's account.
    pub async fn requests(&self, program: Program) -> Result<Requests> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let metrics =
            self.client().request_text(request).await.context("cannot read the API server's metrics")?;
        Requests::parse(&metrics, program)
    }

    /// Remembers the counts: from here on nothing is to be written.
    pub async fn rest(&mut self) -> Result<()> {
        for program in Program::ALL {
            self.rested.insert(program, self.requests(program).await?);
        }
        Ok(())
    }

    /// The counts when all objects had come to rest.
    pub fn rested(&self, program: Program) -> Requests {
        self.rested.get(&program).copied().unwrap_or_default()
    }

    async fn define(&self) -> Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client().clone());
        for definition in vertice_api::crds() {
            api.create(&PostParams::default(), &definition).await.context("cannot define a resource")?;
            let name = definition.name_any();
            wait::until(format!("the definition {name} to be served"), SERVED, || async {
                let found = api.get(&name).await.map_err(|error| error.to_string())?;
                let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
                let served = conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
                served.then_some(()).ok_or_else(|| "it is not established".to_owned())
            })
            .await?;
        }
        Ok(())
    }

    /// An account for each program, with the rights that the chart gives ours.
    async fn make_accounts(&self) -> Result<()> {
        let cluster = |name: &str| json!({"metadata": {"name": name}});
        let inside = |name: &str| json!({"metadata": {"name": name, "namespace": NAMESPACE}});
        self.create::<Namespace>(None, cluster(NAMESPACE)).await?;
        let accounts = Program::ALL
            .map(|program| json!({"kind": "ServiceAccount", "name": program.name(), "namespace": NAMESPACE}));
        let bound = |object: Value, kind: &str| {
            let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "operator"});
            with(object, &[("roleRef", role), ("subjects", json!(accounts))])
        };
        let rules = json!(vertice_backup::rbac::rules());
        self.create::<ClusterRole>(None, with(cluster("operator"), &[("rules", rules)])).await?;
        self.create::<ClusterRoleBinding>(None, bound(cluster("operator"), "ClusterRole")).await?;
        let lease = json!([{
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"],
        }]);
        self.create::<Role>(Some(NAMESPACE), with(inside("operator"), &[("rules", lease)])).await?;
        self.create::<RoleBinding>(Some(NAMESPACE), bound(inside("operator"), "Role")).await?;
        for program in Program::ALL {
            self.create::<ServiceAccount>(Some(NAMESPACE), inside(program.name())).await?;
            for schema in requests::schemas(program, NAMESPACE)? {
                self.create::<k8s_openapi::api::flowcontrol::v1::FlowSchema>(None, json!(schema)).await?;
            }
            self.write_kubeconfig(program).await?;
        }
        Ok(())
    }

    async fn create<K>(&self, namespace: Option<&str>, object: Value) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let object: K =
            serde_json::from_value(object).with_context(|| format!("a {} is malformed", K::kind(&())))?;
        let path = K::url_path(&(), namespace);
        let request =
            kube::core::Request::new(path).create(&PostParams::default(), serde_json::to_vec(&object)?)?;
        let made = self.client().request::<K>(request).await;
        made.map(drop).with_context(|| format!("cannot make {} {}", K::kind(&()), object.name_any()))
    }

    async fn write_kubeconfig(&self, program: Program) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().clone(), NAMESPACE);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(program.name(), &PostParams::default(), &request).await;
        let token =
            answer.context("cannot get a token")?.status.context("a token request without a token")?.token;
        let kubeconfig = Kubeconfig::read_from(self.plane.kubeconfig())?;
        let mut kubeconfig = serde_json::to_value(&kubeconfig)?;
        kubeconfig["users"][0]["user"] = json!({"token": token});
        let path = self.kubeconfig(program);
        let mut file = fs::OpenOptions::new();
        let file = file.create_new(true).write(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        // JSON is YAML.
        Ok(serde_json::to_writer(file, &kubeconfig)?)
    }
}

/// An object with more fields.
fn with(mut object: Value, fields: &[(&str, Value)]) -> Value {
    for (name, value) in fields {
        object[*name] = value.clone();
    }
    object
}
