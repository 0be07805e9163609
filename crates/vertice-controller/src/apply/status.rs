//! Status, written only when it changed.
//!
//! Server-side apply on `/status` rather than a merge patch: a field that is no longer set goes away. It carries the
//! `resourceVersion` that the status was computed from, so a status computed from an outdated copy (a counter that would fall
//! back) is refused as a conflict instead of written.

use std::fmt::Debug;

use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use snafu::ResultExt as _;

use super::{Applier, ApplyError, describe, error::SerializeSnafu, is_conflict};
use crate::mutant::{self, Mutant};

impl Applier {
    /// Writes `wanted` unless it equals `observed`, both of `object`. Returns whether a request was sent.
    pub async fn status<K, S>(
        &self,
        api: &Api<K>,
        object: &K,
        observed: Option<&S>,
        wanted: &S,
    ) -> Result<bool, ApplyError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
        S: Serialize,
    {
        let metadata = object.meta();
        let name = describe::<K>(metadata);
        let to_value = |status: &S| {
            serde_json::to_value(status)
                .with_context(|_| SerializeSnafu { object: format!("the status of {name}") })
        };
        let status = to_value(wanted)?;
        if let Some(observed) = observed
            && to_value(observed)? == status
            && !mutant::on(Mutant::StatusAlwaysWritten)
        {
            return Ok(false);
        }
        let mut body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": metadata.name},
            "status": status,
        });
        if !mutant::on(Mutant::StatusWithoutVersion) {
            body["metadata"]["resourceVersion"] = json!(metadata.resource_version);
        }
        let params = PatchParams::apply(self.manager()).force();
        let target = metadata.name.as_deref().unwrap_or_default();
        match api.patch_status(target, &params, &Patch::Apply(&body)).await {
            Err(error) if mutant::on(Mutant::ConflictSwallowed) && is_conflict(&error) => Ok(true),
            Err(error) => Err(ApplyError::from_kube(format!("the status of {name}"), error)),
            Ok(_) => Ok(true),
        }
    }
}
