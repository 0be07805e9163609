//! One backup run: claim the prefix, dump into it, write the manifest last. Whatever cuts it short, no half backup stays.

use jiff::Timestamp;
use vertice_catalog::id::BackupId;
use vertice_catalog::layout;
use vertice_catalog::manifest::{FORMAT_VERSION, Manifest, Method};
use vertice_catalog::report::Report;
use vertice_catalog::task::BackupTask;

use crate::engines::postgresql::{self, Session};
use crate::failure::Failure;
use crate::pipeline::Destination;
use crate::run::Environment;
use crate::storage::{
    Bucket, Condition, HeldClaim, check_owner, connect, discard, discard_leftovers, mark_owner,
};

/// Makes a backup.
pub async fn run(task: &BackupTask, environment: &Environment) -> Result<Report, Failure> {
    environment.check_engine(&task.server)?;
    // Both Secrets before anything is asked of anybody.
    let target = environment.target_secret(&task.server);
    target.require("username")?;
    target.require("password")?;
    let bucket = connect(&task.storage, &environment.storage_credentials(&task.storage)?)?;
    // Somebody else's prefix must not even be claimed.
    check_owner(&bucket, &task.owner).await?;
    let claim = HeldClaim::take(&bucket, &environment.holder).await?;
    let id = BackupId::new(environment.started_at, rand::random());
    let made = tokio::select! {
        made = make(task, environment, &bucket, &claim, &id) => made,
        failure = environment.told_to_stop() => Err(failure),
        lost = claim.lost() => Err(lost.into()),
    };
    if made.is_err()
        && let Err(error) = discard(&bucket, &id).await
    {
        tracing::warn!(%error, %id, "what this run had made could not be removed; the next run removes it");
    }
    if let Err(error) = claim.release().await {
        tracing::warn!(%error, "the claim could not be given up; it ends by itself");
    }
    made.map(|manifest| Report::BackedUp {
        backup_id: manifest.id.clone(),
        started_at: manifest.started_at,
        finished_at: manifest.finished_at,
        stored_bytes: manifest.stored_bytes(),
        plain_bytes: manifest.plain_bytes(),
        databases: u32::try_from(manifest.databases.len()).unwrap_or(u32::MAX),
        server_version: manifest.server_version,
    })
}

async fn make(
    task: &BackupTask,
    environment: &Environment,
    bucket: &Bucket,
    claim: &HeldClaim,
    id: &BackupId,
) -> Result<Manifest, Failure> {
    mark_owner(bucket, &task.owner).await?;
    discard_leftovers(bucket).await?;
    let secret = environment.target_secret(&task.server);
    let session = Session::open(&task.server, &secret, &environment.work_dir).await?;
    let to = Destination {
        bucket,
        id,
        compression: task.compression,
        level: task.compression_level,
        progress: &environment.progress,
    };
    let contents = postgresql::back_up(&session, &to, task.databases.as_deref()).await?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        id: id.clone(),
        engine: task.server.engine.clone(),
        server_version: contents.server_version,
        server_major: contents.server_major,
        method: Method::Logical,
        parent: None,
        wal: None,
        started_at: environment.started_at,
        finished_at: Timestamp::now(),
        owner: task.owner.clone(),
        trigger: task.trigger,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        key_ids: Vec::new(),
        databases: contents.databases,
        objects: contents.objects,
    };
    complete(bucket, claim, environment, &manifest).await?;
    Ok(manifest)
}

/// Writes the manifest: with it there is a backup.
async fn complete(
    bucket: &Bucket,
    claim: &HeldClaim,
    environment: &Environment,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let json = manifest.to_json().map_err(|source| Failure::Manifest { source })?;
    bucket.delete(&layout::upload(&manifest.id)).await?;
    let _uncut = environment.critical.lock().await;
    claim.confirm().await?;
    bucket.put(&layout::manifest(&manifest.id), json.into(), Condition::Always).await?;
    Ok(())
}
