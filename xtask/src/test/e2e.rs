//! The tier `e2e`: real nodes and pods, the operator installed through its chart; then the testbed's own faults, on clusters of their own.

use std::path::Path;

use anyhow::Result;
use vertice_e2e::harness::{
    ARCHIVES_ENV, AUDIT_LOG_ENV, IMAGES_ENV, KUBECONFIG_ENV, OPERATOR_NAMESPACE, PROGRAMS_ENV, VERTICE_ENV,
    XTASK_ENV,
};
use vertice_e2e::kubectl::Kubectl;
use vertice_e2e::operator::{self, Install};
use vertice_testbed::cluster::{Cluster, ClusterOptions};
use vertice_testbed::external::External;
use vertice_testbed::parts::{self, Part, Parts};

use super::Ground;
use super::runner::Summary;
use crate::prepare::{self, Built};

/// All that a user's hands do; least privilege comes after, for they are its evidence.
const DEEDS: &str =
    "binary(/^e2e_/) & package(vertice-e2e) & not binary(e2e_privileges) & not binary(e2e_stranger)";
const PRIVILEGES: &str = "binary(e2e_privileges)";
/// Tests that make clusters of their own.
const CLUSTERS: &str = "(binary(/^e2e_/) & package(vertice-testbed)) | binary(e2e_stranger)";

pub async fn run(ground: &Ground, context: Option<&str>, registry: Option<&str>) -> Result<Summary> {
    let built = build(ground).await?;
    if let Some(context) = context {
        return on_theirs(ground, &built, context, registry).await;
    }
    let mut summary = on_ours(ground, &built).await?;
    let environment = [
        (PROGRAMS_ENV, text(built.parts.path_dir())),
        (ARCHIVES_ENV, serde_json::to_string(&built.all())?),
        (XTASK_ENV, xtask(ground)),
    ];
    summary.add(&tests(ground, CLUSTERS, &environment)?);
    Ok(summary)
}

/// What `--full` adds.
pub fn run_full(ground: &Ground) -> Result<Summary> {
    ground.runner.run("binary(/^full_/)", ground.filter.as_deref(), &[(XTASK_ENV, xtask(ground))])
}

/// Not our own path: building the tests may have replaced the file that we were started from.
fn xtask(ground: &Ground) -> String {
    text(&ground.paths.target().join("debug/xtask"))
}

async fn build(ground: &Ground) -> Result<Built> {
    let parts = ensure_parts(ground).await?;
    prepare::images(&ground.paths, &parts, &ground.ledger).await
}

async fn ensure_parts(ground: &Ground) -> Result<Parts> {
    let (paths, ledger) = (ground.paths.clone(), ground.ledger.clone());
    Ok(tokio::task::spawn_blocking(move || parts::ensure(&paths, &Part::ALL, &ledger)).await??)
}

async fn on_ours(ground: &Ground, built: &Built) -> Result<Summary> {
    let reporter = ground.ledger.reporter().clone();
    let images = built.all().map(Clone::clone).to_vec();
    let options =
        ClusterOptions { images, reporter, paths: ground.paths.clone(), ..ClusterOptions::new("e2e", 2) };
    let cluster = Cluster::start(options).await?;
    let kubectl = Kubectl::new(built.parts.path_dir(), Some(cluster.kubeconfig()), None);
    kubectl.create_namespace(OPERATOR_NAMESPACE).await?;
    let installed = operator_and_environment(ground, built, &kubectl, cluster.kubeconfig(), None).await;
    if installed.is_err() {
        collect(&cluster).await;
    }
    let environment = installed?;
    let mut summary = tests(ground, DEEDS, &environment)?;
    // With a filter, most deeds were not done: the audit log cannot show that every right is used.
    if ground.filter.is_none() {
        let log = cluster.audit_log().map(text).unwrap_or_default();
        summary.add(&tests(ground, PRIVILEGES, &[&environment[..], &[(AUDIT_LOG_ENV, log)]].concat())?);
    }
    if summary.failed > 0 {
        collect(&cluster).await;
    }
    cluster.shutdown().await?;
    Ok(summary)
}

async fn collect(cluster: &Cluster) {
    let folder = cluster.collect_failure("e2e", &[OPERATOR_NAMESPACE]).await;
    eprintln!("logs, events and objects of the cluster: {}", folder.display());
}

/// In a cluster of the user's: the same deeds, in namespaces that are removed afterwards.
async fn on_theirs(ground: &Ground, built: &Built, context: &str, registry: Option<&str>) -> Result<Summary> {
    let external = External::from_context(&ground.paths, context).await?;
    let theirs = Kubectl::new(built.parts.path_dir(), None, Some(context));
    external.make_namespace(OPERATOR_NAMESPACE).await?;
    // The tests know one cluster only: a kubeconfig in which it is the current one.
    let kubeconfig = external.run().dir().join("kubeconfig");
    std::fs::write(&kubeconfig, theirs.run(&["config", "view", "--minify", "--flatten", "--raw"]).await?)?;
    let kubectl = Kubectl::new(built.parts.path_dir(), Some(&kubeconfig), None);
    let environment = operator_and_environment(ground, built, &kubectl, &kubeconfig, registry).await?;
    let mut summary = tests(ground, DEEDS, &environment)?;
    eprintln!(
        "skipped: least privilege, for it is judged by the API server's audit log, which is not at hand here"
    );
    summary.skipped += 1;
    operator::uninstall(&kubectl, OPERATOR_NAMESPACE).await?;
    external.shutdown().await?;
    Ok(summary)
}

/// Installs the operator and says where everything is.
async fn operator_and_environment(
    ground: &Ground,
    built: &Built,
    kubectl: &Kubectl,
    kubeconfig: &Path,
    registry: Option<&str>,
) -> Result<Vec<(&'static str, String)>> {
    let chart = ground.paths.workspace().join("deploy/charts/vertice");
    let images = built.references(registry);
    let wanted = Install {
        chart: &chart,
        namespace: OPERATOR_NAMESPACE,
        image: &images.operator,
        agent_image: &images.agent,
    };
    operator::install(kubectl, &wanted).await?;
    Ok(vec![
        (KUBECONFIG_ENV, text(kubeconfig)),
        (PROGRAMS_ENV, text(built.parts.path_dir())),
        (IMAGES_ENV, serde_json::to_string(&images)?),
        (VERTICE_ENV, text(&built.vertice_binary)),
    ])
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn tests(ground: &Ground, set: &str, environment: &[(&str, String)]) -> Result<Summary> {
    tokio::task::block_in_place(|| ground.runner.run(set, ground.filter.as_deref(), environment))
}
