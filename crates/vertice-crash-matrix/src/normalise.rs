//! What may differ from trial to trial, and why: one table. Any other difference is a finding.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use vertice_catalog::layout;

use crate::fault::Fault;
use crate::people::Upset;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Where, name by name; `*` is any one name, `**` any number of them.
    pub path: &'static [&'static str],
    /// What becomes of it.
    pub how: How,
    /// Why it must differ.
    pub why: &'static str,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is left out.
    LeaveOut,
    /// Of a list of conditions, `Suspended` is left out.
    Suspensions,
    /// Of a list of managed fields, only who manages by which operation is kept.
    Managers,
    /// Text: the trial's namespace becomes `NAMESPACE`.
    Namespace,
    /// Text: ports of this machine become `PORT`.
    Ports,
    /// Text: a UID becomes the kind and name of its object.
    Uids,
    /// Text: ids of backups are numbered in their order.
    BackupIds,
    /// Text: an instant of the injected clock is rounded down to ten minutes since the trial's beginning, any other left out.
    Instants,
    /// Pods that ended without a report are left out, the others numbered anew.
    KilledPods,
    /// Objects that belonged to a deleted one are left out.
    Collected,
}

impl How {
    /// For the printed table.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            Self::LeaveOut => "left out",
            Self::Suspensions => "Suspended is left out",
            Self::Managers => "only manager, operation and subresource are kept",
            Self::Namespace => "the trial's namespace becomes NAMESPACE",
            Self::Ports => "127.0.0.1:1234 becomes 127.0.0.1:PORT",
            Self::Uids => "becomes kind and name of the object",
            Self::BackupIds => "numbered in their order",
            Self::Instants => "the injected clock's are rounded down to ten minutes, the machine's left out",
            Self::Collected => "what belonged to it is left out",
            Self::KilledPods => "pods without a report are left out, the others numbered anew",
        }
    }
}

/// The table, in the order in which it is applied.
pub const RULES: [Rule; 15] = [
    Rule {
        path: &["objects"],
        how: How::KilledPods,
        why: "an agent that was killed is replaced by a second pod of its Job",
    },
    Rule {
        path: &["objects", "*", "status", "failed"],
        how: How::LeaveOut,
        why: "the Job controller counts the pods that were killed",
    },
    Rule {
        path: &["objects", "*", "status", "conditions"],
        how: How::Suspensions,
        why: "a Job that is let go at once is not always seen suspended by the Job controller; the spec says whether it is",
    },
    Rule {
        path: &["objects", "*", "metadata", "resourceVersion"],
        how: How::LeaveOut,
        why: "etcd's revision, shared with all other trials",
    },
    Rule {
        path: &["objects", "*", "metadata", "creationTimestamp"],
        how: How::LeaveOut,
        why: "the API server's own clock",
    },
    Rule {
        path: &["objects", "*", "metadata", "managedFields"],
        how: How::Managers,
        why: "dated by the API server's own clock",
    },
    Rule {
        path: &["objects", "*", "status", "rate"],
        how: How::LeaveOut,
        why: "bytes by the seconds that the machine took",
    },
    Rule {
        path: &["objects", "*", "metadata", "annotations", "vertice.io/applied-hash"],
        how: How::LeaveOut,
        why: "covers the namespace and the owner's UID",
    },
    Rule {
        path: &["bucket", "*", "objects", "*", "plain", "sha256"],
        how: How::LeaveOut,
        why: "a dump begins with its instant",
    },
    Rule {
        path: &["bucket", "*", "objects", "*", "stored", "sha256"],
        how: How::LeaveOut,
        why: "a dump begins with its instant",
    },
    Rule { path: &["**"], how: How::Namespace, why: "every trial has its own" },
    Rule { path: &["**"], how: How::Ports, why: "servers that run at the same time share an address" },
    Rule { path: &["**"], how: How::Uids, why: "random; that the right object is meant is kept" },
    Rule { path: &["**"], how: How::BackupIds, why: "dated by the machine's clock, with a random end" },
    Rule {
        path: &["**"],
        how: How::Instants,
        why: "what is tried again comes after a backoff; agents and API server live by the machine's clock",
    },
];

/// What more may differ when a person deleted an object.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Of which kind it was.
    pub kind: &'static str,
    /// By which faults.
    pub faults: &'static [Fault],
    /// Only if a run goes with it whose end was not seen.
    pub cut: bool,
    /// What then may differ.
    pub rule: Rule,
}

