//! Garbage collection: what names an owner that is gone goes, too.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use snafu::ResultExt as _;
use vertice_api::vertice_io::{VerticeBackup, VerticeRestore};

use super::{Cluster, Object};
use crate::error::{ApiSnafu, Result};

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
        let mut orphaned = true;
        for owner in owners {
            orphaned &= !exists(cluster, owner).await?;
        }
        if orphaned {
            cluster.delete(store, &*object).await?;
            return Ok(true);
        }
    }
    Ok(false)
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
