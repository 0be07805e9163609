//! The state that a trial comes to: all objects, what events told, what is in the bucket and in the database.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};
use snafu::ResultExt as _;
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};
use vertice_backup::names;

use crate::error::{ApiSnafu, Result};
use crate::jobs::Object;
use crate::normalise::{Names, normalise};
use crate::trial::Trial;

/// What a trial came to.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// As it is.
    pub(crate) raw: Value,
    /// Without what must differ from trial to trial.
    pub(crate) normal: Value,
}

/// Reads it all.
pub(crate) async fn capture(trial: &Trial<'_>) -> Result<State> {
    let mut objects = BTreeMap::new();
    list::<VerticeBackup>(trial, &mut objects).await?;
    list::<VerticeRestore>(trial, &mut objects).await?;
    list::<CronJob>(trial, &mut objects).await?;
    list::<Job>(trial, &mut objects).await?;
    list::<Pod>(trial, &mut objects).await?;
    let mut bucket = BTreeMap::new();
    for (key, content) in trial.ground.gateway.objects(&trial.namespace)? {
        let bytes = content.len();
        let content = serde_json::from_slice(&content).unwrap_or_else(|_| json!({"bytes": bytes}));
        bucket.insert(key, content);
    }
    let mut databases = BTreeMap::new();
    for name in trial.postgres()?.databases().await? {
        let hash = trial.postgres()?.hash(&name).await?;
        databases.insert(name, hash);
    }
    let raw =
        json!({"objects": objects, "events": events(trial).await?, "bucket": bucket, "databases": databases});
    let names = Names { namespace: &trial.namespace, uids: &trial.world.uids(), epoch: trial.minute(0) };
    Ok(State { normal: normalise(raw.clone(), &names), raw })
}

async fn list<K: Object>(trial: &Trial<'_>, objects: &mut BTreeMap<String, Value>) -> Result<()> {
    let kind = K::kind(&());
    let all = trial.cluster.api::<K>().list(&ListParams::default()).await;
    for object in all.with_context(|_| ApiSnafu { doing: format!("list {kind}") })? {
        objects.insert(format!("{kind} {}", object.name_any()), json!(object));
    }
    Ok(())
}

/// What events told, each once: how often one was told is no promise of anybody's.
async fn events(trial: &Trial<'_>) -> Result<BTreeMap<String, bool>> {
    let events = notes(trial).await?;
    let told = events.iter().map(|event| {
        let about = event.regarding.clone().unwrap_or_default();
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let (kind, name) = (text(about.kind.as_ref()), text(about.name.as_ref()));
        let told = format!("{kind} {name}: {} {}", text(event.type_.as_ref()), text(event.reason.as_ref()));
        (told, true)
    });
    Ok(told.collect())
}

/// All events of the operator, as they are.
pub(crate) async fn notes(trial: &Trial<'_>) -> Result<Vec<Event>> {
    let events = trial.cluster.api::<Event>().list(&ListParams::default()).await;
    let mut events = events.context(ApiSnafu { doing: "list events" })?.items;
    let ours = |controller: &String| {
        [names::BACKUP_CONTROLLER, names::RESTORE_CONTROLLER].contains(&controller.as_str())
    };
    events.retain(|event| event.reporting_controller.as_ref().is_some_and(ours));
    Ok(events)
}

/// Where two states differ, a line each: `path: expected → found`.
pub(crate) fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", expected, found, &mut lines);
    lines
}

/// Events are told after the status that holds the same news: an operator that is killed in between tells nothing, and that is
/// right. One that nobody told in peace is a difference.
fn may_miss(path: &str, found: &Value) -> bool {
    path.starts_with("events.") && found.is_null()
}

fn compare(path: &str, expected: &Value, found: &Value, lines: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let side = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or(Value::Null);
                compare(&below, &side(expected), &side(found), lines);
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(&format!("{path}[{index}]"), expected, found, lines);
            }
        }
        (expected, found) if expected == found || may_miss(path, found) => {}
        (expected, found) => lines.push(format!("{path}: {} → {}", shown(expected), shown(found))),
    }
}

/// A value on one line of bearable length.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 300;
    let text = if value.is_null() { "nothing".to_owned() } else { value.to_string() };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_their_path_and_both_sides() {
        let expected = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        let found = json!({"a": {"b": 2, "c": [1, 3]}, "e": true});
        assert_eq!(
            differences(&expected, &found),
            ["a.b: 1 → 2", "a.c[1]: 2 → 3", "d: \"x\" → nothing", "e: nothing → true"]
        );
        assert!(differences(&expected, &expected).is_empty());
    }
}
