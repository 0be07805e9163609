//! Reads from the API server.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{Api, ListParams};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use snafu::{OptionExt as _, ResultExt as _, Snafu};
use vertice_api::vertice_io::VerticeBackup;

use crate::target::Candidates;

/// The Job controller labels a Job's pods so.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";
/// The namespace whose UID stands for the cluster.
const CLUSTER_NAMESPACE: &str = "kube-system";

/// Something could not be read.
#[derive(Debug, Snafu)]
pub(crate) enum ReadError {
    /// The API server did not answer, or refused.
    #[snafu(display("failed to read {what}"))]
    Read {
        /// What was asked for.
        what: String,
        /// Why.
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },
    /// A namespace without UID, which no API server answers with.
    #[snafu(display("namespace {CLUSTER_NAMESPACE} has no UID"))]
    NoCluster,
}

/// UID of `kube-system`: what tells this cluster from its clones.
pub(crate) async fn cluster(client: &Client) -> Result<String, ReadError> {
    let api = Api::<Namespace>::all(client.clone());
    let what = || format!("namespace {CLUSTER_NAMESPACE}");
    let namespace = api.get_metadata(CLUSTER_NAMESPACE).await.with_context(|_| ReadSnafu { what: what() })?;
    namespace.metadata.uid.context(NoClusterSnafu)
}

/// All that a target may name. Not cached: whole Services, StatefulSets and Deployments of a cluster would be, for a few reads a
/// run.
pub(crate) async fn candidates(client: &Client, namespace: &str) -> Result<Candidates, ReadError> {
    let all = ListParams::default();
    let services = list::<Service>(client, namespace, "Services", &all);
    let stateful_sets = list::<StatefulSet>(client, namespace, "StatefulSets", &all);
    let deployments = list::<Deployment>(client, namespace, "Deployments", &all);
    let (services, stateful_sets, deployments) = tokio::try_join!(services, stateful_sets, deployments)?;
    Ok(Candidates::new(&services, &stateful_sets, &deployments))
}

/// Whether a VerticeBackup exists that is this one, and not another that was made under its name.
pub(crate) async fn exists(client: &Client, backup: &VerticeBackup) -> Result<bool, ReadError> {
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    let api = Api::<VerticeBackup>::namespaced(client.clone(), &namespace);
    let what = || format!("VerticeBackup {namespace}/{name}");
    let found = api.get_metadata_opt(&name).await.with_context(|_| ReadSnafu { what: what() })?;
    let metadata = found.map(|found| found.metadata).unwrap_or_default();
    Ok(metadata.uid == backup.metadata.uid && metadata.deletion_timestamp.is_none())
}

/// A CronJob, if it exists.
pub(crate) async fn cronjob(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<CronJob>, ReadError> {
    let api = Api::<CronJob>::namespaced(client.clone(), namespace);
    api.get_opt(name).await.with_context(|_| ReadSnafu { what: format!("CronJob {namespace}/{name}") })
}

/// A Job, if it exists.
pub(crate) async fn job(client: &Client, namespace: &str, name: &str) -> Result<Option<Job>, ReadError> {
    let api = Api::<Job>::namespaced(client.clone(), namespace);
    api.get_opt(name).await.with_context(|_| ReadSnafu { what: format!("Job {namespace}/{name}") })
}

/// A Job's pods, from the API server.
pub(crate) async fn pods(client: &Client, namespace: &str, job: &Job) -> Result<Vec<Pod>, ReadError> {
    let params = ListParams::default().labels(&format!("{JOB_LABEL}={}", job.name_any()));
    let mut pods = list::<Pod>(client, namespace, "Pods", &params).await?;
    pods.retain(|pod| belongs(pod, job));
    Ok(pods)
}

/// A Job's pods, from the cache.
pub(crate) fn pods_of(cache: &Store<Pod>, job: &Job) -> Vec<Pod> {
    let mut pods: Vec<Pod> =
        cache.state().iter().filter(|pod| belongs(pod, job)).map(|pod| Pod::clone(pod)).collect();
    pods.sort_by_key(kube::ResourceExt::name_any);
    pods
}

fn belongs(pod: &Pod, job: &Job) -> bool {
    let uid = job.uid();
    pod.owner_references().iter().any(|owner| owner.kind == "Job" && Some(&owner.uid) == uid.as_ref())
}

async fn list<K>(
    client: &Client,
    namespace: &str,
    what: &str,
    params: &ListParams,
) -> Result<Vec<K>, ReadError>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let list = api.list(params).await;
    Ok(list.with_context(|_| ReadSnafu { what: format!("{what} of namespace {namespace}") })?.items)
}
