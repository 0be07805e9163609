//! Generated changes of a spec: A → B → A, and invalid → corrected. After each of them the objects must be those of an object that was
//! made with that spec in the first place: what a controller comes to depends on what is wanted, not on what was wanted before.
//!
//! After Acto (Gu et al., SOSP '23), whose oracles of this kind found most of its bugs.

use std::fmt;

use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use snafu::ResultExt as _;
use vertice_api::vertice_io::VerticeBackup;
use vertice_backup::names;
use vertice_controller::apply::HASH_ANNOTATION;

use crate::error::{ApiSnafu, Result};
use crate::gateway::BUCKET;
use crate::ground::Ground;
use crate::postgres::DATABASE;
use crate::state::{self, differences};
use crate::trial::Trial;

const NAME: &str = "shop";
const BACKUP: &str = "VerticeBackup shop";
const CRONJOB: &str = "CronJob shop-backup";
/// Transitions of one walk.
pub const STEPS: usize = 6;

/// Values that a field may have, the absent one as null. Firings are hours away: nothing runs.
fn fields() -> [(&'static str, Vec<Value>); 9] {
    [
        ("/schedule", vec![json!("7 5 1 2 *"), json!("30 6 3 4 1-5"), json!("@yearly")]),
        ("/timeZone", vec![Value::Null, json!("Europe/Zurich"), json!("America/New_York")]),
        ("/suspend", vec![json!(false), json!(true)]),
        ("/startingDeadline", vec![Value::Null, json!("10m"), json!("90s")]),
        ("/timeout", vec![Value::Null, json!("1h"), json!("90m")]),
        ("/target/databases", vec![Value::Null, json!([DATABASE]), json!([DATABASE, "stock"])]),
        ("/target/credentials", vec![json!("db"), json!("other")]),
        ("/storage/prefix", vec![Value::Null, json!("elsewhere")]),
        (
            "/options/compression",
            vec![
                json!({"type": "none", "level": null}),
                json!({"type": "gzip", "level": 4}),
                json!({"type": "zstd", "level": 7}),
            ],
        ),
    ]
}

/// What the API server takes and the controller does not.
fn mistakes() -> [(&'static str, Value); 4] {
    [
        ("/schedule", json!("61 * * * *")),
        ("/schedule", json!("0 0 30 2 *")),
        ("/timeZone", json!("Mars/Olympus")),
        ("/target/name", json!("nowhere")),
    ]
}

/// A spec, complete: what is absent is null.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    value: Value,
    valid: bool,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Spec {
    fn first() -> Self {
        let value = json!({
            "target": {"type": "postgresql", "name": "db", "credentials": "db", "databases": null},
            "schedule": "7 5 1 2 *",
            "timeZone": null,
            "suspend": false,
            "startingDeadline": null,
            "timeout": null,
            "storage": {
                "type": "s3", "bucket": BUCKET, "endpoint": "http://object-store:7070", "credentials": "s3", "prefix": null,
            },
            "options": {"compression": {"type": "none", "level": null}},
        });
        Self { value, valid: true }
    }

    fn with(&self, pointer: &str, value: Value) -> Self {
        let mut changed = self.clone();
        if let Some(field) = changed.value.pointer_mut(pointer) {
            *field = value;
        }
        changed
    }

    /// With one to three fields changed; never the same.
    fn changed(&self, rng: &mut StdRng) -> Self {
        let fields = fields();
        let mut changed = self.clone();
        while changed == *self {
            for _ in 0..rng.random_range(1..=3) {
                let (pointer, values) = &fields[rng.random_range(0..fields.len())];
                changed = changed.with(pointer, values[rng.random_range(0..values.len())].clone());
            }
        }
        changed
    }

    fn mistaken(&self, rng: &mut StdRng) -> Self {
        let mistakes = mistakes();
        let (pointer, value) = mistakes[rng.random_range(0..mistakes.len())].clone();
        Self { valid: false, ..self.with(pointer, value) }
    }
}

/// The specs of one walk: A → B → A → wrong → C → wrong → A.
#[must_use]
pub fn walk(seed: u64) -> Vec<Spec> {
    let mut rng = StdRng::seed_from_u64(seed);
    let a = (0..3).fold(Spec::first(), |spec, _| spec.changed(&mut rng));
    let b = a.changed(&mut rng);
    let c = a.changed(&mut rng);
    let (wrong, wrong_too) = (a.mistaken(&mut rng), c.mistaken(&mut rng));
    vec![a.clone(), b, a.clone(), wrong, c, wrong_too, a]
}

/// A transition that led elsewhere.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Of the walk.
    pub seed: u64,
    /// The spec before.
    pub from: Spec,
    /// The spec after.
    pub to: Spec,
    /// What differs: `path: of a fresh object → found`.
    pub lines: Vec<String>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {} → {}", self.seed, self.from, self.to)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What the walks came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many transitions were made.
    pub transitions: usize,
    /// Those that led elsewhere.
    pub diverged: Vec<Divergence>,
}

/// Walks from these seeds, several at a time, [`STEPS`] transitions each; `mutant` is a seeded fault of the operator.
pub async fn run(
    ground: &Ground,
    seeds: impl IntoIterator<Item = u64>,
    parallel: usize,
    mutant: Option<&str>,
) -> Result<Report> {
    let walks = futures::stream::iter(seeds).map(|seed| attempt(ground, seed, mutant));
    let mut walks = walks.buffer_unordered(parallel);
    let mut report = Report::default();
    while let Some(walked) = walks.next().await {
        let walked = walked?;
        report.transitions += walked.transitions;
        report.diverged.extend(walked.diverged);
    }
    Ok(report)
}

async fn attempt(ground: &Ground, seed: u64, mutant: Option<&str>) -> Result<Report> {
    let trial = Trial::begin(ground, None, mutant.map(str::to_owned)).await?;
    let walked = follow(&trial, seed).await;
    trial.end().await;
    walked
}

async fn follow(trial: &Trial<'_>, seed: u64) -> Result<Report> {
    let specs = walk(seed);
    let mut came_to = vec![fresh(trial, &specs[0]).await?];
    for spec in &specs[1..] {
        let changed = trial.patch::<VerticeBackup>(NAME, json!({"spec": spec.value})).await?;
        came_to.push(look(trial, &changed).await?);
    }
    let mut known: Vec<(&Spec, Value)> = vec![(&specs[0], came_to[0].clone())];
    let mut report = Report::default();
    for (step, pair) in specs.windows(2).enumerate() {
        let (from, to) = (&pair[0], &pair[1]);
        let made = if let Some((_, made)) = known.iter().find(|(spec, _)| *spec == to) {
            made.clone()
        } else {
            remove(trial).await?;
            let made = fresh(trial, to).await?;
            known.push((to, made.clone()));
            made
        };
        // What is in force stays until the mistake is corrected.
        let expected = if to.valid { made } else { mistaken(&made, &came_to[step]) };
        let found = if to.valid {
            came_to[step + 1].clone()
        } else {
            mistaken(&came_to[step + 1], &came_to[step + 1])
        };
        let lines = compare(&expected, &found);
        report.transitions += 1;
        if !lines.is_empty() {
            report.diverged.push(Divergence { seed, from: from.clone(), to: to.clone(), lines });
        }
    }
    Ok(report)
}

/// What a mistake must lead to: `told` of it as an object with the mistake tells, and the CronJob of `before`.
fn mistaken(told: &Value, before: &Value) -> Value {
    let status = &told[BACKUP]["status"];
    json!({
        "spec": told[BACKUP]["spec"],
        "phase": status["phase"],
        "conditions": status["conditions"],
        "location": status["location"],
        CRONJOB: before[CRONJOB],
    })
}

async fn fresh(trial: &Trial<'_>, spec: &Spec) -> Result<Value> {
    let object = json!({"metadata": {"name": NAME}, "spec": spec.value});
    let made = trial.create::<VerticeBackup>(object).await?;
    look(trial, &made).await
}

async fn remove(trial: &Trial<'_>) -> Result<()> {
    trial.hub.stir();
    let deleted = trial.cluster.api::<VerticeBackup>().delete(NAME, &DeleteParams::background()).await;
    deleted.with_context(|_| ApiSnafu { doing: format!("delete {BACKUP}") })?;
    trial.settle().await
}

/// All objects, once this version of the spec was judged and nothing happens any more, without what tells how they came to be.
async fn look(trial: &Trial<'_>, wanted: &VerticeBackup) -> Result<Value> {
    let (uid, generation) = (wanted.uid(), wanted.metadata.generation);
    let judged = |found: &VerticeBackup| {
        let observed = found.status.as_ref().and_then(|status| status.observed_generation);
        found.uid() == uid && observed >= generation
    };
    trial.backup(NAME, "speaks of its current spec", judged).await?;
    trial.settle().await?;
    let mut objects = state::capture(trial).await?.normal["objects"].take();
    without_past(&mut objects);
    Ok(objects)
}

/// Leaves out what an object that was changed has and a fresh one has not, or otherwise.
fn without_past(objects: &mut Value) {
    for object in objects.as_object_mut().into_iter().flat_map(|objects| objects.values_mut()) {
        let generation = object["metadata"]["generation"].take();
        // How often the spec was changed; that the status speaks of the last change is kept.
        let speaks = |observed: &mut Value| {
            if !generation.is_null() && *observed == generation {
                *observed = json!("the current one");
            }
        };
        if let Some(observed) = object.pointer_mut("/status/observedGeneration") {
            speaks(observed);
        }
        for condition in
            object.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten()
        {
            if let Some(observed) = condition.get_mut("observedGeneration") {
                speaks(observed);
            }
            // A condition may be older than the spec.
            condition["lastTransitionTime"].take();
        }
        let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
        let mut annotations = annotations.map(std::mem::take).unwrap_or_default();
        annotations.remove(HASH_ANNOTATION);
        // A schedule that was changed is in force from then on, and catches up on nothing until its first firing.
        let begins = annotations.remove(names::IN_FORCE_SINCE_ANNOTATION).is_some();
        object["metadata"]["annotations"] = Value::Object(annotations);
        if begins {
            object["spec"]["startingDeadlineSeconds"] = BEGINS.into();
        }
    }
}

/// Instead of the deadline of a schedule that begins to be in force.
const BEGINS: &str = "until the first firing another one";

/// Where the objects differ from those of a fresh one.
fn compare(fresh: &Value, found: &Value) -> Vec<String> {
    let mut fresh = fresh.clone();
    let deadline = |objects: &Value| objects[CRONJOB]["spec"]["startingDeadlineSeconds"].clone();
    if deadline(found) == BEGINS {
        fresh[CRONJOB]["spec"]["startingDeadlineSeconds"] = BEGINS.into();
    }
    differences(&fresh, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_comes_from_its_seed_and_goes_back_to_where_it_began() {
        let one = walk(7);
        assert_eq!(one, walk(7));
        assert_ne!(one, walk(8));
        assert_eq!(one.len(), STEPS + 1);
        assert_eq!(one[0], one[2]);
        assert_eq!(one[0], one[STEPS]);
        assert!(one.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(one.iter().filter(|spec| !spec.valid).count(), 2);
    }

    #[test]
    fn every_field_that_is_changed_is_there() {
        let pointers =
            fields().map(|(pointer, _)| pointer).into_iter().chain(mistakes().map(|(pointer, _)| pointer));
        for pointer in pointers {
            assert!(Spec::first().value.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn only_the_past_is_left_out() {
        let object = |generation: i64, observed: i64, in_force: bool, deadline: i64| {
            let mut object = json!({CRONJOB: {
                "metadata": {"generation": generation, "annotations": {HASH_ANNOTATION: generation}},
                "spec": {"startingDeadlineSeconds": deadline},
                "status": {"observedGeneration": observed},
            }});
            if in_force {
                object[CRONJOB]["metadata"]["annotations"][names::IN_FORCE_SINCE_ANNOTATION] = "then".into();
            }
            without_past(&mut object);
            object
        };
        assert_eq!(object(1, 1, false, 5), object(4, 4, false, 5));
        assert_ne!(object(1, 1, false, 5), object(4, 3, false, 5));
        assert_ne!(object(1, 1, false, 5), object(1, 1, false, 6));
        assert_eq!(object(1, 1, true, 5), object(2, 2, true, 6));
        assert!(compare(&object(1, 1, false, 5), &object(2, 2, true, 6)).is_empty());
        assert!(!compare(&object(1, 1, false, 5), &object(2, 1, true, 6)).is_empty());
    }
}
