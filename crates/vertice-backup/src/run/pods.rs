//! What pods say about a run.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt as _;
use vertice_catalog::report::Report;

use crate::names;

/// Reasons of a waiting container that do not pass by themselves within seconds.
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

/// The report of a run: a good one if any pod has one, else that of the pod that ended last.
pub(super) fn report(pods: &[Pod]) -> Option<Report> {
    let mut reports: Vec<_> = pods.iter().filter_map(|pod| Some((ended(pod)?, read(pod)?))).collect();
    reports.sort_by_key(|(ended, _)| *ended);
    let good = reports.iter().rfind(|(_, report)| !matches!(report, Report::Failed { .. })).cloned();
    good.or_else(|| reports.pop()).map(|(_, report)| report)
}

/// What keeps a run's pod from starting, if anything does for longer than a moment.
pub(super) fn waiting(pods: &[Pod]) -> Option<String> {
    let pod = newest(pods)?;
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        let message = condition.message.as_deref().unwrap_or("no node takes it");
        return Some(format!("pod {name} is not scheduled: {message}"));
    }
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| STUCK.contains(reason))?;
        let message = waiting.message.as_deref().unwrap_or("no message");
        Some(format!("pod {name}, image {}: {reason}: {message}", container.image))
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

fn ended(pod: &Pod) -> Option<jiff::Timestamp> {
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
