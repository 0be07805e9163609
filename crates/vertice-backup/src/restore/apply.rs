//! Puts a plan in force: the status, which must not be outdated, comes before the Job is let go.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use snafu::{ResultExt as _, Snafu};
use vertice_api::vertice_io::VerticeRestore;
use vertice_controller::apply::ApplyError;
use vertice_controller::mutant::{self, Mutant};
use vertice_controller::run::Context;

use super::observe::Observed;
use super::plan::{Action, Plan, not_ready};
use crate::events;
use crate::names;
use crate::refusal::{LOOK_AGAIN, refused};

/// A plan could not be put in force.
#[derive(Debug, Snafu)]
pub(crate) enum RestoreApplyError {
    #[snafu(transparent)]
    Apply { source: ApplyError },
    #[snafu(display("failed to make Job {job}"))]
    Create {
        job: String,
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },
    #[snafu(display("failed to start Job {job}"))]
    Resume {
        job: String,
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },
}

/// Carries `plan` out. Returns when to look again.
pub(super) async fn apply(
    context: &Context,
    observed: &Observed,
    mut plan: Plan,
    now: Timestamp,
) -> Result<Option<Timestamp>, RestoreApplyError> {
    let restore = observed.restore.as_ref();
    let namespace = restore.namespace().unwrap_or_default();
    let before = restore.status.clone().unwrap_or_default();
    if let Action::Create(job) = &plan.action {
        // A suspended Job does nothing, so it may come before the status.
        if let Some((reason, message)) = create(context, &namespace, job).await? {
            plan =
                Plan { requeue_at: now.checked_add(LOOK_AGAIN).ok(), ..not_ready(&before, reason, message) };
        }
    }
    let Plan { draft, action, events: news, requeue_at } = plan;
    let after = draft.finish(&before, restore.metadata.generation, now);
    let api = Api::<VerticeRestore>::namespaced(context.client.clone(), &namespace);
    context.applier.status(&api, restore, restore.status.as_ref(), &after).await?;
    events::tell(&context.events, &restore.object_ref(&()), news).await;
    act(context, &namespace, action).await?;
    Ok(requeue_at)
}

/// Makes the Job. Returns why it was refused, if it was for good.
///
/// Not by server-side apply: a Job of that name that someone else makes meanwhile must not be taken over.
async fn create(
    context: &Context,
    namespace: &str,
    job: &Job,
) -> Result<Option<(&'static str, String)>, RestoreApplyError> {
    let jobs = Api::<Job>::namespaced(context.client.clone(), namespace);
    let params =
        PostParams { field_manager: Some(names::RESTORE_CONTROLLER.to_owned()), ..PostParams::default() };
    match jobs.create(&params, job).await {
        Ok(made) => {
            mutant::remember(&made.uid().unwrap_or_default());
            Ok(None)
        }
        Err(kube::Error::Api(status))
            if mutant::on(Mutant::ThrottledJobCountsAsMade) && status.code == 429 =>
        {
            Ok(None)
        }
        Err(error) => match refused(&format!("Job {namespace}/{}", job.name_any()), &error) {
            Some(refused) => Ok(Some(refused)),
            None => Err(error).context(CreateSnafu { job: job.name_any() }),
        },
    }
}

async fn act(context: &Context, namespace: &str, action: Action) -> Result<(), RestoreApplyError> {
    let jobs = Api::<Job>::namespaced(context.client.clone(), namespace);
    match action {
        Action::None | Action::Create(_) => Ok(()),
        Action::Resume { job, uid } => {
            // The UID is a precondition: a Job of the same name that was made since is left alone.
            let mut patch = json!({"metadata": {"uid": uid}, "spec": {"suspend": false}});
            if mutant::on(Mutant::StartedByName) {
                patch["metadata"] = json!({});
            }
            if mutant::on(Mutant::JobWithoutOwner) {
                patch["metadata"]["ownerReferences"] = json!([]);
            }
            let params = PatchParams {
                field_manager: Some(names::RESTORE_CONTROLLER.to_owned()),
                ..PatchParams::default()
            };
            let started = jobs.patch(&job, &params, &Patch::Merge(patch)).await;
            if started.is_err() && mutant::on(Mutant::StartErrorSwallowed) {
                return Ok(());
            }
            started.context(ResumeSnafu { job })?;
            Ok(())
        }
    }
}
