//! Where the Lease lives.

use std::fmt::Debug;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use snafu::Snafu;

/// Why a Lease could not be read or written.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub))]
pub enum StoreError {
    /// Somebody else wrote it first: normal among candidates.
    #[snafu(display("the lease was written by another candidate meanwhile"))]
    Conflict,
    /// No answer, no right, …; a write may have taken effect all the same.
    #[snafu(display("the lease could not be reached"))]
    Failed {
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Keeps one Lease. Writes are compare-and-swap: a replacement whose `resourceVersion` is not the present one is refused.
#[async_trait]
pub trait LeaseStore: Debug + Send + Sync + 'static {
    /// Reads it.
    async fn get(&self) -> Result<Option<Lease>, StoreError>;
    /// Makes it; a conflict if it is there already.
    async fn create(&self, lease: Lease) -> Result<Lease, StoreError>;
    /// Replaces it.
    async fn replace(&self, lease: Lease) -> Result<Lease, StoreError>;
}

/// A Lease of the cluster.
#[derive(Debug, Clone)]
pub struct KubeLeaseStore {
    api: Api<Lease>,
    name: String,
}

impl KubeLeaseStore {
    /// The Lease `namespace/name`. The client must not be fenced by the very lease it keeps.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }
}

#[async_trait]
impl LeaseStore for KubeLeaseStore {
    async fn get(&self) -> Result<Option<Lease>, StoreError> {
        self.api.get_opt(&self.name).await.map_err(failed)
    }

    async fn create(&self, mut lease: Lease) -> Result<Lease, StoreError> {
        lease.metadata.name = Some(self.name.clone());
        self.api.create(&PostParams::default(), &lease).await.map_err(failed)
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, StoreError> {
        // `Api::replace` sends the object's resourceVersion, which makes it a compare-and-swap.
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map_err(failed)
    }
}

fn failed(error: kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict,
        error => StoreError::Failed { source: Box::new(error) },
    }
}
