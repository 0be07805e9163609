//! `vertice operator …`: one subcommand an operator.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use vertice_backup::{LeaderElection, Settings};
use vertice_controller::leader::Timing;
use vertice_controller::{manager, telemetry};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes VerticeBackups and VerticeRestores happen.
    Backup(Backup),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// Image of vertice-agent; each run copies the agent out of it.
    #[arg(long, env = "VERTICE_AGENT_IMAGE", value_name = "REFERENCE")]
    agent_image: String,
    /// Work in this namespace only; in all without.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Where /healthz, /readyz and /metrics are served; without a host, on all IPv4 addresses.
    #[arg(long, default_value = ":8080", value_name = "[HOST]:PORT", value_parser = address)]
    metrics_addr: SocketAddr,
    /// Only one of several replicas works at a time: the one that holds the Lease.
    #[arg(long, requires = "lease_namespace")]
    leader_elect: bool,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of the Lease.
    #[arg(long, default_value = "vertice-operator-backup", value_name = "NAME")]
    lease_name: String,
}

pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        Command::Backup(args) => backup(args).await,
    }
}

async fn backup(args: Backup) -> Result<()> {
    let Backup { agent_image, namespace, metrics_addr, leader_elect, lease_namespace, lease_name } = args;
    let _telemetry = telemetry::init(&telemetry::Options::from_env("vertice-operator-backup"))?;
    let config = kube::Config::infer().await.context("no way to reach a cluster")?;
    let leader_election = lease_namespace.filter(|_| leader_elect).map(|namespace| LeaderElection {
        namespace,
        name: lease_name,
        timing: Timing::default(),
    });
    let settings = Settings { agent_image, namespace, admin: Some(metrics_addr), leader_election };
    vertice_backup::run(config, settings, manager::stop_on_signals()?).await?;
    Ok(())
}

/// `:8080` or `127.0.0.1:8080` or `[::]:8080`.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| "write it like :8080, 127.0.0.1:8080 or [::]:8080".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address(":8080").unwrap().to_string(), "0.0.0.0:8080");
        assert_eq!(address("[::]:80").unwrap().to_string(), "[::]:80");
        for wrong in ["", ":", "8080", ":99999", "localhost:80"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
