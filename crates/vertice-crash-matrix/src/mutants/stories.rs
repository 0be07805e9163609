//! Stories for the seeded faults. Unlike those of the matrix they insist on nothing: a step that does not come to what it is for is
//! given up after a while, so that what a fault leads to is judged by the oracles. And they end before everything is looked at again for
//! no reason, which mends much.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use snafu::ResultExt as _;
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};

use crate::error::{ApiSnafu, Result, StuckSnafu};
use crate::gateway::BUCKET;
use crate::jobs::Object;
use crate::postgres::DATABASE;
use crate::scenario::Kind;
use crate::scenarios::{Story, merge, was_killed};
use crate::trial::Trial;

const NAME: &str = "shop";
const CRONJOB: &str = "shop-backup";
/// Where the backup lies that every ground has.
const GOLDEN: &str = "golden";
/// So long what a step is for is waited for; without a fault it is there much sooner.
const PATIENCE: Duration = Duration::from_secs(4);
/// A finalizer of somebody else's, which keeps an object while it is being deleted.
const HOLD: &str = "example.com/hold";

const fn backup(name: &'static str, play: for<'a> fn(&'a Trial<'_>) -> BoxFuture<'a, Result<()>>) -> Story {
    Story { name, kind: Kind::VerticeBackup, play }
}

const fn restore(name: &'static str, play: for<'a> fn(&'a Trial<'_>) -> BoxFuture<'a, Result<()>>) -> Story {
    Story { name, kind: Kind::VerticeRestore, play }
}

/// A scheduled run, and two by hand, of which the second takes the name of the first.
pub(super) static RUNS: Story = backup("runs", |trial| Box::pin(runs(trial)));
/// The spec changes.
pub(super) static CHANGES: Story = backup("changes", |trial| Box::pin(changes(trial)));
/// Somebody deletes the CronJob.
pub(super) static REMOVED: Story = backup("removed", |trial| Box::pin(removed(trial)));
/// A run succeeds, the next one fails.
pub(super) static BROKEN: Story = backup("broken", |trial| Box::pin(broken(trial)));
/// A VerticeBackup is made again while Jobs of the one before are still being deleted.
pub(super) static AGAIN: Story = backup("again", |trial| Box::pin(again(trial)));
/// A database that is gone is put back.
pub(super) static RESTORED: Story = restore("restored", |trial| Box::pin(restored(trial)));
/// The same, and what failed because its Job was gone a person makes again.
pub(super) static INSISTED: Story = restore("insisted", |trial| Box::pin(insisted(trial)));
/// A backup that was damaged in the store is not put over the database.
pub(super) static DAMAGED: Story = restore("damaged", |trial| Box::pin(damaged(trial)));

async fn runs(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"schedule": daily(trial, 30)})).await?;
    trial.at(30);
    counted(trial, 1).await?;
    start(trial, "shop-now", 2).await?;
    delete::<Job>(trial, "shop-now").await?;
    trial.at(40);
    start(trial, "shop-now", 3).await?;
    trial.at(70);
    trial.settle().await
}

async fn changes(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"schedule": daily(trial, 30)})).await?;
    trial.at(10);
    change(trial, json!({"schedule": daily(trial, 40), "timeout": "2h"})).await?;
    trial.at(20);
    change(trial, json!({"suspend": true})).await?;
    trial.at(50);
    change(trial, json!({"suspend": false})).await?;
    trial.at(60);
    trial.settle().await
}

async fn removed(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true})).await?;
    trial.at(10);
    let there = || trial.world.get(&trial.world.cronjobs, CRONJOB);
    let before = there().and_then(|cronjob| cronjob.uid());
    delete::<CronJob>(trial, CRONJOB).await?;
    hope(trial, || there().is_some_and(|cronjob| cronjob.uid() != before)).await
}

async fn broken(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true, "startingDeadline": "10m"})).await?;
    start(trial, "shop-good", 1).await?;
    trial.at(10);
    change(trial, json!({"target": {"databases": ["nope"]}, "startingDeadline": null})).await?;
    start(trial, "shop-bad", 2).await?;
    trial.at(40);
    trial.settle().await
}

async fn again(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true})).await?;
    start(trial, "shop-first", 1).await?;
    trial.patch::<Job>("shop-first", json!({"metadata": {"finalizers": [HOLD]}})).await?;
    trial.settle().await?;
    delete::<VerticeBackup>(trial, NAME).await?;
    trial.at(10);
    make(trial, json!({"suspend": true})).await?;
    trial.patch::<Job>("shop-first", json!({"metadata": {"finalizers": null}})).await?;
    trial.at(40);
    trial.settle().await
}

async fn restored(trial: &Trial<'_>) -> Result<()> {
    lose(trial).await?;
    put_back(trial, json!({"source": {"backupName": NAME}})).await?;
    trial.at(30);
    trial.settle().await
}

async fn insisted(trial: &Trial<'_>) -> Result<()> {
    lose(trial).await?;
    put_back(trial, json!({"source": {"backupName": NAME}})).await?;
    if trial.world.get(&trial.world.restores, "back").is_some_and(|found| was_killed(&found)) {
        delete::<VerticeRestore>(trial, "back").await?;
        put_back(trial, json!({"source": {"backupName": NAME}})).await?;
    }
    trial.at(30);
    trial.settle().await
}

