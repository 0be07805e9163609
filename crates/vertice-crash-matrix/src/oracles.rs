//! What must hold at the end of every trial, whatever befell it.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::state::{self, State, differences};
use crate::trial::Trial;
use crate::{gateway, postgres};

/// What an oracle has against a trial.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which oracle.
    pub oracle: Oracle,
    /// What it saw, a line each.
    pub lines: Vec<String>,
}

/// The oracles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Oracle {
    /// The story came to its end: every state that it waits for was reached.
    Progress,
    /// The end state is that of the run in peace.
    SameEnd,
    /// No write once all is quiet, also when everything is looked at again.
    Quiet,
    /// No object whose owner is gone, or that has none.
    Orphans,
    /// No secret in a status, an event or a log.
    Secrets,
    /// A backup that is called a success restores to what was backed up.
    Restores,
    /// Each run is counted once.
    Counts,
    /// No reconcile panicked.
    Panics,
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Progress => "progress",
            Self::SameEnd => "same end",
            Self::Quiet => "quiet",
            Self::Orphans => "orphans",
            Self::Secrets => "secrets",
            Self::Restores => "restores",
            Self::Counts => "counts",
            Self::Panics => "panics",
        })
    }
}

impl Finding {
    fn new(oracle: Oracle, lines: Vec<String>) -> Option<Self> {
        (!lines.is_empty()).then_some(Self { oracle, lines })
    }

    /// A story that did not come to its end; an error of the ground itself is none.
    pub(crate) fn stuck(error: Error) -> Result<Self> {
        match error {
            Error::Stuck { .. } => Ok(Self { oracle: Oracle::Progress, lines: vec![error.to_string()] }),
            other => Err(other),
        }
    }
}

/// After the longest resync everything is looked at again.
const RESYNC: Duration = Duration::from_mins(31);
const SOON: Duration = Duration::from_secs(10);
/// A state that differs is looked at for so long again: what is under way may still come.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until the trial came to the expected state, or to another one for good.
pub(crate) async fn converge(
    trial: &Trial<'_>,
    expected: Option<&Value>,
) -> Result<(State, Option<Finding>)> {
    let began = Instant::now();
    loop {
        trial.settle().await?;
        let state = state::capture(trial).await?;
        let Some(expected) = expected else { return Ok((state, None)) };
        let lines = differences(expected, &state.normal);
        if lines.is_empty() || began.elapsed() > PATIENCE {
            return Ok((state, Finding::new(Oracle::SameEnd, lines)));
        }
    }
}

/// Asks all oracles but the end state's.
pub(crate) async fn ask(trial: &Trial<'_>, state: &State, content: &str) -> Result<Vec<Finding>> {
    let findings = [
        Finding::new(Oracle::Orphans, orphans(&state.raw)),
        Finding::new(Oracle::Secrets, secrets(trial, &state.raw).await?),
        Finding::new(Oracle::Counts, counts(&state.raw)),
        Finding::new(Oracle::Restores, restores(trial, &state.raw, content).await?),
        Finding::new(Oracle::Quiet, quiet(trial, &state.raw).await?),
        Finding::new(Oracle::Panics, panics(trial).await),
    ];
    Ok(findings.into_iter().flatten().collect())
}

async fn panics(trial: &Trial<'_>) -> Vec<String> {
    match trial.panics().await {
        0 => Vec::new(),
        panics => vec![format!("{panics} reconciles panicked")],
    }
}

fn objects(state: &Value) -> impl Iterator<Item = (&String, &Value)> {
    state["objects"].as_object().into_iter().flatten()
}

fn orphans(state: &Value) -> Vec<String> {
    let uids: BTreeSet<&str> =
        objects(state).filter_map(|(_, object)| object["metadata"]["uid"].as_str()).collect();
    let mut lines = Vec::new();
    for (name, object) in objects(state) {
        if name.starts_with("Vertice") {
            continue;
        }
        let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let alive = |owner: &Value| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid));
        if owners.is_empty() {
            lines.push(format!("{name} has no owner: nobody will ever delete it"));
        } else if !owners.iter().any(alive) {
            lines.push(format!("{name} outlived its owner"));
        }
    }
    lines
}

