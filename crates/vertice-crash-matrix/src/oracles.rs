//! What must hold at the end of every trial, whatever befell it.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::hub::{Fate, Hub};
use crate::jobs::Carried;
use crate::normalise::without_lost;
use crate::people::Upset;
use crate::reference::Expected;
use crate::run::is_where_expected;
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
    /// What was sent for an object that is gone did not reach the one that took its place.
    Identity,
    /// A VerticeRestore is carried out once at most, and called a success only when it was.
    Once,
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
            Self::Identity => "identity",
            Self::Once => "once",
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

/// Waits until the trial came to what is expected of it, or to another state for good. Without that it may come to what it will.
pub(crate) async fn converge(
    trial: &Trial<'_>,
    expected: Option<&Expected>,
) -> Result<(State, Option<Finding>)> {
    let began = Instant::now();
    loop {
        trial.still().await?;
        let state = state::capture(trial).await?;
        let expected = expected.filter(|expected| is_where_expected(trial, Some(expected)));
        let Some(expected) = expected else { return Ok((state, None)) };
        let upset = trial.hub.upset();
        let seen = |state: &Value| {
            let mut state = state.clone();
            if let Some(upset) = &upset {
                without_lost(&mut state, upset);
            }
            state
        };
        let found = seen(&state.normal);
        let states = expected.of(upset.as_ref()).iter();
        let all = states.map(|expected| differences(&seen(expected), &found));
        let lines = all.min_by_key(Vec::len).unwrap_or_default();
        if lines.is_empty() || began.elapsed() > PATIENCE {
            return Ok((state, Finding::new(Oracle::SameEnd, lines)));
        }
    }
}

/// Asks all oracles but the end state's.
pub(crate) async fn ask(trial: &Trial<'_>, state: &State) -> Result<Vec<Finding>> {
    let findings = [
        Finding::new(Oracle::Orphans, orphans(&state.raw)),
        Finding::new(Oracle::Secrets, secrets(trial, &state.raw).await?),
        Finding::new(Oracle::Counts, counts(&state.raw, trial.hub.upset().as_ref())),
        Finding::new(Oracle::Restores, restores(trial, &state.raw).await?),
        Finding::new(Oracle::Identity, identity(&trial.hub)),
        Finding::new(Oracle::Once, once(&state.raw, &trial.kubelet.restores())),
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

fn counts(state: &Value, upset: Option<&Upset>) -> Vec<String> {
    let mut lines = Vec::new();
    let cut = upset.filter(|upset| upset.kind == "CronJob").map(|upset| &upset.cut).into_iter().flatten();
    let histories =
        || objects(state).filter_map(|(_, object)| object["status"]["history"].as_array()).flatten();
    for job in cut {
        if !histories().any(|run| run["jobUid"] == job.as_str()) {
            lines.push(format!("the run of the Job with UID {job}, which was deleted, is not counted"));
        }
    }
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

fn identity(hub: &Hub) -> Vec<String> {
    let Some(Upset { fault, kind, .. }) = hub.upset() else { return Vec::new() };
    let Some(seen) = hub.hit() else { return Vec::new() };
    let Some(call) = &seen.call else { return Vec::new() };
    let is_of_the_old = match fault {
        Fault::RemakeBefore => call.subresource.as_deref() == Some("status"),
        // A CronJob is whatever has its name and our mark.
        Fault::Replace => kind == "Job",
        _ => false,
    };
    match seen.fate {
        Fate::Answered(status) if is_of_the_old && status < 300 => {
            vec![format!(
                "{} was meant for a {kind} that was gone, and changed the next one of its name",
                seen.point
            )]
        }
        _ => Vec::new(),
    }
}

/// `carried` is all that agents did for VerticeRestores.
fn once(state: &Value, carried: &[Carried]) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, run) in carried.iter().enumerate() {
        if carried[..number].iter().any(|other| other.owner == run.owner) {
            lines.push(format!("the VerticeRestore with UID {} was carried out twice", run.owner));
        }
    }
    for (name, restore) in objects(state).filter(|(name, _)| name.starts_with("VerticeRestore ")) {
        let status = &restore["status"];
        let its = |run: &&Carried| restore["metadata"]["uid"] == run.owner.as_str();
        let told = |run: &&Carried| status["jobUid"] == run.job.as_str();
        if carried.iter().filter(its).any(|run| !told(&run)) {
            lines.push(format!("{name}: an agent worked for it in a Job that its status does not name"));
        }
        if status["phase"] == "Succeeded"
            && !carried.iter().filter(its).filter(told).any(|run| run.code == Some(0))
        {
            lines.push(format!("{name} is called a success, and no agent that worked for it had any"));
        }
    }
    lines
}

/// Loads every backup that a status calls a success into a database, and compares all that is in there.
async fn restores(trial: &Trial<'_>, state: &Value) -> Result<Vec<String>> {
    let content = trial.content();
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
    if let Err(error) = trial.still().await {
        return Ok(vec![Finding::stuck(error)?.lines.join(", ")]);
    }
    let requests = trial.hub.seen();
    let writes = requests.iter().skip(before).filter(|request| request.is_write());
    Ok(writes.map(|write| format!("{} was sent though nothing had changed", write.point)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_restore_is_called_a_success_only_when_an_agent_had_it_and_only_one_worked_for_it() {
        let run =
            |job: &str, code: i32| Carried { owner: "u".to_owned(), job: job.to_owned(), code: Some(code) };
        let state = |phase: &str| {
            json!({"objects": {"VerticeRestore back": {
                "metadata": {"uid": "u"}, "status": {"phase": phase, "jobUid": "one"},
            }}})
        };
        assert!(once(&state("Succeeded"), &[run("one", 0)]).is_empty());
        assert!(once(&state("Failed"), &[]).is_empty());
        assert_eq!(once(&state("Succeeded"), &[]).len(), 1);
        assert_eq!(once(&state("Succeeded"), &[run("one", 1)]).len(), 1);
        assert_eq!(once(&state("Failed"), &[run("two", 0)]).len(), 1);
        assert_eq!(once(&state("Succeeded"), &[run("one", 0), run("one", 0)]).len(), 1);
    }
}
