//! What pods say about a run.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt as _;
use vertice_catalog::report::Report;

use crate::names;

/// What keeps a run's pod from starting.
#[derive(Debug)]
pub(super) struct Obstacle {
    /// For people.
    pub(super) message: String,
    /// When the pod was made.
    pub(super) since: Option<Timestamp>,
    /// Whether it may pass within moments: a node is being made, a registry was busy.
    pub(super) may_pass: bool,
}

/// Reasons of a waiting container that do not pass by themselves within seconds, but for [`FIRST_PULL`].
const STUCK: [&str; 8] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];
/// The first attempt to pull failed; `ImagePullBackOff` is said of the next ones.
const FIRST_PULL: &str = "ErrImagePull";

/// The report of a run: a good one if any pod has one, else that of the pod that ended last.
pub(super) fn report(pods: &[Pod]) -> Option<Report> {
    let mut reports: Vec<_> = pods.iter().filter_map(|pod| Some((ended(pod)?, read(pod)?))).collect();
    reports.sort_by_key(|(ended, _)| *ended);
    let good = reports.iter().rfind(|(_, report)| !matches!(report, Report::Failed { .. })).cloned();
    good.or_else(|| reports.pop()).map(|(_, report)| report)
}

/// What keeps a run's pod from starting, if anything does.
pub(super) fn obstacle(pods: &[Pod]) -> Option<Obstacle> {
    let pod = newest(pods)?;
    let since = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        let message = condition.message.as_deref().unwrap_or("no node takes it");
        let message = format!("pod {name} is not scheduled: {message}");
        return Some(Obstacle { message, since, may_pass: true });
    }
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| STUCK.contains(reason))?;
        let message = waiting.message.as_deref().unwrap_or("no message");
        let message = format!("pod {name}, image {}: {reason}: {message}", container.image);
        Some(Obstacle { message, since, may_pass: reason == FIRST_PULL })
    })
}

/// How the newest pod ended that left no report, for people.
pub(super) fn unreported_end(pods: &[Pod]) -> Option<String> {
    let pod = newest(pods)?;
    let name = pod.name_any();
    if let Some((container, end)) = terminated(pod) {
        let reason = end.reason.as_deref().unwrap_or("Error");
        let hint = if reason == "OOMKilled" { " for want of memory" } else { "" };
        return Some(format!(
            "container {container} of pod {name} was ended{hint} without a report ({reason}, exit code {}); kubectl logs {name} \
             may tell more",
            end.exit_code
        ));
    }
    let status = pod.status.as_ref()?;
    let reason = status.reason.as_deref()?;
    let message = status.message.as_deref().unwrap_or_default();
    Some(format!("pod {name} ended without a report: {reason}: {message}"))
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn agent(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status
        .as_ref()?
        .container_statuses
        .iter()
        .flatten()
        .find(|status| status.name == names::AGENT_CONTAINER)
}

fn end(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

fn read(pod: &Pod) -> Option<Report> {
    let message = end(agent(pod)?.state.as_ref())?.message.as_ref()?;
    Report::parse(message)
        .inspect_err(|error| tracing::warn!(pod = pod.name_any(), %error, "a run's report cannot be read"))
        .ok()
}

fn ended(pod: &Pod) -> Option<Timestamp> {
    let end = end(agent(pod)?.state.as_ref())?;
    Some(end.finished_at.as_ref().map(|time| time.0).unwrap_or_default())
}

/// The container that ended badly first in the order in which they run.
fn terminated(pod: &Pod) -> Option<(&str, &ContainerStateTerminated)> {
    let status = pod.status.as_ref()?;
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.filter_map(|container| Some((container.name.as_str(), end(container.state.as_ref())?)))
        .find(|(_, end)| end.exit_code != 0)
}
