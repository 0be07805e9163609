//! The cluster that a command speaks to.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// How long one request may take, retries included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which cluster and namespace: as kubectl's flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Namespace; the context's own without.
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Context of the kubeconfig; the current one without.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// A connection.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Place {
    /// Reads the kubeconfig (`KUBECONFIG`, else `~/.kube/config`), or the pod's own account inside a cluster.
    pub(crate) async fn connect(&self) -> Result<Cluster> {
        let mut config = match &self.context {
            Some(context) => {
                let options =
                    KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options)
                    .await
                    .with_context(|| format!("context {context:?} cannot be used"))?
            }
            None => {
                Config::infer().await.context("no cluster is configured: set KUBECONFIG or give --context")?
            }
        };
        // A run's log may be silent for as long as the server's dump is.
        config.read_timeout = None;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Cluster { client, namespace })
    }
}

/// Gives a request a deadline.
pub(crate) async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(anyhow!("the API server did not answer within {} s", PATIENCE.as_secs())),
    }
}
