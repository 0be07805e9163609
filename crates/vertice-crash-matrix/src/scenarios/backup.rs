//! What people do with a VerticeBackup.

use serde_json::{Value, json};
use vertice_api::vertice_io::{BackupPhase, VerticeBackup};

use crate::error::Result;
use crate::gateway::BUCKET;
use crate::trial::Trial;

use super::merge;

const NAME: &str = "shop";
const CRONJOB: &str = "shop-backup";
const ZONE: &str = "Europe/Zurich";
/// Where the backup lies that restores take.
pub(super) const GOLDEN: &str = "golden";

/// A schedule that fires once a day, so many minutes after the trial's beginning.
fn daily(trial: &Trial<'_>, minutes: i64) -> String {
    let at = trial.minute(minutes);
    at.in_tz(ZONE).map_or_else(|_| "0 0 * * *".to_owned(), |at| at.strftime("%-M %-H * * *").to_string())
}

/// A VerticeBackup of the trial's database. Not compressed: then all dumps of one content have one length.
fn object(trial: &Trial<'_>, changes: Value) -> Value {
    let mut spec = json!({
        "target": {"type": "postgresql", "name": "db", "credentials": "db", "databases": ["shop"]},
        "schedule": daily(trial, 30),
        "timeZone": ZONE,
        "storage": {"type": "s3", "bucket": BUCKET, "endpoint": "http://object-store:7070", "credentials": "s3"},
        "options": {"compression": {"type": "none"}},
    });
    merge(&mut spec, changes);
    json!({"metadata": {"name": NAME}, "spec": spec})
}

/// Whether the status speaks of this generation of the spec.
fn is_judged(backup: &VerticeBackup, generation: Option<i64>) -> bool {
    let status = backup.status.as_ref();
    status.is_some_and(|status| {
        status.observed_generation.is_some() && status.observed_generation >= generation
    })
}

/// Whether so many runs succeeded and failed.
fn has_counted(backup: &VerticeBackup, succeeded: i64, failed: i64) -> bool {
    let totals = backup.status.as_ref().and_then(|status| status.totals.clone()).unwrap_or_default();
    (totals.succeeded, totals.failed) == (succeeded, failed)
}

/// Makes it and waits until it is in force.
async fn make(trial: &Trial<'_>, changes: Value) -> Result<()> {
    let made = trial.create::<VerticeBackup>(object(trial, changes)).await?;
    judged(trial, &made).await
}

async fn change(trial: &Trial<'_>, spec: Value) -> Result<()> {
    let changed = trial.patch::<VerticeBackup>(NAME, json!({"spec": spec})).await?;
    judged(trial, &changed).await
}

async fn judged(trial: &Trial<'_>, changed: &VerticeBackup) -> Result<()> {
    let generation = changed.metadata.generation;
    trial.backup(NAME, "speaks of its current spec", |found| is_judged(found, generation)).await?;
    trial.settle().await
}

async fn counted(trial: &Trial<'_>, succeeded: i64, failed: i64) -> Result<()> {
    let what = format!("has counted {succeeded} successes and {failed} failures");
    trial.backup(NAME, &what, |backup| has_counted(backup, succeeded, failed)).await?;
    trial.settle().await
}

/// A schedule fires.
pub(super) async fn scheduled(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({})).await?;
    trial.at(30);
    counted(trial, 1, 0).await?;
    trial.at(60);
    trial.settle().await
}

/// A person starts a run by hand while the schedule is suspended.
pub(super) async fn manual(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true})).await?;
    trial.at(10);
    trial.run_now(CRONJOB, "shop-now").await?;
    counted(trial, 1, 0).await?;
    trial.at(60);
    trial.settle().await
}

/// More than one part of an upload holds.
const PICTURES: &str = "CREATE TABLE pictures AS SELECT n AS id, decode(repeat(md5(n::text), 4096), 'hex') AS content \
                        FROM generate_series(1, 80) n";

/// A run by hand whose dump goes to the bucket in parts.
pub(super) async fn large(trial: &Trial<'_>) -> Result<()> {
    trial.change_content(PICTURES).await?;
    manual(trial).await
}

/// The schedule is changed, suspended over a firing, resumed and changed again, and fires.
pub(super) async fn changed(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({})).await?;
    trial.at(10);
    change(trial, json!({"schedule": daily(trial, 40), "timeout": "2h"})).await?;
    trial.at(20);
    change(trial, json!({"suspend": true})).await?;
    let suspended = |backup: &VerticeBackup| {
        backup.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Suspended)
    };
    trial.backup(NAME, "is suspended", suspended).await?;
    trial.at(50);
    change(trial, json!({"suspend": false})).await?;
    trial.at(60);
    change(trial, json!({"schedule": daily(trial, 70), "startingDeadline": "10m"})).await?;
    trial.at(70);
    counted(trial, 1, 0).await?;
    trial.at(100);
    trial.settle().await
}

/// A run fails because its Secret is missing; a person corrects that and tries again.
pub(super) async fn failing(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"target": {"credentials": "missing"}})).await?;
    trial.at(30);
    counted(trial, 0, 1).await?;
    trial.at(40);
    change(trial, json!({"target": {"credentials": "db"}})).await?;
    trial.at(50);
    trial.run_now(CRONJOB, "shop-again").await?;
    counted(trial, 1, 1).await?;
    trial.at(80);
    trial.settle().await
}

/// It is deleted with all its runs, and made again; the bucket's prefix is still its own.
pub(super) async fn deleted(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true})).await?;
    trial.at(10);
    trial.run_now(CRONJOB, "shop-first").await?;
    counted(trial, 1, 0).await?;
    trial.at(20);
    trial.delete::<VerticeBackup>(&trial.world.backups, NAME).await?;
    trial.settle().await?;
    trial.at(30);
    make(trial, json!({"suspend": true})).await?;
    trial.at(40);
    trial.run_now(CRONJOB, "shop-second").await?;
    counted(trial, 1, 0).await?;
    trial.at(70);
    trial.settle().await
}

/// Makes the backup that restores take.
pub(super) async fn golden(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true, "storage": {"prefix": GOLDEN}})).await?;
    trial.run_now(CRONJOB, "golden").await?;
    counted(trial, 1, 0).await
}

/// A VerticeBackup that only says where the golden backup is.
pub(super) async fn pointer(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true, "storage": {"prefix": GOLDEN}})).await
}
