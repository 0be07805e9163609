//! One restore run: find the backup, make sure that it is whole, restore it; take back all that was made if that fails.

use jiff::Timestamp;
use vertice_catalog::report::Report;
use vertice_catalog::task::RestoreTask;

use crate::engines::postgresql::{self, Request, Restored, Session, Undo};
use crate::failure::Failure;
use crate::mutant::{self, Mutant};
use crate::run::Environment;
use crate::storage::{check_complete, connect, pick};

/// Restores a backup.
pub async fn run(task: &RestoreTask, environment: &Environment) -> Result<Report, Failure> {
    environment.check_engine(&task.server)?;
    let secret = environment.target_secret(&task.server);
    secret.require("username")?;
    secret.require("password")?;
    let bucket = connect(&task.storage, &environment.storage_credentials(&task.storage)?)?;
    let prepare = async {
        let manifest = pick(&bucket, task.backup_id.as_deref()).await?;
        environment.check_same_engine(&manifest.engine, &task.server)?;
        check_complete(&bucket, &manifest).await?;
        let session = Session::open(&task.server, &secret, &environment.work_dir).await?;
        Ok::<_, Failure>((manifest, session))
    };
    let (manifest, session) = tokio::select! {
        prepared = prepare => prepared?,
        failure = environment.told_to_stop() => return Err(failure),
    };
    let report = |restored: &Restored| Report::Restored {
        backup_id: manifest.id.clone(),
        started_at: environment.started_at,
        finished_at: Timestamp::now(),
        plain_bytes: restored.plain_bytes,
        databases: restored.databases.clone(),
    };
    let request = Request {
        bucket: &bucket,
        manifest: &manifest,
        databases: task.databases.as_deref(),
        overwrite: task.overwrite,
        holder: &environment.holder,
        since: environment.started_at,
        progress: &environment.progress,
        critical: &environment.critical,
        settled: &|restored| environment.report_early(&report(restored)),
    };
    let made = Undo::default();
    let restored = tokio::select! {
        restored = postgresql::restore(&session, &request, &made) => restored.map_err(Failure::from),
        failure = environment.told_to_stop() => Err(failure),
    };
    if restored.is_err() && !mutant::on(Mutant::UndoForgotten) {
        postgresql::undo(&session, &made).await;
    }
    Ok(report(&restored?))
}