/// Loses the database, of which there is a backup.
async fn lose(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true, "storage": {"prefix": GOLDEN}})).await?;
    trial.postgres()?.sql("postgres", &format!("DROP DATABASE {DATABASE} WITH (FORCE)")).await?;
    trial.at(10);
    Ok(())
}

async fn damaged(trial: &Trial<'_>) -> Result<()> {
    make(trial, json!({"suspend": true})).await?;
    start(trial, "shop-good", 1).await?;
    trial.postgres()?.sql(DATABASE, "UPDATE orders SET cents = 0").await?;
    let (key, whole) = dump(trial)?;
    let mut bad = whole.clone();
    flip(&mut bad);
    trial.ground.gateway.overwrite(&key, &bad)?;
    trial.at(10);
    put_back(trial, json!({"source": {"backupName": NAME}, "overwrite": true})).await?;
    // Whole again: the oracles load every backup. And the checksums that the restore told differ from run to run.
    trial.ground.gateway.overwrite(&key, &whole)?;
    delete::<VerticeRestore>(trial, "back").await?;
    trial.at(30);
    trial.settle().await
}

/// A row of the database, as a dump has it.
const ROW: &[u8] = b"customer 7";

/// The dump that holds the row.
fn dump(trial: &Trial<'_>) -> Result<(String, Vec<u8>)> {
    let stored = trial.ground.gateway.objects(&trial.namespace)?;
    let found = stored.into_iter().find(|(_, content)| content.windows(ROW.len()).any(|part| part == ROW));
    let (key, content) = found.ok_or_else(|| {
        let waited = std::time::Duration::ZERO;
        StuckSnafu { what: "a dump that holds a customer", waited, last: "none" }.build()
    })?;
    Ok((format!("{}/{key}", trial.namespace), content))
}

/// Changes the row: what is read is a dump all the same.
fn flip(content: &mut [u8]) {
    let at = content.windows(ROW.len()).position(|part| part == ROW);
    if let Some(byte) = at.and_then(|at| content.get_mut(at + ROW.len() - 1)) {
        *byte = b'x';
    }
}

/// A schedule that fires once a day, so many minutes after the trial's beginning.
fn daily(trial: &Trial<'_>, minutes: i64) -> String {
    trial.minute(minutes).strftime("%-M %-H * * *").to_string()
}

async fn make(trial: &Trial<'_>, spec: Value) -> Result<()> {
    let mut object = json!({
        "metadata": {"name": NAME},
        "spec": {
            "target": {"type": "postgresql", "name": "db", "credentials": "db", "databases": [DATABASE]},
            "schedule": daily(trial, 300),
            "storage": {"type": "s3", "bucket": BUCKET, "endpoint": "http://object-store:7070", "credentials": "s3"},
            "options": {"compression": {"type": "none"}},
        },
    });
    merge(&mut object["spec"], spec);
    let made = trial.create::<VerticeBackup>(object).await?;
    judged(trial, &made).await
}

async fn change(trial: &Trial<'_>, spec: Value) -> Result<()> {
    let changed = trial.patch::<VerticeBackup>(NAME, json!({"spec": spec})).await?;
    judged(trial, &changed).await
}

/// Hopes for a status that speaks of this version of the spec.
async fn judged(trial: &Trial<'_>, wanted: &VerticeBackup) -> Result<()> {
    let (uid, generation) = (wanted.uid(), wanted.metadata.generation);
    hope(trial, || {
        let found = trial.world.get(&trial.world.backups, NAME);
        let observed =
            |found: &VerticeBackup| found.status.as_ref().and_then(|status| status.observed_generation);
        found.is_some_and(|found| found.uid() == uid && observed(&found) >= generation)
    })
    .await
}

/// Hopes for so many runs in the history.
async fn counted(trial: &Trial<'_>, runs: usize) -> Result<()> {
    hope(trial, || {
        let found = trial.world.get(&trial.world.backups, NAME);
        let status = found.and_then(|found| found.status.clone());
        status.is_some_and(|status| status.history.len() >= runs)
    })
    .await
}

/// Starts a run by hand, after which there are so many.
async fn start(trial: &Trial<'_>, job: &str, runs: usize) -> Result<()> {
    trial.run_now(CRONJOB, job).await?;
    counted(trial, runs).await
}

async fn put_back(trial: &Trial<'_>, spec: Value) -> Result<()> {
    trial.create::<VerticeRestore>(json!({"metadata": {"name": "back"}, "spec": spec})).await?;
    hope(trial, || {
        let found = trial.world.get(&trial.world.restores, "back");
        found
            .is_some_and(|found| found.status.as_ref().is_some_and(|status| status.completion_time.is_some()))
    })
    .await
}

/// Waits for what a step is for, though not for ever, and then until nothing happens any more.
async fn hope(trial: &Trial<'_>, done: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !done() && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    trial.settle().await
}

/// Deletes an object; whether it is gone, or there again, is for the oracles.
async fn delete<K: Object>(trial: &Trial<'_>, name: &str) -> Result<()> {
    trial.hub.stir();
    let deleted = trial.cluster.api::<K>().delete(name, &DeleteParams::background()).await;
    deleted.with_context(|_| ApiSnafu { doing: format!("delete {} {name}", K::kind(&())) })?;
    trial.settle().await
}
