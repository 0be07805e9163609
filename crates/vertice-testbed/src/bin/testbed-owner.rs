//! The process that the test `e2e_clean` kills: `testbed-owner TARGET PROGRESS` starts a cluster in a target folder, and
//! appends what the cluster reports to a file.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;

use vertice_testbed::cluster::{Cluster, ClusterOptions};
use vertice_testbed::paths::Paths;
use vertice_testbed::report::Reporter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(target), Some(progress)) = (arguments.next(), arguments.next()) else {
        return Err("usage: testbed-owner TARGET PROGRESS".into());
    };
    let paths = Paths::new(Paths::locate().workspace(), target);
    let file = OpenOptions::new().create(true).append(true).open(progress)?;
    let reporter = Reporter::new(move |line| {
        if let Err(error) = writeln!(&file, "{line}") {
            tracing::warn!(%error, "progress is lost");
        }
    });
    let _cluster =
        Cluster::start(ClusterOptions { paths, reporter, ..ClusterOptions::new("killed", 1) }).await?;
    std::future::pending().await
}
