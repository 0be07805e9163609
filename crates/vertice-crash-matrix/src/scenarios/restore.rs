//! What people do with a VerticeRestore.

use serde_json::{Value, json};
use vertice_api::vertice_io::{RestorePhase, VerticeBackup, VerticeRestore};
use vertice_catalog::report::FailureReason;

use super::backup::{self, GOLDEN};
use crate::error::Result;
use crate::gateway::BUCKET;
use crate::postgres::DATABASE;
use crate::trial::Trial;

const NAME: &str = "back";

fn phase(restore: &VerticeRestore) -> Option<RestorePhase> {
    restore.status.as_ref().and_then(|status| status.phase)
}

fn has_ended(restore: &VerticeRestore) -> bool {
    matches!(phase(restore), Some(RestorePhase::Succeeded | RestorePhase::Failed))
}

/// Whether it failed because its agent was killed. Such a restore is never tried again by itself.
pub(crate) fn was_killed(restore: &VerticeRestore) -> bool {
    let conditions = restore.status.iter().flat_map(|status| &status.conditions);
    let no_report = FailureReason::NoReport.as_str();
    phase(restore) == Some(RestorePhase::Failed)
        && conditions.into_iter().any(|one| one.type_ == "Complete" && one.reason == no_report)
}

/// Makes it and waits for its end; one whose agent was killed a person makes again.
async fn restore(trial: &Trial<'_>, spec: &Value) -> Result<()> {
    loop {
        trial.create::<VerticeRestore>(json!({"metadata": {"name": NAME}, "spec": spec})).await?;
        trial.restore(NAME, "has ended", has_ended).await?;
        trial.settle().await?;
        let killed = trial.world.get(&trial.world.restores, NAME).is_some_and(|found| was_killed(&found));
        if !killed {
            return Ok(());
        }
        trial.delete::<VerticeRestore>(&trial.world.restores, NAME).await?;
        trial.settle().await?;
    }
}

/// The database is gone; the newest backup of its VerticeBackup is put back.
pub(super) async fn lost(trial: &Trial<'_>) -> Result<()> {
    backup::pointer(trial).await?;
    trial.postgres()?.sql("postgres", &format!("DROP DATABASE {DATABASE} WITH (FORCE)")).await?;
    trial.at(10);
    restore(trial, &json!({"source": {"backupName": "shop"}})).await?;
    trial.at(40);
    trial.settle().await
}

/// The database was changed and its VerticeBackup is gone; a backup is put over it straight from the bucket.
pub(super) async fn over(trial: &Trial<'_>) -> Result<()> {
    backup::pointer(trial).await?;
    trial.postgres()?.sql(DATABASE, "UPDATE orders SET cents = 0; CREATE TABLE junk (id int)").await?;
    trial.delete::<VerticeBackup>(&trial.world.backups, "shop").await?;
    trial.settle().await?;
    trial.at(10);
    let spec = json!({
        "source": {"storage": {
            "type": "s3", "bucket": BUCKET, "prefix": GOLDEN, "endpoint": "http://object-store:7070", "credentials": "s3",
        }},
        "target": {"type": "postgresql", "name": "db", "credentials": "db"},
        "databases": [DATABASE],
        "overwrite": true,
    });
    restore(trial, &spec).await?;
    trial.at(40);
    trial.settle().await
}

/// The database holds something and may not be replaced: the restore fails, changes nothing, and is deleted.
pub(super) async fn refused(trial: &Trial<'_>) -> Result<()> {
    trial.postgres()?.sql(DATABASE, "UPDATE orders SET cents = 1").await?;
    // Before what it waits for is there.
    let spec = json!({"source": {"backupName": "shop"}, "timeout": "1h"});
    trial.create::<VerticeRestore>(json!({"metadata": {"name": NAME}, "spec": spec})).await?;
    let told = |found: &VerticeRestore| phase(found) == Some(RestorePhase::Pending);
    trial.restore(NAME, "waits for its source", told).await?;
    trial.settle().await?;
    trial.at(10);
    backup::pointer(trial).await?;
    trial.restore(NAME, "has ended", has_ended).await?;
    trial.settle().await?;
    trial.at(20);
    trial.delete::<VerticeRestore>(&trial.world.restores, NAME).await?;
    trial.settle().await?;
    trial.at(50);
    trial.settle().await
}
