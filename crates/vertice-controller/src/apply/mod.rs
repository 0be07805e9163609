//! Server-side apply with one field manager a controller, and no request when nothing changed.
//!
//! Two questions decide whether a request is needed, and both are answered from `metadata` alone, so that a metadata-only watch
//! is enough and a restarted controller needs no memory:
//! 1. Is what we want what we applied last? The hash of the last applied intent is in the annotation
//!    [`HASH_ANNOTATION`].
//! 2. Did someone else touch our fields? Then the API server took them out of our entry in `managedFields` (see `fields`).
//!    Status changes, and fields that others set, do not matter.
//!
//! Caches keep our own entry of `managedFields` and prune the others ([`prune`]).

mod error;
mod fields;
mod packed;
mod status;

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use snafu::ResultExt as _;

use self::error::SerializeSnafu;
pub use self::error::{ApplyError, FieldError, is_conflict};
use crate::{
    events::Events,
    metrics::ControllerMetrics,
    mutant::{self, Mutant},
};

/// Holds the hash of what was applied last.
pub const HASH_ANNOTATION: &str = "vertice.io/applied-hash";

/// How an apply ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied<K> {
    /// Nothing was to do, and nothing was sent.
    Unchanged,
    /// The object is being deleted; it was left alone and can be made again once it is gone.
    Terminating,
    /// It was made.
    Created(K),
    /// It was brought up to a new intent.
    Updated(K),
    /// Someone else had changed these fields; they were set right. Counted, and told in an event at the owner.
    Corrected(K, Vec<String>),
}

/// Writes objects for one controller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Applier {
    manager: String,
    events: Events,
    metrics: ControllerMetrics,
    /// What the server made of our last apply, by UID; only spares requests, see [`Applier::judge`].
    remembered: Arc<Mutex<HashMap<String, Remembered>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Remembered {
    hash: String,
    /// The hash of the fields that were ours then.
    owned: String,
    version: u64,
}

/// Forgetting costs one request an object, so the memory is simply emptied when it grows past this.
const REMEMBER_MAX: usize = 20_000;

/// What is to do about an object that exists.
#[derive(Debug, PartialEq)]
enum Verdict {
    Unchanged,
    Terminating,
    Foreign,
    Update,
    Drift(Vec<String>),
}

/// An intent, ready to be sent.
struct Intent {
    name: String,
    /// For messages, `CronJob shop/nightly`.
    object: String,
    api_version: String,
    hash: String,
    body: Value,
}

impl Applier {
    /// `manager` is the field manager, for example `vertice-backup`.
    #[must_use]
    pub fn new(manager: &str, events: Events, metrics: ControllerMetrics) -> Self {
        Self { manager: manager.to_owned(), events, metrics, remembered: Arc::default() }
    }

    /// The field manager.
    #[must_use]
    pub fn manager(&self) -> &str {
        &self.manager
    }

    /// Brings `intent` to be. `observed` is the object's metadata as the cache has it, `None` when it has none; `owner` is told
    /// about corrected drift. Only fields that are set in `intent` are touched; fields that an earlier intent set and this one
    /// does not are removed.
    pub async fn apply<K, O>(
        &self,
        api: &Api<K>,
        owner: &O,
        intent: &K,
        observed: Option<&ObjectMeta>,
    ) -> Result<Applied<K>, ApplyError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
        O: Resource<DynamicType = ()>,
    {
        let intent = Intent::new(intent)?;
        let Some(observed) = observed else {
            // Without force: an object that the cache does not have yet and that is not ours is not taken over.
            let made = self.send(api, &intent, false).await?;
            return Ok(Applied::Created(made));
        };
        let read;
        let observed = if observed.managed_fields.is_some() {
            observed
        } else {
            // Pruned without us in mind: one read, no write.
            let object = api.get_metadata(&intent.name).await;
            read = object.map_err(|error| ApplyError::from_kube(intent.object.clone(), error))?.metadata;
            &read
        };
        match self.judge(&intent, observed) {
            Verdict::Unchanged => Ok(Applied::Unchanged),
            Verdict::Terminating => Ok(Applied::Terminating),
            Verdict::Foreign => {
                Err(ApplyError::Foreign { object: intent.object, manager: self.manager.clone() })
            }
            Verdict::Update => Ok(Applied::Updated(self.send(api, &intent, true).await?)),
            Verdict::Drift(fields) => {
                let object = self.send(api, &intent, true).await?;
                self.tell(&K::plural(&()), &intent, owner, &fields).await;
                Ok(Applied::Corrected(object, fields))
            }
        }
    }

