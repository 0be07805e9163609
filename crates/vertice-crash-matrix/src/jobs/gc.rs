//! Garbage collection: what names an owner that is gone goes, too. It comes late, when the operator has done what it can about that:
//! so an owner that is made again finds what belonged to the one before.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use snafu::ResultExt as _;
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};

use super::{Cluster, Object};
use crate::error::{ApiSnafu, Result};

/// Nothing happens for so long before anything is deleted.
const LATE: Duration = Duration::from_millis(200);

/// Deletes one object whose owner is gone, if there is one.
pub(super) async fn collect(cluster: &Cluster) -> Result<bool> {
    let world = &cluster.world;
    Ok(collect_kind(cluster, &world.cronjobs).await?
        || collect_kind(cluster, &world.jobs).await?
        || collect_kind(cluster, &world.pods).await?)
}

async fn collect_kind<K: Object>(cluster: &Cluster, store: &Store<K>) -> Result<bool> {
    for object in store.state() {
        let owners = object.owner_references();
        if owners.is_empty() || object.meta().deletion_timestamp.is_some() {
            continue;
        }
        if !is_orphan(cluster, owners).await? {
            continue;
        }
        cluster.rest(LATE).await;
        let now = cluster.world.get(store, &object.name_any()).filter(|now| now.uid() == object.uid());
        let Some(now) = now else { return Ok(true) };
        if is_orphan(cluster, now.owner_references()).await? {
            cluster.delete(store, &*now).await?;
        }
        return Ok(true);
    }
    Ok(false)
}

async fn is_orphan(cluster: &Cluster, owners: &[OwnerReference]) -> Result<bool> {
    let mut orphan = true;
    for owner in owners {
        orphan &= !exists(cluster, owner).await?;
    }
    Ok(orphan)
}

/// Whether an owner is there: by the cache, and when it is not in there, by the API server, as the garbage collector does.
async fn exists(cluster: &Cluster, owner: &OwnerReference) -> Result<bool> {
    let world = &cluster.world;
    match owner.kind.as_str() {
        "VerticeBackup" => is_there::<VerticeBackup>(cluster, &world.backups, owner).await,
        "VerticeRestore" => is_there::<VerticeRestore>(cluster, &world.restores, owner).await,
        "CronJob" => is_there::<CronJob>(cluster, &world.cronjobs, owner).await,
        "Job" => is_there::<Job>(cluster, &world.jobs, owner).await,
        // Nobody here owns by other kinds; an owner that cannot be looked up is not gone.
        _ => Ok(true),
    }
}

async fn is_there<K: Object>(cluster: &Cluster, store: &Store<K>, owner: &OwnerReference) -> Result<bool> {
    let same = |found: &K| found.uid().as_deref() == Some(&owner.uid);
    if cluster.world.get(store, &owner.name).is_some_and(|found| same(&found)) {
        return Ok(true);
    }
    let live = cluster.api::<K>().get_opt(&owner.name).await;
    let live = live.with_context(|_| ApiSnafu { doing: format!("read {} {}", owner.kind, owner.name) })?;
    Ok(live.is_some_and(|found| same(&found)))
}
