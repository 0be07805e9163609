//! `observe → validate → plan → apply → status`, and what wakes it.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};
use snafu::Snafu;
use vertice_api::vertice_io::VerticeRestore;
use vertice_controller::manager::{Manager, ManagerError};
use vertice_controller::run::{Config, Context, Controller, Next, ObjectKey, Reconciler, Watch};

use super::apply::{RestoreApplyError, apply};
use super::metrics::RestoreMetrics;
use super::observe::{Caches, has_ended, has_job, observe};
use super::plan::{PlanError, plan};
use crate::backup::SharedCaches;
use crate::live::ReadError;
use crate::names;
use crate::run;
use crate::settings::{Settings, watched};

/// Reconciles VerticeRestores.
#[derive(Debug)]
pub(crate) struct RestoreReconciler {
    caches: Caches,
    agent_image: String,
}

/// A reconcile failed; it is tried again.
#[derive(Debug, Snafu)]
pub(crate) enum RestoreError {
    #[snafu(transparent)]
    Observe { source: ReadError },
    #[snafu(transparent)]
    Plan { source: PlanError },
    #[snafu(transparent)]
    Apply { source: RestoreApplyError },
}

impl Reconciler for RestoreReconciler {
    type Object = VerticeRestore;
    type Error = RestoreError;
    const NAME: &'static str = "restore";

    async fn reconcile(&self, restore: Arc<VerticeRestore>, context: &Context) -> Result<Next, RestoreError> {
        if restore.metadata.deletion_timestamp.is_some() || has_ended(&restore) {
            return Ok(Next::Await);
        }
        let observed = observe(&context.client, &self.caches, restore, self.agent_image.clone()).await?;
        let now = context.clock.now();
        let Some(plan) = plan(&observed, now)? else { return Ok(Next::Await) };
        let requeue_at = apply(context, &observed, plan, now).await?;
        Ok(requeue_at.map_or(Next::Await, Next::At))
    }
}

/// Wires the controller into a process.
pub(crate) fn controller(
    manager: &Manager,
    settings: &Settings,
    shared: SharedCaches,
) -> Result<Controller<RestoreReconciler>, ManagerError> {
    let context = manager.context(RestoreReconciler::NAME)?;
    let client = &context.client;
    let labelled = || watched().labels(names::RESTORE_LABEL);
    let restores = Watch::<VerticeRestore>::new(settings.api(client), watched());
    let jobs = Watch::<Job>::new(settings.api(client), labelled());
    let pods = Watch::<Pod>::new(settings.api(client), labelled());
    let SharedCaches { backups, services, stateful_sets, deployments } = shared;

    let known = restores.store();
    manager.leader_collector(RestoreMetrics::new(known.clone()));
    let caches = Caches { backups: backups.store(), jobs: jobs.store(), pods: pods.store() };
    let reconciler = RestoreReconciler { caches, agent_image: settings.agent_image.clone() };
    let (by_backup, by_service, by_stateful_set, by_deployment) =
        (known.clone(), known.clone(), known.clone(), known);
    Ok(Controller::new(reconciler, restores, context, Config::default(), manager.readiness())
        .watches(jobs, |job| run::owner_by_label(job, names::RESTORE_LABEL))
        .watches(pods, |pod| run::owner_by_label(pod, names::RESTORE_LABEL))
        .watches(backups, move |backup| waiting(&by_backup, backup))
        .watches_intent(services, move |object| waiting(&by_service, object))
        .watches_intent(stateful_sets, move |object| waiting(&by_stateful_set, object))
        .watches_intent(deployments, move |object| waiting(&by_deployment, object)))
}

/// The VerticeRestores of an object's namespace that have not started: it may be what they wait for.
fn waiting<K: Resource>(restores: &Store<VerticeRestore>, object: &K) -> Vec<ObjectKey> {
    let namespace = object.namespace();
    let restores = restores.state();
    let there = restores
        .iter()
        .filter(|restore| restore.namespace() == namespace && !has_ended(restore) && !has_job(restore));
    there.map(|restore| ObjectKey::of(restore.as_ref())).collect()
}