    /// Whether a cached object is older than what this process applied last: a decision that is made from what the object says must
    /// then be made from the API server's copy.
    #[must_use]
    pub fn is_behind(&self, observed: &ObjectMeta) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = observed.uid.as_ref().and_then(|uid| remembered.get(uid));
        known.is_some_and(|known| version(observed) < known.version)
    }

    fn judge(&self, intent: &Intent, observed: &ObjectMeta) -> Verdict {
        if observed.deletion_timestamp.is_some() {
            return Verdict::Terminating;
        }
        let applied = observed.annotations.as_ref().and_then(|annotations| annotations.get(HASH_ANNOTATION));
        let entry = observed
            .managed_fields
            .iter()
            .flatten()
            .find(|entry| is_ours(entry, &self.manager))
            .filter(|entry| entry.api_version.as_deref() == Some(intent.api_version.as_str()));
        let Some(owned) = entry.and_then(|entry| entry.fields_v1.as_ref()).map(packed::unpacked) else {
            // Our entry is gone. With our annotation the object is ours all the same (anybody may clear managedFields).
            return if applied.is_some() { Verdict::Update } else { Verdict::Foreign };
        };
        let lost = fields::lost(&intent.body, &owned);
        match applied {
            // Fields that only the new intent has are not in the old set: no drift.
            Some(hash) if *hash != intent.hash => Verdict::Update,
            Some(_) if mutant::on(Mutant::AppliedAlways) => Verdict::Update,
            Some(_) if lost.is_empty() => Verdict::Unchanged,
            // A field that the server drops from every apply (of a feature that is off) is no drift either.
            Some(_) if self.is_as_remembered(intent, observed, &owned) => Verdict::Unchanged,
            _ => Verdict::Drift(lost),
        }
    }

    fn is_as_remembered(&self, intent: &Intent, observed: &ObjectMeta, owned: &Value) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = observed.uid.as_ref().and_then(|uid| remembered.get(uid));
        known.is_some_and(|known| known.hash == intent.hash && known.owned == hash(owned))
    }

    async fn send<K>(&self, api: &Api<K>, intent: &Intent, force: bool) -> Result<K, ApplyError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let params = PatchParams { force, ..PatchParams::apply(&self.manager) };
        let answer = api.patch(&intent.name, &params, &Patch::Apply(&intent.body)).await;
        let object = answer.map_err(|error| ApplyError::from_kube(intent.object.clone(), error))?;
        let owned = object
            .meta()
            .managed_fields
            .iter()
            .flatten()
            .find(|entry| is_ours(entry, &self.manager))
            .and_then(|entry| entry.fields_v1.clone());
        if let (Some(uid), Some(owned)) = (object.meta().uid.clone(), owned) {
            let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            if remembered.len() >= REMEMBER_MAX {
                remembered.clear();
            }
            let version = version(object.meta());
            remembered.insert(uid, Remembered { hash: intent.hash.clone(), owned: hash(&owned.0), version });
        }
        Ok(object)
    }

    async fn tell<O>(&self, kind: &str, intent: &Intent, owner: &O, fields: &[String])
    where
        O: Resource<DynamicType = ()>,
    {
        self.metrics.drift_corrected(kind);
        let what = if fields.is_empty() { "its annotations".to_owned() } else { fields.join(", ") };
        tracing::info!(object = intent.object, fields = what, "drift corrected");
        let note = format!("{} was changed by someone else and set right: {what}", intent.object);
        self.events.warning(owner, "DriftCorrected", "Apply", note).await;
    }
}

impl Intent {
    fn new<K: Resource<DynamicType = ()> + Serialize>(intent: &K) -> Result<Self, ApplyError> {
        let object = describe::<K>(intent.meta());
        let mut body = serde_json::to_value(intent).context(SerializeSnafu { object: object.clone() })?;
        let api_version = K::api_version(&()).into_owned();
        body["apiVersion"] = api_version.clone().into();
        body["kind"] = K::kind(&()).into();
        if let Some(metadata) = body["metadata"].as_object_mut() {
            // Of an object that was read, not of one that is wanted.
            for name in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"] {
                metadata.remove(name);
            }
        }
        let hash = hash(&body);
        body["metadata"]["annotations"][HASH_ANNOTATION] = hash.clone().into();
        let name = intent.meta().name.clone().unwrap_or_default();
        Ok(Self { name, object, api_version, hash, body })
    }
}

/// Versions of one kind are numbers that grow (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn is_ours(
    entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
    manager: &str,
) -> bool {
    entry.manager.as_deref() == Some(manager)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref().is_none_or(str::is_empty)
}

/// Drops every entry of `managedFields` but `manager`'s own: the others are often the largest part of an object, and nobody asks
/// for them. The fields of our own are packed.
pub fn prune(metadata: &mut ObjectMeta, manager: &str) {
    let mut entries = metadata.managed_fields.take().unwrap_or_default();
    entries.retain(|entry| is_ours(entry, manager));
    entries.shrink_to_fit();
    for fields in entries.iter_mut().filter_map(|entry| entry.fields_v1.as_mut()) {
        packed::pack(fields);
    }
    metadata.managed_fields = Some(entries);
}

/// How an object is called in messages: `CronJob shop/nightly`.
pub fn describe<K: Resource<DynamicType = ()>>(metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or("(unnamed)");
    match &metadata.namespace {
        Some(namespace) => format!("{} {namespace}/{name}", K::kind(&())),
        None => format!("{} {name}", K::kind(&())),
    }
}

/// 128 bits of SHA-256 over the JSON text; struct fields and maps are serialised in a fixed order.
fn hash(body: &Value) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(body.to_string());
    digest.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
