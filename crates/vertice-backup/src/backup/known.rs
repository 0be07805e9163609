//! What is kept of a CronJob: the rest, what its Jobs are made from, is by far most of it, and nobody reads it. Whether it is as it
//! should be shows in the metadata.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Deserialize;

/// A CronJob in the cache.
#[derive(Resource, Clone, Debug, Default, PartialEq, Deserialize)]
#[resource(inherit = "CronJob")]
pub(super) struct KnownCronJob {
    metadata: ObjectMeta,
    spec: Timing,
    #[serde(default)]
    status: Option<LastSchedule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timing {
    schedule: String,
    time_zone: Option<String>,
    suspend: Option<bool>,
    starting_deadline_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LastSchedule {
    last_schedule_time: Option<Time>,
}

impl From<&KnownCronJob> for CronJob {
    /// Without what was not kept.
    fn from(known: &KnownCronJob) -> Self {
        let KnownCronJob { metadata, spec, status } = known.clone();
        let Timing { schedule, time_zone, suspend, starting_deadline_seconds } = spec;
        Self {
            metadata,
            spec: CronJobSpec {
                schedule,
                time_zone,
                suspend,
                starting_deadline_seconds,
                ..CronJobSpec::default()
            },
            status: status.map(|status| CronJobStatus {
                last_schedule_time: status.last_schedule_time,
                ..CronJobStatus::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::JobTemplateSpec;
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_a_plan_reads_is_kept() {
        let whole: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "shop-backup", "annotations": {"vertice.io/in-force-since": "2026-11-21T11:00:00Z"}},
            "spec": {
                "schedule": "0 2 * * *",
                "timeZone": "Europe/Zurich",
                "suspend": true,
                "startingDeadlineSeconds": 15,
                "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "agent"}]}}}},
            },
            "status": {"lastScheduleTime": "2026-11-21T01:00:00Z"},
        }))
        .unwrap();
        let known: KnownCronJob = serde_json::from_value(serde_json::to_value(&whole).unwrap()).unwrap();
        let mut wanted = whole;
        wanted.spec.job_template = JobTemplateSpec::default();
        assert_eq!(CronJob::from(&known), wanted);
    }
}