async fn secrets(trial: &Trial<'_>, state: &Value) -> Result<Vec<String>> {
    let mut places: Vec<(String, String)> =
        objects(state).map(|(name, object)| (name.clone(), object.to_string())).collect();
    for event in state::notes(trial).await? {
        places.push(("an event".to_owned(), serde_json::json!(event).to_string()));
    }
    places.extend(trial.kubelet.logs().into_iter().map(|log| ("an agent's log".to_owned(), log)));
    let hidden = [postgres::PASSWORD, gateway::SECRET_KEY];
    let told = places.iter().filter(|(_, text)| hidden.iter().any(|secret| text.contains(secret)));
    Ok(told.map(|(place, _)| format!("a secret's value is in {place}")).collect())
}

fn counts(state: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, object) in objects(state).filter(|(name, _)| name.starts_with("VerticeBackup ")) {
        let status = &object["status"];
        let history = status["history"].as_array().cloned().unwrap_or_default();
        let runs: BTreeSet<&str> = history.iter().filter_map(|run| run["jobUid"].as_str()).collect();
        if runs.len() != history.len() {
            lines.push(format!("{name}: a run is in the history twice"));
        }
        let count = |status: &str| history.iter().filter(|run| run["status"] == status).count();
        let expected =
            [("runs", history.len()), ("succeeded", count("Success")), ("failed", count("Failed"))];
        for (total, expected) in expected {
            let found = status["totals"][total].as_u64().unwrap_or_default();
            if found != expected as u64 {
                lines.push(format!("{name}: totals.{total} is {found}, the history has {expected}"));
            }
        }
    }
    lines
}

/// Loads every backup that a status calls a success into a database, and compares all that is in there.
async fn restores(trial: &Trial<'_>, state: &Value, content: &str) -> Result<Vec<String>> {
    let stored = trial.ground.gateway.objects(&trial.namespace)?;
    let mut lines = Vec::new();
    let backups = objects(state).filter(|(name, _)| name.starts_with("VerticeBackup "));
    let runs = backups.flat_map(|(_, backup)| backup["status"]["history"].as_array().into_iter().flatten());
    for (number, run) in runs.filter(|run| run["status"] == "Success").enumerate() {
        let Some(id) = run["backupId"].as_str() else {
            lines.push(format!("run {} succeeded without the id of a backup", run["job"]));
            continue;
        };
        let object = |name: &str| {
            let key = format!("/{id}/{name}");
            stored.iter().find(|(stored, _)| stored.ends_with(&key)).map(|(_, content)| content)
        };
        let manifest = object("manifest.json").and_then(|json| serde_json::from_slice::<Value>(json).ok());
        let Some(manifest) = manifest else {
            lines.push(format!("backup {id} is called a success and has no manifest"));
            continue;
        };
        let dump = manifest["databases"][0]["object"].as_str().and_then(object);
        let Some(dump) = dump else {
            lines.push(format!("backup {id} is called a success and its dump is missing"));
            continue;
        };
        let database = format!("check_{number}");
        let loaded = trial.postgres()?.load(&database, &plain(dump)).await;
        let found = match loaded {
            Ok(()) => trial.postgres()?.hash(&database).await?,
            Err(error) => error.to_string(),
        };
        if found != content {
            lines.push(format!("backup {id} restores to {found} instead of {content}"));
        }
    }
    Ok(lines)
}

/// A dump without its compression.
fn plain(stored: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    if stored.starts_with(&[0x1f, 0x8b]) && MultiGzDecoder::new(stored).read_to_end(&mut plain).is_ok() {
        return plain;
    }
    stored.to_vec()
}

/// Lets the resync of everything pass, and counts what is written.
async fn quiet(trial: &Trial<'_>, state: &Value) -> Result<Vec<String>> {
    let before = trial.hub.count();
    let looked = trial.reconciles().await;
    let kinds = objects(state).filter(|(name, _)| name.starts_with("Vertice")).count();
    trial.pass(RESYNC);
    let began = Instant::now();
    while trial.reconciles().await < looked + kinds as u64 {
        if began.elapsed() > SOON {
            return Ok(vec![format!("not everything was looked at again within {} s", SOON.as_secs())]);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Err(error) = trial.settle().await {
        return Ok(vec![Finding::stuck(error)?.lines.join(", ")]);
    }
    let requests = trial.hub.seen();
    let writes = requests.iter().skip(before).filter(|request| request.is_write());
    Ok(writes.map(|write| format!("{} was sent though nothing had changed", write.point)).collect())
}
