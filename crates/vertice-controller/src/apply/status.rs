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

use super::{Applier, ApplyError, describe, error::SerializeSnafu};

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
        {
            return Ok(false);
        }
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": metadata.name, "resourceVersion": metadata.resource_version},
            "status": status,
        });
        let params = PatchParams::apply(self.manager()).force();
        let target = metadata.name.as_deref().unwrap_or_default();
        api.patch_status(target, &params, &Patch::Apply(&body))
            .await
            .map_err(|error| ApplyError::from_kube(format!("the status of {name}"), error))?;
        Ok(true)
    }
}
