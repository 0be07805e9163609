//! The CronJob controller, as `syncCronJob` of
//! <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/controller/cronjob/cronjob_controllerv2.go>.
//!
//! But for one thing: the API server dates a CronJob by the machine's clock, hours before it was made by the injected one. What it
//! would have fired in between is written down as acted upon, or a CronJob that is made again would be behind.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use vertice_controller::cron::Schedule;

use super::job::{has_completed, has_ended};
use super::{Cluster, is_controlled_by};
use crate::error::Result;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Does one thing about a CronJob, if there is one to do.
pub(super) async fn sync(cluster: &Cluster, cronjob: &Arc<CronJob>) -> Result<bool> {
    if cronjob.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    let uid = cronjob.uid();
    let mut jobs = cluster.world.jobs.state();
    jobs.retain(|job| is_controlled_by(&**job, uid.as_deref()));
    let before = cronjob.status.clone().unwrap_or_default();
    let after = settled(&before, &jobs);
    if after != before {
        return write(cluster, cronjob, &after).await;
    }
    if let Some(at) = fired_before(cluster, cronjob) {
        return write(cluster, cronjob, &CronJobStatus { last_schedule_time: Some(Time(at)), ..before })
            .await;
    }
    if let Some(old) = beyond_limits(cronjob, jobs) {
        cluster.delete(&cluster.world.jobs, &*old).await?;
        return Ok(true);
    }
    fire(cluster, cronjob, &before).await
}

/// The last firing that a CronJob seems to have had before it was made, unless that is written down.
pub(super) fn fired_before(cluster: &Cluster, cronjob: &CronJob) -> Option<Timestamp> {
    let status = cronjob.status.clone().unwrap_or_default();
    if status.last_schedule_time.is_some() || cronjob.spec.suspend == Some(true) {
        return None;
    }
    let born = cluster.world.born(&cronjob.uid()?)?;
    let mut spec = cronjob.spec.clone();
    spec.starting_deadline_seconds = None;
    due(&CronJob { spec, metadata: cronjob.metadata.clone(), status: None }, &status, born)
}

/// Jobs that ended are active no more.
fn settled(before: &CronJobStatus, jobs: &[Arc<Job>]) -> CronJobStatus {
    let mut after = before.clone();
    let open = |uid: Option<&String>| jobs.iter().any(|job| job.uid().as_ref() == uid && !has_ended(job));
    if let Some(active) = &mut after.active {
        active.retain(|reference| open(reference.uid.as_ref()));
    }
    after.active = after.active.filter(|active| !active.is_empty());
    let completed = jobs.iter().filter(|job| has_completed(job));
    let times = completed.filter_map(|job| job.status.as_ref()?.completion_time.clone());
    after.last_successful_time = times.chain(after.last_successful_time).max_by_key(|time| time.0);
    after
}

async fn write(cluster: &Cluster, cronjob: &CronJob, status: &CronJobStatus) -> Result<bool> {
    let patch = json!({
        "active": status.active,
        "lastScheduleTime": status.last_schedule_time,
        "lastSuccessfulTime": status.last_successful_time,
    });
    cluster.status(&cluster.world.cronjobs, cronjob, patch).await?;
    Ok(true)
}

/// The oldest ended Job of a kind of which there are more than are to be kept.
fn beyond_limits(cronjob: &CronJob, jobs: Vec<Arc<Job>>) -> Option<Arc<Job>> {
    let started = |job: &Arc<Job>| job.status.as_ref()?.start_time.as_ref().map(|time| time.0);
    let (mut succeeded, mut failed): (Vec<_>, Vec<_>) =
        jobs.into_iter().filter(|job| has_ended(job)).partition(|job| has_completed(job));
    let limits = [cronjob.spec.successful_jobs_history_limit, cronjob.spec.failed_jobs_history_limit];
    for (jobs, limit) in [&mut succeeded, &mut failed].into_iter().zip(limits) {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        jobs.sort_by_key(started);
        if jobs.len() > limit {
            return jobs.first().cloned();
        }
    }
    None
}

/// Makes the Job of the most recent firing that was not acted upon, unless something is against it.
async fn fire(cluster: &Cluster, cronjob: &CronJob, status: &CronJobStatus) -> Result<bool> {
    let active = status.active.as_ref().is_some_and(|active| !active.is_empty());
    if cronjob.spec.suspend == Some(true)
        || (active && cronjob.spec.concurrency_policy.as_deref() == Some("Forbid"))
    {
        return Ok(false);
    }
    let Some(at) = due(cronjob, status, cluster.now()) else { return Ok(false) };
    let name = format!("{}-{}", cronjob.name_any(), at.as_second() / 60);
    cluster.create(&cluster.world.jobs, job(cronjob, &name, at)).await?;
    let Some(made) = cluster.world.get(&cluster.world.jobs, &name) else { return Ok(true) };
    let reference = k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: Some(name),
        namespace: made.namespace(),
        uid: made.uid(),
        ..Default::default()
    };
    // The operator may have changed the CronJob since it was looked at.
    let Some(cronjob) = cluster.world.get(&cluster.world.cronjobs, &cronjob.name_any()) else {
        return Ok(true);
    };
    let mut after = cronjob.status.clone().unwrap_or_default();
    after.active.get_or_insert_default().push(reference);
    after.last_schedule_time = Some(Time(at));
    write(cluster, &cronjob, &after).await
}

/// The most recent firing since the last one that was acted upon (or the CronJob's beginning), unless it is too late for it.
fn due(cronjob: &CronJob, status: &CronJobStatus, now: Timestamp) -> Option<Timestamp> {
    let spec = &cronjob.spec;
    let schedule = Schedule::parse(&spec.schedule, spec.time_zone.as_deref().unwrap_or("Etc/UTC")).ok()?;
    let created = cronjob.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let mut earliest = status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        earliest = earliest.max(now.saturating_sub(SignedDuration::from_secs(deadline)).unwrap_or(now));
    }
    std::iter::successors(schedule.next_after(earliest), |at| schedule.next_after(*at))
        .take_while(|at| *at <= now)
        .last()
}

/// The Job of one firing.
fn job(cronjob: &CronJob, name: &str, at: Timestamp) -> Value {
    let mut job = from_template(cronjob, name);
    let zone = cronjob.spec.time_zone.as_deref().unwrap_or("Etc/UTC");
    let local = at.in_tz(zone).map_or_else(|_| at.to_string(), |at| at.strftime("%FT%T%:z").to_string());
    job["metadata"]["annotations"][SCHEDULED_AT] = local.into();
    job
}

/// A Job from a CronJob's template, owned by it.
pub(crate) fn from_template(cronjob: &CronJob, name: &str) -> Value {
    let template = json!(cronjob.spec.job_template);
    let annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    json!({
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "controller": true, "blockOwnerDeletion": true,
                "name": cronjob.name_any(), "uid": cronjob.uid(),
            }],
        },
        "spec": template["spec"],
    })
}