/// The table for trials that are struck so; whoever remakes a custom resource is compared with one who does it while the story rests.
pub const LOSSES: [Loss; 10] = [
    Loss {
        kind: "CronJob",
        faults: &Fault::DELETIONS,
        cut: false,
        rule: Rule {
            path: &["objects"],
            how: How::Collected,
            why: "the garbage collector deletes the Jobs and pods of a CronJob that is gone",
        },
    },
    Loss {
        kind: "CronJob",
        faults: &Fault::DELETIONS,
        cut: false,
        rule: Rule {
            path: &["objects", "CronJob shop-backup", "metadata", "generation"],
            how: How::LeaveOut,
            why: "begins anew",
        },
    },
    Loss {
        kind: "CronJob",
        faults: &Fault::DELETIONS,
        cut: false,
        rule: Rule {
            path: &["objects", "CronJob shop-backup", "metadata", "annotations", "vertice.io/in-force-since"],
            how: How::LeaveOut,
            why: "a CronJob that is younger than its schedule has nothing to catch up on",
        },
    },
    Loss {
        kind: "CronJob",
        faults: &Fault::DELETIONS,
        cut: false,
        rule: Rule {
            path: &["objects", "CronJob shop-backup", "status", "lastSuccessfulTime"],
            how: How::LeaveOut,
            why: "kept on the CronJob that is gone",
        },
    },
    Loss {
        kind: "CronJob",
        faults: &[Fault::Replace],
        cut: false,
        rule: Rule {
            path: &["objects", "CronJob shop-backup", "metadata", "managedFields"],
            how: How::LeaveOut,
            why: "whoever made it manages its fields, too",
        },
    },
    Loss {
        kind: "Job",
        faults: &Fault::DELETIONS,
        cut: false,
        rule: Rule {
            path: &["events", "VerticeRestore back: Warning RestoreFailed"],
            how: How::LeaveOut,
            why: "a restore whose Job was deleted has failed, and is not tried again by itself",
        },
    },
    Loss {
        kind: "CronJob",
        faults: &Fault::DELETIONS,
        cut: true,
        rule: Rule {
            path: &["objects", "VerticeBackup shop", "status"],
            how: How::LeaveOut,
            why: "a run that is gone before its end was seen is called a failure; that it is counted is asked, too",
        },
    },
    Loss {
        kind: "CronJob",
        faults: &Fault::DELETIONS,
        cut: true,
        rule: Rule {
            path: &["events", "VerticeBackup shop: Warning BackupFailed"],
            how: How::LeaveOut,
            why: "told of the run that was deleted",
        },
    },
    Loss {
        kind: "CronJob",
        faults: &Fault::DELETIONS,
        cut: true,
        rule: Rule {
            path: &["bucket"],
            how: How::LeaveOut,
            why: "a run that is deleted stops where it is; the next one clears up",
        },
    },
    Loss {
        kind: "VerticeRestore",
        faults: &Fault::REMAKES,
        cut: false,
        rule: Rule {
            path: &["events", "VerticeRestore back: Warning NameTaken"],
            how: How::LeaveOut,
            why: "one that is made again waits for the Job of the one before to be collected, and says so",
        },
    },
];

/// Applies the table of losses.
pub(crate) fn without_lost(state: &mut Value, upset: &Upset) {
    for Loss { kind, faults, cut, rule } in &LOSSES {
        let is_cut = !cut || !upset.cut.is_empty();
        if *kind == upset.kind && is_cut && faults.contains(&upset.fault) {
            at(state, rule.path, &mut |parent, key| match rule.how {
                How::Collected => {
                    if let Some(all) = parent.get_mut(key).and_then(Value::as_object_mut) {
                        all.retain(|name, _| !upset.collected.contains(name));
                    }
                }
                _ => drop(parent.remove(key)),
            });
        }
    }
}

/// What a trial's own names are.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) uids: &'a HashMap<String, String>,
    pub(crate) epoch: Timestamp,
}

/// Applies the table.
pub(crate) fn normalise(mut state: Value, names: &Names<'_>) -> Value {
    for rule in RULES {
        match rule.how {
            How::LeaveOut => at(&mut state, rule.path, &mut |parent, key| {
                parent.remove(key);
            }),
            How::Suspensions => at(&mut state, rule.path, &mut |parent, key| {
                if let Some(conditions) = parent.get_mut(key).and_then(Value::as_array_mut) {
                    conditions.retain(|one| one["type"] != "Suspended");
                }
            }),
            How::Managers => at(&mut state, rule.path, &mut |parent, key| {
                parent.get_mut(key).map(managers);
            }),
            How::KilledPods => at(&mut state, rule.path, &mut |parent, key| {
                parent.get_mut(key).and_then(Value::as_object_mut).map(killed_pods);
            }),
            How::Namespace => texts(&mut state, &mut |text| text.replace(names.namespace, "NAMESPACE")),
            How::Ports => texts(&mut state, &mut ports),
            How::Uids => texts(&mut state, &mut |text| uids(text, names.uids)),
            How::BackupIds => {
                let ids = backup_ids(&state);
                texts(&mut state, &mut |text| numbered(text, &ids));
            }
            How::Instants => texts(&mut state, &mut |text| instant(text, names.epoch)),
            // Of the table of losses.
            How::Collected => {}
        }
    }
    state
}

