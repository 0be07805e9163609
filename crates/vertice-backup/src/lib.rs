//! The backup operator: each VerticeBackup becomes a CronJob, each VerticeRestore a Job, and both tell honestly how their runs
//! ended.
//!
//! ```text
//! observe ─► validate ─► plan ─► apply ─► status        one file a step, in `backup` and in `restore`
//! ```
//! `plan` decides everything and is pure; `build` makes the objects; [`names`] and [`rbac`] are what the command line and the chart
//! need to know. The data itself is moved by `vertice-agent` in the runs' pods: this operator reads no Secret and no bucket.

mod backup;
mod build;
mod events;
mod fields;
mod live;
mod metrics;
pub mod names;
pub mod rbac;
mod refusal;
mod restore;
mod run;
mod settings;
mod target;
#[cfg(test)]
mod testing;

pub use settings::Settings;
pub use vertice_controller::manager::{LeaderElection, ManagerError};

use tokio_util::sync::CancellationToken;
use vertice_controller::manager::{Manager, Options};

/// Runs the operator until `stop` is cancelled.
pub async fn run(
    config: kube::Config,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), ManagerError> {
    let options = settings.manager_options();
    manager(config, &settings, options)?.run(stop).await
}

/// The operator with options of its own, for tests that move the clock, stand between it and the API server, or look at its metrics.
pub fn manager(config: kube::Config, settings: &Settings, options: Options) -> Result<Manager, ManagerError> {
    let mut manager = Manager::new(config, options);
    let cluster = settings::Cluster::default();
    let (backups, shared) = backup::controller(&manager, settings, cluster.clone())?;
    let restores = restore::controller(&manager, settings, shared)?;
    manager.controller(backups);
    manager.controller(restores);
    Ok(manager)
}
