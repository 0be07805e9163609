//! One backup run: claim the prefix, dump into it, write the manifest last. Whatever cuts it short, no half backup stays.

use jiff::Timestamp;
use tokio::sync::Mutex;
use vertice_catalog::id::BackupId;
use vertice_catalog::layout;
use vertice_catalog::manifest::{FORMAT_VERSION, Manifest, Method};
use vertice_catalog::report::Report;
use vertice_catalog::task::BackupTask;

use crate::engines::postgresql::{self, Session};
use crate::failure::Failure;
use crate::mutant::{self, Mutant};
use crate::pipeline::Destination;
use crate::run::Environment;
use crate::storage::{
    Bucket, CatalogueError, Condition, HeldClaim, StorageError, check_owner, connect, discard,
    discard_leftovers, manifest, mark_owner, survey,
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
        lost = lost(&claim, &environment.critical) => Err(lost),
    };
    if made.is_err()
        && let Err(error) = discard(&bucket, &id).await
    {
        tracing::warn!(%error, %id, "what this run had made could not be removed; the next run removes it");
    }
    if !mutant::on(Mutant::ClaimKept)
        && let Err(error) = claim.release().await
    {
        tracing::warn!(%error, "the claim could not be given up; it ends by itself");
    }
    made.map(|manifest| report(&manifest)).map_err(|failure| match target.require("password") {
        Ok(password) if mutant::on(Mutant::PasswordReported) => {
            Failure::Task { detail: format!("{failure}: {password}") }
        }
        _ => failure,
    })
}

fn report(manifest: &Manifest) -> Report {
    Report::BackedUp {
        backup_id: manifest.id.clone(),
        started_at: manifest.started_at,
        finished_at: manifest.finished_at,
        stored_bytes: manifest.stored_bytes(),
        plain_bytes: manifest.plain_bytes(),
        databases: u32::try_from(manifest.databases.len()).unwrap_or(u32::MAX),
        server_version: manifest.server_version.clone(),
    }
}

async fn make(
    task: &BackupTask,
    environment: &Environment,
    bucket: &Bucket,
    claim: &HeldClaim,
    id: &BackupId,
) -> Result<Manifest, Failure> {
    mark_owner(bucket, &task.owner).await?;
    if !mutant::on(Mutant::LeftoversKept) {
        discard_leftovers(bucket).await?;
    }
    if let Some(done) = made_before(bucket, environment.run_uid.as_deref()).await? {
        return Ok(done);
    }
    let secret = environment.target_secret(&task.server);
    if mutant::on(Mutant::PasswordLogged) {
        tracing::info!(password = ?secret.optional("password"), "connecting");
    }
    if mutant::on(Mutant::ManifestFirst) {
        bucket.put(&layout::manifest(id), "{}".into(), Condition::Always).await?;
    }
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
        run: environment.run_uid.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        key_ids: Vec::new(),
        databases: contents.databases,
        objects: contents.objects,
    };
    if mutant::on(Mutant::ReportBeforeManifest) {
        mutant::report(&report(&manifest));
    }
    complete(bucket, claim, environment, &manifest).await?;
    Ok(manifest)
}

/// The backup that an earlier pod of this run made and could not report any more. Nobody else can have made one since: only when
/// this run's claim had run out, and then it is made once more.
async fn made_before(bucket: &Bucket, run: Option<&str>) -> Result<Option<Manifest>, Failure> {
    let Some(run) = run else { return Ok(None) };
    let Some(newest) = survey(bucket).await?.complete.pop() else { return Ok(None) };
    match manifest(bucket, &newest).await {
        Ok(found) if found.run.as_deref() == Some(run) => {
            tracing::warn!(id = %newest, "an earlier pod of this run has made the backup and was ended before it could tell");
            Ok(Some(found))
        }
        Err(CatalogueError::CatalogueStorage { source }) => Err(source.into()),
        // One that is damaged is not ours to judge here.
        Ok(_) | Err(_) => Ok(None),
    }
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
    let key = layout::manifest(&manifest.id);
    let put = bucket.put(&key, json.into(), Condition::Always);
    under_claim(claim, &environment.critical, put).await?;
    Ok(())
}

/// Does the one step that makes the result valid. The claim is looked at afterwards as well: if this stood still in between,
/// another run may have taken what is no backup yet for leftovers.
async fn under_claim<T>(
    claim: &HeldClaim,
    critical: &Mutex<()>,
    step: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, Failure> {
    let _uncut = critical.lock().await;
    claim.confirm().await?;
    let done = step.await?;
    claim.confirm().await?;
    Ok(done)
}

/// Returns when the claim is lost, after a step that must not be cut: that one looks at the claim itself.
async fn lost(claim: &HeldClaim, critical: &Mutex<()>) -> Failure {
    let lost = claim.lost().await;
    let _uncut = critical.lock().await;
    lost.into()
}

#[cfg(test)]
mod tests {
    use vertice_catalog::claim::{CLAIM_LIFETIME, Claim};

    use super::*;
    use crate::storage::ClaimError;
    use crate::storage::tests::bucket;

    async fn take_over(bucket: &Bucket) {
        let since = Timestamp::now();
        let theirs = Claim { holder: "pod-b".into(), since, expires: since + CLAIM_LIFETIME };
        let json = serde_json::to_vec(&theirs).unwrap();
        bucket.put(layout::CLAIM, json.into(), Condition::Always).await.unwrap();
    }

    #[tokio::test]
    async fn what_an_earlier_pod_of_this_run_made_is_its_result() {
        let bucket = bucket();
        let json = include_str!("../../vertice-catalog/tests/fixtures/v1-minimal.json");
        let mut made: Manifest = serde_json::from_str(json).unwrap();
        made.run = Some("uid-a".into());
        assert_eq!(made_before(&bucket, Some("uid-a")).await.unwrap(), None);
        let json = made.to_json().unwrap();
        bucket.put(&layout::manifest(&made.id), json.into(), Condition::Always).await.unwrap();
        assert_eq!(made_before(&bucket, Some("uid-a")).await.unwrap(), Some(made));
        for other in [Some("uid-b"), None] {
            assert_eq!(made_before(&bucket, other).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_claim_lost_while_the_manifest_is_written_fails_the_run() {
        let bucket = bucket();
        let critical = Mutex::default();
        let claim = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        under_claim(&claim, &critical, async { Ok(()) }).await.unwrap();
        let slow = async {
            take_over(&bucket).await;
            Ok(())
        };
        let failed = under_claim(&claim, &critical, slow).await.unwrap_err();
        assert!(matches!(failed, Failure::Claim { source: ClaimError::Lost { .. } }), "{failed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_claim_does_not_cut_the_last_step() {
        let bucket = bucket();
        let critical = Mutex::default();
        let claim = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        take_over(&bucket).await;
        let uncut = critical.lock().await;
        claim.lost().await;
        let mut lost = std::pin::pin!(lost(&claim, &critical));
        assert!(futures::poll!(lost.as_mut()).is_pending());
        drop(uncut);
        let lost = lost.await;
        assert!(matches!(lost, Failure::Claim { source: ClaimError::Lost { .. } }), "{lost}");
    }
}
