//! Installs the operator through its chart.

use std::path::Path;
use std::time::Duration;

use crate::kubectl::{Kubectl, Result};

/// Name of the Helm release.
pub const RELEASE: &str = "vertice";
const READY: Duration = Duration::from_mins(2);

/// What is installed and where.
#[derive(Clone, Debug)]
pub struct Install<'a> {
    /// The chart's folder.
    pub chart: &'a Path,
    /// The operator's own namespace.
    pub namespace: &'a str,
    /// Image of the operator.
    pub image: &'a str,
    /// Image of the agent.
    pub agent_image: &'a str,
}

/// `helm upgrade --install`, then waits for two ready replicas of the backup operator.
pub async fn install(kubectl: &Kubectl, install: &Install<'_>) -> Result<()> {
    let mut helm = kubectl.program("helm");
    helm.args(["upgrade", "--install", RELEASE]).arg(install.chart).args(["--namespace", install.namespace]);
    helm.args(["--set-string", &format!("image.reference={}", install.image)]);
    helm.args(["--set-string", &format!("agent.image.reference={}", install.agent_image)]);
    kubectl.output(helm, None).await?;
    kubectl.rolled_out(install.namespace, "deployment/vertice-operator-backup", READY).await
}

/// Removes the release; custom resources and their definitions stay.
pub async fn uninstall(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    let mut helm = kubectl.program("helm");
    helm.args(["uninstall", RELEASE, "--namespace", namespace, "--ignore-not-found"]);
    kubectl.output(helm, None).await?;
    Ok(())
}