/// Calls `change` with each object and key that a path leads to.
fn at(value: &mut Value, path: &[&str], change: &mut dyn FnMut(&mut Map<String, Value>, &str)) {
    match (value, path) {
        (Value::Object(map), [last]) => change(map, last),
        (Value::Object(map), ["*", rest @ ..]) => {
            map.values_mut().for_each(|below| at(below, rest, change));
        }
        (Value::Object(map), [first, rest @ ..]) => {
            if let Some(below) = map.get_mut(*first) {
                at(below, rest, change);
            }
        }
        (Value::Array(list), ["*", rest @ ..]) => list.iter_mut().for_each(|below| at(below, rest, change)),
        _ => {}
    }
}

/// Rewrites every text, names of fields included.
fn texts(value: &mut Value, rewrite: &mut dyn FnMut(&str) -> String) {
    match value {
        Value::String(text) => *text = rewrite(text),
        Value::Array(list) => list.iter_mut().for_each(|below| texts(below, rewrite)),
        Value::Object(map) => {
            let renamed = std::mem::take(map).into_iter().map(|(key, mut below)| {
                texts(&mut below, rewrite);
                (rewrite(&key), below)
            });
            *map = renamed.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn managers(fields: &mut Value) {
    let entries = fields.as_array().cloned().unwrap_or_default();
    let kept: BTreeSet<String> = entries
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("manager"), text("operation"), text("subresource"))
        })
        .collect();
    *fields = json!(kept);
}

/// A pod whose container was killed: it left no report.
fn was_killed(pod: &Value) -> bool {
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    end.is_object() && end["message"].is_null()
}

fn killed_pods(objects: &mut Map<String, Value>) {
    let pods: Vec<String> = objects.keys().filter(|key| key.starts_with("Pod ")).cloned().collect();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for key in pods {
        let Some(mut pod) = objects.remove(&key) else { continue };
        if was_killed(&pod) {
            continue;
        }
        let job = key.rsplit_once('-').map_or(key.as_str(), |(job, _)| job).to_owned();
        let number = numbers.entry(job.clone()).or_default();
        *number += 1;
        let renamed = format!("{job}-{number}");
        pod["metadata"]["name"] = renamed.trim_start_matches("Pod ").into();
        // A pod's UID leads to its old name.
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        objects.insert(renamed, pod);
    }
}

fn ports(text: &str) -> String {
    const HOST: &str = "127.0.0.1:";
    let mut parts = text.split(HOST);
    let mut without = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|character: char| character.is_ascii_digit());
        without.push_str(HOST);
        without.push_str("PORT");
        without.push_str(rest);
    }
    without
}

/// UIDs are 36 characters long.
const UID: usize = 36;

