//! The tier `api`: a real API server without nodes, one for all tests of the run; a test makes namespaces of its own.

use anyhow::Result;
use vertice_testbed::control_plane::{Audit, ControlPlane, ControlPlaneOptions, Etcd, EtcdOptions};
use vertice_testbed::parts::{self, Part};

use super::Ground;
use super::runner::Summary;

/// What the tests of this tier run besides the API server.
const PARTS: [Part; 4] = [Part::Kubernetes, Part::CronOracle, Part::VersityGw, Part::Helm];

pub async fn run(ground: &Ground) -> Result<Summary> {
    let (paths, ledger) = (ground.paths.clone(), ground.ledger.clone());
    let parts = tokio::task::spawn_blocking(move || parts::ensure(&paths, &PARTS, &ledger)).await??;
    let options = EtcdOptions { reporter: ground.ledger.reporter().clone(), ..EtcdOptions::default() };
    let etcd = Etcd::start(&ground.paths, options).await?;
    let mut options = ControlPlaneOptions::new("tests");
    options.audit = Audit::Metadata;
    let plane = ControlPlane::start(&etcd, options).await?;
    let text = |path: &std::path::Path| path.display().to_string();
    let environment = [
        ("VERTICE_TEST_KUBECONFIG", text(plane.kubeconfig())),
        ("VERTICE_TEST_BIN", text(parts.path_dir())),
        ("VERTICE_TEST_AUDIT_LOG", plane.audit_log().map(text).unwrap_or_default()),
    ];
    tokio::task::block_in_place(|| {
        ground.runner.run("binary(/^api_/)", ground.filter.as_deref(), &environment)
    })
}
