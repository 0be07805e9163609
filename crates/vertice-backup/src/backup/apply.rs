//! Puts a plan in force: the CronJob, then the status, then the events.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use kube::{Api, Resource as _, ResourceExt as _};
use vertice_api::vertice_io::VerticeBackup;
use vertice_controller::apply::{Applied, ApplyError, HASH_ANNOTATION};
use vertice_controller::conditions::{self, READY};
use vertice_controller::mutant::{self, Mutant};
use vertice_controller::run::Context;

use super::observe::Observed;
use super::plan::Plan;
use super::status::Draft;
use crate::events::{self, PlannedEvent};
use crate::refusal::{Refusal, refusal, terminating};

/// Carries `plan` out. Returns when to look again.
pub(super) async fn apply(
    context: &Context,
    observed: &Observed,
    mut plan: Plan,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApplyError> {
    let backup = observed.backup.as_ref();
    if mutant::on(Mutant::StatusBeforeCronJob) {
        status(context, backup, plan.draft.clone(), now).await?;
    }
    if let Some(wanted) = plan.cronjob.take() {
        let refusal = match cronjob(context, observed, &wanted).await {
            Ok(Applied::Terminating) => observed.cronjob.as_ref().map(|live| terminating(live, now)),
            Ok(_) => None,
            Err(_) if mutant::on(Mutant::CronJobErrorSwallowed) => None,
            Err(error) => Some(refusal(error, observed.cronjob.is_some(), now)?),
        };
        if let Some(Refusal { reason, message, retry_at }) = refusal {
            let told = backup.status.as_ref().is_some_and(|status| {
                conditions::find(&status.conditions, READY)
                    .is_some_and(|ready| ready.reason == reason && ready.message == message)
            });
            plan.refuse(reason, message, told);
            plan.requeue_at = Some(plan.requeue_at.map_or(retry_at, |at| at.min(retry_at)));
        }
    }
    let Plan { cronjob: _, draft, events: news, requeue_at } = plan;
    let of_a_run = |event: &PlannedEvent| event.action == "Backup";
    let is_told = mutant::on(Mutant::EventInsteadOfStatus) && news.iter().any(of_a_run);
    if !is_told && !mutant::on(Mutant::StatusBeforeCronJob) {
        status(context, backup, draft, now).await?;
    }
    events::tell(&context.events, &backup.object_ref(&()), news).await;
    Ok(requeue_at)
}

async fn status(
    context: &Context,
    backup: &VerticeBackup,
    draft: Draft,
    now: Timestamp,
) -> Result<(), ApplyError> {
    let before = backup.status.clone().unwrap_or_default();
    let after = draft.finish(&before, backup.metadata.generation, now);
    let namespace = backup.namespace().unwrap_or_default();
    let api = Api::<VerticeBackup>::namespaced(context.client.clone(), &namespace);
    context.applier.status(&api, backup, backup.status.as_ref(), &after).await?;
    Ok(())
}

/// Brings the CronJob to be.
async fn cronjob(
    context: &Context,
    observed: &Observed,
    wanted: &CronJob,
) -> Result<Applied<CronJob>, ApplyError> {
    let backup = observed.backup.as_ref();
    let api = Api::<CronJob>::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    let live = observed.cronjob.as_ref().map(|cronjob| &cronjob.metadata);
    match (context.applier.apply(&api, backup, wanted, live).await, live) {
        // Whatever was removed from it: its owner reference says that it is ours.
        (Err(ApplyError::Foreign { .. }), Some(live)) if observed.owns_cronjob() => {
            let mut marked = live.clone();
            marked.annotations.get_or_insert_default().insert(HASH_ANNOTATION.to_owned(), String::new());
            marked.managed_fields.get_or_insert_default();
            context.applier.apply(&api, backup, wanted, Some(&marked)).await
        }
        (applied, _) => applied,
    }
}