fn uids(text: &str, known: &HashMap<String, String>) -> String {
    if text.len() < UID {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for (uid, name) in known {
        if text.contains(uid.as_str()) {
            text = text.replace(uid.as_str(), &format!("UID of {name}"));
        }
    }
    text
}

/// Ids of all backups in the bucket, in their order: by their second, and within one by what their manifests say.
fn backup_ids(state: &Value) -> Vec<String> {
    let keys = state["bucket"].as_object().into_iter().flat_map(Map::keys);
    let below = |key: &String| {
        let (prefix, key) = key.split_once('/').unwrap_or_default();
        let id = layout::backup_of(key)?;
        let manifest = &state["bucket"][format!("{prefix}/{}", layout::manifest(&id))];
        let began = manifest["startedAt"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        let id = id.to_string();
        let second = id.split('-').next().unwrap_or_default().to_owned();
        Some((second, began, id))
    };
    keys.filter_map(below).collect::<BTreeSet<_>>().into_iter().map(|(_, _, id)| id).collect()
}

fn numbered(text: &str, ids: &[String]) -> String {
    let mut text = text.to_owned();
    for (number, id) in ids.iter().enumerate() {
        if text.contains(id.as_str()) {
            text = text.replace(id.as_str(), &format!("BACKUP {}", number + 1));
        }
    }
    text
}

/// Ten minutes: what a story does is ten minutes apart.
const STEP: i64 = 600;

fn instant(text: &str, epoch: Timestamp) -> String {
    // Reports are JSON within texts.
    if text.starts_with('{')
        && let Ok(mut inner) = serde_json::from_str::<Value>(text)
    {
        texts(&mut inner, &mut |text| instant(text, epoch));
        return inner.to_string();
    }
    let Ok(at) = text.parse::<Timestamp>() else { return text.to_owned() };
    if at < epoch {
        return "an instant of the machine's clock".to_owned();
    }
    let seconds = at.duration_since(epoch).as_secs() / STEP * STEP;
    format!("{} after the beginning", SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(uids: &HashMap<String, String>) -> Names<'_> {
        Names { namespace: "crash-1", uids, epoch: Timestamp::from_second(1_000_000_200).unwrap() }
    }

    #[test]
    fn only_what_the_table_names_is_lost() {
        let uid = "3b241101-e2bb-4255-8caf-4136c566a962";
        let uids = HashMap::from([(uid.to_owned(), "Job shop-1".to_owned())]);
        let state = |namespace: &str, seconds: i64, version: &str, value: i64| {
            json!({"objects": {"VerticeBackup shop": {
                "metadata": {"namespace": namespace, "resourceVersion": version},
                "status": {
                    "at": Timestamp::from_second(1_000_000_200 + seconds).unwrap(), "jobUid": uid, "value": value,
                },
            }}})
        };
        let one = normalise(state("crash-1", 601, "7", 1), &names(&uids));
        assert_eq!(one, normalise(state("crash-1", 1190, "8", 1), &names(&uids)));
        assert_ne!(one, normalise(state("crash-1", 1201, "7", 1), &names(&uids)));
        assert_ne!(one, normalise(state("crash-2", 601, "7", 1), &names(&uids)));
        assert_ne!(one, normalise(state("crash-1", 601, "7", 2), &names(&uids)));
        assert_ne!(one, normalise(state("crash-1", 601, "7", 1), &names(&HashMap::new())));
    }

    #[test]
    fn only_what_goes_with_a_deleted_object_is_lost() {
        let state = |jobs: &[&str], generation: i64, suspend: bool| {
            let mut state = json!({
                "objects": {"CronJob shop-backup": {"metadata": {"generation": generation}, "spec": {"suspend": suspend}}},
            });
            for job in jobs {
                state["objects"][format!("Job {job}")] = json!({});
            }
            state
        };
        let lost = |mut state: Value, fault: Fault, kind: &str| {
            let collected = BTreeSet::from(["Job old".to_owned()]);
            without_lost(&mut state, &Upset { fault, kind: kind.to_owned(), collected, cut: Vec::new() });
            state
        };
        let deleted = |state| lost(state, Fault::DeleteAfter, "CronJob");
        assert_eq!(deleted(state(&["old", "new"], 1, true)), deleted(state(&["new"], 2, true)));
        assert_ne!(deleted(state(&["old", "new"], 1, true)), deleted(state(&["old"], 1, true)));
        assert_ne!(deleted(state(&[], 1, true)), deleted(state(&[], 1, false)));
        let remade = |state| lost(state, Fault::RemakeAfter, "VerticeBackup");
        assert_ne!(remade(state(&["old"], 1, true)), remade(state(&[], 1, true)));
    }

    #[test]
    fn backups_of_one_second_are_numbered_by_their_manifests() {
        let bucket = json!({
            "shop/20261121T020000Z-aaaaaa/manifest.json": {"startedAt": "2026-11-21T02:00:00.9Z"},
            "shop/20261121T020000Z-aaaaaa/databases/0.dump": {},
            "shop/20261121T020000Z-bbbbbb/manifest.json": {"startedAt": "2026-11-21T02:00:00.1Z"},
            "shop/20261121T015959Z-cccccc/databases/0.dump": {},
        });
        let ids = backup_ids(&json!({"bucket": bucket}));
        assert_eq!(ids, ["20261121T015959Z-cccccc", "20261121T020000Z-bbbbbb", "20261121T020000Z-aaaaaa"]);
    }

    #[test]
    fn ports_of_this_machine_are_lost() {
        assert_eq!(ports("a@127.0.0.1:42139 and 127.0.0.1:7: 9"), "a@127.0.0.1:PORT and 127.0.0.1:PORT: 9");
        assert_eq!(ports("db:5432"), "db:5432");
    }

    #[test]
    fn a_pod_that_was_killed_is_left_out_and_its_successor_takes_its_number() {
        let pod = |name: &str, message: Option<&str>| json!({"metadata": {"name": name}, "status": {"containerStatuses": [{"state": {"terminated": {"message": message}}}]}});
        let two = json!({"objects": {"Pod a-1": pod("a-1", None), "Pod a-2": pod("a-2", Some("report"))}});
        let one = json!({"objects": {"Pod a-1": pod("a-1", Some("report"))}});
        let uids = HashMap::new();
        assert_eq!(normalise(two, &names(&uids)), normalise(one, &names(&uids)));
    }
}
