//! Follows a run: its Job, its pods one after the other, and the log of each.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::stream::{self, BoxStream};
use futures::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{ListParams, LogParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use vertice_backup::names;
use vertice_catalog::report::Report;

use super::display::Display;
use crate::cluster::{Cluster, call};

/// The label that the Job controller gives to a Job's pods.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";
/// From these conditions on the outcome is settled.
const SETTLED: [&str; 4] = ["Complete", "SuccessCriteriaMet", "Failed", "FailureTarget"];
/// What passes by itself.
const ORDINARY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// How long the rest of a log may take once its run ended.
const REST: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The Job's last word.
    pub(crate) condition: JobCondition,
    /// What the agent reported: a good report if any pod left one, else the last.
    pub(crate) report: Option<Report>,
}

/// A Job that is followed.
pub(crate) struct Follower {
    jobs: Api<Job>,
    pods: Api<Pod>,
    name: String,
}

type Lines = BoxStream<'static, io::Result<String>>;

impl Follower {
    pub(crate) fn new(cluster: &Cluster, job: &Job) -> Self {
        let Cluster { client, namespace } = cluster;
        Self {
            jobs: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            name: job.name_any(),
        }
    }

    /// Shows the run until its outcome is settled.
    pub(crate) async fn to_the_end(&self, display: &mut Display) -> Result<Ended> {
        let mut jobs = watcher::watch_object(self.jobs.clone(), &self.name).default_backoff().boxed();
        let selector = watcher::Config::default().labels(&self.selector());
        let mut pods =
            watcher::watcher(self.pods.clone(), selector).default_backoff().applied_objects().boxed();
        let mut log: Lines = stream::pending().boxed();
        let mut seen = Seen::default();
        let condition = loop {
            tokio::select! {
                Some(event) = jobs.next() => match event {
                    Ok(Some(job)) => if let Some(condition) = settled(&job) { break condition },
                    Ok(None) => bail!("Job {} was deleted before it ended", self.name),
                    Err(error) => seen.trouble(&error, display),
                },
                Some(event) = pods.next() => match event {
                    Ok(pod) => {
                        seen.waiting(&pod, display);
                        if seen.is_new(&pod) && let Ok(lines) = self.log(&pod).await {
                            seen.logged(&pod);
                            log = lines;
                        }
                    }
                    Err(error) => seen.trouble(&error, display),
                },
                line = log.next() => match line {
                    Some(Ok(line)) => display.line(&line),
                    Some(Err(_)) | None => log = stream::pending().boxed(),
                },
            }
        };
        // Only the open log has more to say; a pending one never ends.
        let rest = async {
            while let Some(Ok(line)) = log.next().await {
                display.line(&line);
            }
        };
        let _ = tokio::time::timeout(if seen.logs.is_empty() { Duration::ZERO } else { REST }, rest).await;
        Ok(Ended { condition, report: self.report().await? })
    }

    fn selector(&self) -> String {
        format!("{JOB_LABEL}={}", self.name)
    }

    async fn log(&self, pod: &Pod) -> kube::Result<Lines> {
        let container = Some(names::AGENT_CONTAINER.to_owned());
        let follow = LogParams { container, follow: true, ..LogParams::default() };
        Ok(self.pods.log_stream(&pod.name_any(), &follow).await?.lines().boxed())
    }

    async fn report(&self) -> Result<Option<Report>> {
        let selector = ListParams::default().labels(&self.selector());
        let pods = call(self.pods.list(&selector)).await.context("cannot list the run's pods")?;
        let reports: Vec<Report> = pods.items.iter().filter_map(report_of).collect();
        let good = reports.iter().find(|report| !matches!(report, Report::Failed { .. }));
        Ok(good.or(reports.last()).cloned())
    }
}

/// What was shown already.
#[derive(Default)]
struct Seen {
    logs: BTreeSet<String>,
    waiting: BTreeSet<String>,
    trouble: bool,
}

impl Seen {
    /// Whether the pod's agent has a log that is not followed yet.
    fn is_new(&self, pod: &Pod) -> bool {
        let started = agent(pod).and_then(|status| status.state.as_ref());
        let started = started.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        started && pod.uid().is_some_and(|uid| !self.logs.contains(&uid))
    }

    fn logged(&mut self, pod: &Pod) {
        self.logs.extend(pod.uid());
    }

    /// Tells once what keeps a pod from starting.
    fn waiting(&mut self, pod: &Pod, display: &Display) {
        if let Some(why) = waiting(pod)
            && self.waiting.insert(why.clone())
        {
            display.note(&why);
        }
    }

    /// A watch comes back by itself: one line is enough.
    fn trouble(&mut self, error: &watcher::Error, display: &Display) {
        if !self.trouble {
            self.trouble = true;
            display.note(&format!("lost touch with the API server, trying again: {error}"));
        }
    }
}

fn settled(job: &Job) -> Option<JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| SETTLED.contains(&&*condition.type_) && condition.status == "True")
        .cloned()
}

fn agent(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == names::AGENT_CONTAINER)
}

fn report_of(pod: &Pod) -> Option<Report> {
    Report::parse(agent(pod)?.state.as_ref()?.terminated.as_ref()?.message.as_ref()?).ok()
}

fn waiting(pod: &Pod) -> Option<String> {
    let (name, status) = (pod.name_any(), pod.status.as_ref()?);
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unscheduled {
        return Some(format!(
            "pod {name} is not scheduled: {}",
            condition.message.as_deref().unwrap_or("no node takes it")
        ));
    }
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| !ORDINARY.contains(reason))?;
        Some(format!("pod {name} waits: {reason}: {}", waiting.message.as_deref().unwrap_or("no message")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        let pod = serde_json::json!({"metadata": {"name": "shop-x", "uid": "u1"}, "status": status});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_that_cannot_start_says_why() {
        let pulling = pod(
            &serde_json::json!({"containerStatuses": [{"name": "agent", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}),
        );
        assert_eq!(waiting(&pulling).unwrap(), "pod shop-x waits: ErrImagePull: not found");
        let homeless = pod(&serde_json::json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/2 nodes are available"}]}));
        assert_eq!(waiting(&homeless).unwrap(), "pod shop-x is not scheduled: 0/2 nodes are available");
        let ordinary = pod(
            &serde_json::json!({"containerStatuses": [{"name": "agent", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}]}),
        );
        assert_eq!(waiting(&ordinary), None);
    }

    #[test]
    fn a_log_is_followed_once() {
        let running = pod(
            &serde_json::json!({"containerStatuses": [{"name": "agent", "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "state": {"running": {}}}]}),
        );
        let mut seen = Seen::default();
        assert!(seen.is_new(&running));
        seen.logged(&running);
        assert!(!seen.is_new(&running));
    }
}
