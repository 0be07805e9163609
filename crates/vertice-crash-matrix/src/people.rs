//! What people do at the worst moment: they delete an object that the operator is at, and perhaps make it again.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use serde_json::{Value, json};
use snafu::ResultExt as _;
use vertice_api::vertice_io::RunStatus;

use crate::error::{ApiSnafu, Result, ShapeSnafu};
use crate::fault::Fault;
use crate::jobs::{Cluster, Object};

/// What was done, and to what.
#[derive(Clone, Debug)]
pub(crate) struct Upset {
    /// As which fault.
    pub(crate) fault: Fault,
    /// Kind of what was deleted.
    pub(crate) kind: String,
    /// What goes with it, by kind and name.
    pub(crate) collected: BTreeSet<String>,
    /// UIDs of Jobs among these whose end the operator had not seen.
    pub(crate) cut: Vec<String>,
}

impl Cluster {
    /// Does it to the object of this name, or to the only one of its kind. When there is none, the point counts as not met.
    pub(crate) async fn upset(&self, fault: Fault, resource: &str, name: Option<&str>) -> Result<()> {
        let _working = self.hub.working();
        let world = &self.world;
        let upset = match resource {
            "verticebackups" => self.strike(fault, &world.backups, None).await?,
            "verticerestores" => self.strike(fault, &world.restores, None).await?,
            "cronjobs" => self.strike(fault, &world.cronjobs, name).await?,
            "jobs" => self.strike(fault, &world.jobs, name).await?,
            _ => None,
        };
        self.hub.upsets(upset);
        Ok(())
    }

    async fn strike<K: Object>(
        &self,
        fault: Fault,
        store: &Store<K>,
        name: Option<&str>,
    ) -> Result<Option<Upset>> {
        let kind = K::kind(&()).into_owned();
        let all = self.api::<K>().list(&ListParams::default()).await;
        let all = all.with_context(|_| ApiSnafu { doing: format!("list {kind}") })?;
        let Some(found) = all.into_iter().find(|found| name.is_none_or(|name| name == found.name_any()))
        else {
            return Ok(None);
        };
        let (collected, cut) = self.below(&found.uid().unwrap_or_default());
        self.remove(&found).await?;
        if fault.remakes() || fault == Fault::Replace {
            let made = self.again(&found).await?;
            self.until(|| self.world.get(store, &made.name_any()).is_some_and(|is| is.uid() == made.uid()))
                .await;
            if kind == "CronJob" {
                self.settled_in(&made.name_any()).await;
            }
        }
        Ok(Some(Upset { fault, kind, collected, cut }))
    }

    /// All that belongs to the object of this UID, by kind and name; and the UIDs of Jobs among it that a status calls running.
    fn below(&self, uid: &str) -> (BTreeSet<String>, Vec<String>) {
        let mut owners = BTreeSet::from([uid.to_owned()]);
        let mut names = BTreeSet::new();
        let mut add = |object: &ObjectMeta, kind: &str| {
            let belongs = object.owner_references.iter().flatten().any(|owner| owners.contains(&owner.uid));
            if belongs {
                names.insert(format!("{kind} {}", object.name.clone().unwrap_or_default()));
                owners.extend(object.uid.clone());
            }
            belongs
        };
        let world = &self.world;
        for cronjob in world.cronjobs.state() {
            add(&cronjob.metadata, "CronJob");
        }
        let jobs = world.jobs.state().into_iter().filter(|job| add(&job.metadata, "Job"));
        let jobs: BTreeSet<_> = jobs.filter_map(|job| job.uid()).collect();
        for pod in world.pods.state() {
            add(&pod.metadata, "Pod");
        }
        let told = world.backups.state().into_iter().filter_map(|backup| backup.status.clone()?.last_backup);
        let running = told.filter(|run| run.status == RunStatus::Running).map(|run| run.job_uid);
        (names, running.filter(|uid| jobs.contains(uid)).collect())
    }

    /// Deletes this very object; the garbage collector comes later.
    async fn remove<K: Object>(&self, found: &K) -> Result<()> {
        let name = found.name_any();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: found.uid(), resource_version: None }),
            ..DeleteParams::background()
        };
        self.hub.stir();
        let deleted = self.api::<K>().delete(&name, &params).await;
        deleted.map(drop).with_context(|_| ApiSnafu { doing: format!("delete {} {name}", K::kind(&())) })
    }

    /// Makes it again.
    async fn again<K: Object>(&self, found: &K) -> Result<K> {
        let kind = K::kind(&()).into_owned();
        let wanted = K::deserialize(as_written(&json!(found))).context(ShapeSnafu { what: &kind })?;
        let made = self.api::<K>().create(&PostParams::default(), &wanted).await;
        made.with_context(|_| ApiSnafu { doing: format!("make {kind} {} again", found.name_any()) })
    }
}

/// An object as a person would write it down: without what the API server adds.
fn as_written(object: &Value) -> Value {
    let mut written = json!({"metadata": {}, "spec": object["spec"]});
    for field in ["name", "labels", "annotations", "ownerReferences"] {
        if !object["metadata"][field].is_null() {
            written["metadata"][field] = object["metadata"][field].clone();
        }
    }
    // Of a Job: names it by its UID.
    if let Some(spec) = written["spec"].as_object_mut() {
        spec.remove("selector");
    }
    if let Some(labels) = written.pointer_mut("/spec/template/metadata/labels").and_then(Value::as_object_mut)
    {
        labels.retain(|label, _| !label.ends_with("controller-uid") && !label.ends_with("job-name"));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_again_says_nothing_of_the_one_before() {
        let job = json!({
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "generation": 3, "labels": {"x": "y"}},
            "spec": {
                "suspend": true,
                "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
                "template": {"metadata": {"labels": {
                    "x": "y", "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u", "job-name": "a",
                }}},
            },
            "status": {"active": 1},
        });
        let written = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"suspend": true, "template": {"metadata": {"labels": {"x": "y"}}}},
        });
        assert_eq!(as_written(&job), written);
    }
}
