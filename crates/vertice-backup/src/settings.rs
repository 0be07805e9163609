//! Settings of the operator.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::sync::OnceCell;
use vertice_controller::manager::{LeaderElection, Options};

use crate::live::{self, ReadError};

/// How the backup operator runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image whose entry point is `vertice-agent`; an init container of each run copies the agent out of it.
    pub agent_image: String,
    /// Works in this namespace only; in all when absent.
    pub namespace: Option<String>,
    /// Where probes and metrics are served, such as `0.0.0.0:8080`.
    pub admin: Option<SocketAddr>,
    /// The Lease that keeps replicas apart; without it this process must be the only one.
    pub leader_election: Option<LeaderElection>,
}

impl Settings {
    /// All objects of a kind that the operator may see.
    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    /// What the process's manager needs to know.
    pub(crate) fn manager_options(&self) -> Options {
        Options { admin: self.admin, leader_election: self.leader_election.clone(), ..Options::default() }
    }
}

/// What a watch of all objects of a kind asks for: that it begins with the list, object by object.
pub(crate) fn watched() -> watcher::Config {
    watcher::Config::default().streaming_lists()
}

/// The cluster's identity, read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster(Arc<OnceCell<String>>);

impl Cluster {
    /// UID of `kube-system`.
    pub(crate) async fn uid(&self, client: &Client) -> Result<String, ReadError> {
        self.0.get_or_try_init(|| live::cluster(client)).await.cloned()
    }
}
