//! `observe → validate → plan → apply → status`, and what wakes it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};
use snafu::Snafu;
use vertice_api::vertice_io::VerticeBackup;
use vertice_controller::apply::ApplyError;
use vertice_controller::manager::{Manager, ManagerError};
use vertice_controller::run::{Config, Context, Controller, Next, ObjectKey, Reconciler, SharedWatch, Watch};

use super::apply::apply;
use super::known::KnownCronJob;
use super::metrics::BackupMetrics;
use super::observe::{Caches, observe};
use super::plan::{PlanError, plan};
use crate::live::{self, ReadError};
use crate::names;
use crate::run;
use crate::settings::{Cluster, Settings, watched};

/// Reconciles VerticeBackups.
#[derive(Debug)]
pub(crate) struct BackupReconciler {
    caches: Caches,
    cluster: Cluster,
    agent_image: String,
}

/// A reconcile failed; it is tried again.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub(crate) enum BackupError {
    #[snafu(transparent)]
    Observe { source: ReadError },
    #[snafu(transparent)]
    Plan { source: PlanError },
    #[snafu(transparent)]
    Apply { source: ApplyError },
}

impl Reconciler for BackupReconciler {
    type Object = VerticeBackup;
    type Error = BackupError;
    const NAME: &'static str = "backup";

    async fn reconcile(&self, backup: Arc<VerticeBackup>, context: &Context) -> Result<Next, BackupError> {
        if backup.metadata.deletion_timestamp.is_some() {
            // What was made goes by owner references; stored backups stay.
            return Ok(Next::Await);
        }
        let cluster = self.cluster.uid(&context.client).await?;
        let now = context.clock.now();
        let observed = observe(context, &self.caches, backup, cluster, self.agent_image.clone(), now).await?;
        let plan = plan(&observed, now)?;
        // From a cache that has not seen the deletion a CronJob would be made that the garbage collector takes away, over and over.
        if plan.cronjob.is_some()
            && observed.cronjob.is_none()
            && !live::exists(&context.client, observed.backup.as_ref()).await?
        {
            tracing::debug!("deleted meanwhile: nothing is made for it");
            return Ok(Next::Await);
        }
        let requeue_at = Box::pin(apply(context, &observed, plan, now)).await?;
        Ok(requeue_at.map_or(Next::Await, Next::At))
    }
}

/// Caches that the other controller reads as well.
#[derive(Clone, Debug)]
pub(crate) struct SharedCaches {
    pub(crate) backups: SharedWatch<VerticeBackup>,
    pub(crate) services: SharedWatch<PartialObjectMeta<Service>>,
    pub(crate) stateful_sets: SharedWatch<PartialObjectMeta<StatefulSet>>,
    pub(crate) deployments: SharedWatch<PartialObjectMeta<Deployment>>,
}

/// Wires the controller into a process.
pub(crate) fn controller(
    manager: &Manager,
    settings: &Settings,
    cluster: Cluster,
) -> Result<(Controller<BackupReconciler>, SharedCaches), ManagerError> {
    let context = manager.context(BackupReconciler::NAME)?;
    let client = &context.client;
    let labelled = || watched().labels(names::BACKUP_LABEL);
    let backups = Watch::<VerticeBackup>::new(settings.api(client), watched());
    let cronjobs = Watch::<KnownCronJob>::new(settings.api(client), labelled());
    let jobs = Watch::<Job>::new(settings.api(client), labelled());
    let pods = Watch::<Pod>::new(settings.api(client), labelled());
    let services = Watch::<PartialObjectMeta<Service>>::new(settings.api(client), watched());
    let stateful_sets = Watch::<PartialObjectMeta<StatefulSet>>::new(settings.api(client), watched());
    let deployments = Watch::<PartialObjectMeta<Deployment>>::new(settings.api(client), watched());

    let shared = SharedCaches {
        backups: backups.share(),
        services: services.share(),
        stateful_sets: stateful_sets.share(),
        deployments: deployments.share(),
    };
    let known = backups.store();
    manager.leader_collector(BackupMetrics::new(known.clone()));
    let caches = Caches { cronjobs: cronjobs.store(), jobs: jobs.store(), pods: pods.store() };
    let agent_image = settings.agent_image.clone();
    let reconciler = BackupReconciler { caches, cluster, agent_image };
    let (by_service, by_stateful_set, by_deployment) = (known.clone(), known.clone(), known);
    let controller = Controller::new(reconciler, backups, context, Config::default(), manager.readiness())
        .owns(cronjobs)
        .watches(jobs, |job| run::owner_by_label(job, names::BACKUP_LABEL))
        .watches(pods, |pod| run::owner_by_label(pod, names::BACKUP_LABEL))
        .watches_intent(services, move |object| targeting(&by_service, object))
        .watches_intent(stateful_sets, move |object| targeting(&by_stateful_set, object))
        .watches_intent(deployments, move |object| targeting(&by_deployment, object));
    Ok((controller, shared))
}

/// The VerticeBackups whose server may be found through an object of its namespace: all that do not name a host, as a Service's
/// selector leads to workloads of any name.
fn targeting<K: Resource>(backups: &Store<VerticeBackup>, object: &K) -> Vec<ObjectKey> {
    let namespace = object.namespace();
    let backups = backups.state();
    let there =
        backups.iter().filter(|backup| backup.spec.target.host.is_none() && backup.namespace() == namespace);
    there.map(|backup| ObjectKey::of(backup.as_ref())).collect()
}
