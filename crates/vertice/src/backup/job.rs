//! The Job of a manual run: made from the CronJob's template, as `kubectl create job --from=cronjob/…` does.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;
use rand::RngExt as _;
use vertice_backup::names;
use vertice_catalog::manifest::Trigger;
use vertice_catalog::task::{TASK_ENV, Task};

/// Without vowels and look-alikes, as Kubernetes' own generated names.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// What keeps the names of manual runs apart.
pub(crate) fn suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

/// Builds the Job.
///
/// The CronJob is its controller, so that it is listed, limited and removed with the scheduled runs; without
/// `blockOwnerDeletion`, which would need the right to the CronJob's finalizers.
pub(crate) fn manual(cronjob: &CronJob, suffix: &str) -> Result<Job> {
    let template = &cronjob.spec.job_template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(names::INSTANTIATE_ANNOTATION.to_owned(), names::MANUAL.to_owned());
    let mut job = Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{suffix}", cronjob.name_any())),
            namespace: cronjob.namespace(),
            annotations: Some(annotations),
            labels: metadata.labels,
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "CronJob".to_owned(),
                name: cronjob.name_any(),
                uid: cronjob.uid().context("the CronJob has no uid")?,
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    rewrite_task(&mut job)?;
    Ok(job)
}

/// The task of a Job's agent.
pub(crate) fn task(job: &Job) -> Option<Task> {
    let containers = &job.spec.as_ref()?.template.spec.as_ref()?.containers;
    let variables: BTreeMap<_, _> = containers
        .iter()
        .flat_map(|container| container.env.iter().flatten())
        .map(|v| (&*v.name, &v.value))
        .collect();
    serde_json::from_str(variables.get(TASK_ENV)?.as_deref()?).ok()
}

/// The manifest says that a person wanted this backup.
fn rewrite_task(job: &mut Job) -> Result<()> {
    let Some(Task::Backup(mut task)) = task(job) else {
        anyhow::bail!(
            "the CronJob runs no backup that this version of vertice understands; use the operator's version"
        )
    };
    task.trigger = Trigger::Manual;
    let text = serde_json::to_string(&Task::Backup(task)).context("cannot write the task")?;
    let containers = job
        .spec
        .iter_mut()
        .filter_map(|spec| spec.template.spec.as_mut())
        .flat_map(|pod| &mut pod.containers);
    for variable in containers.flat_map(|container| container.env.iter_mut().flatten()) {
        if variable.name == TASK_ENV {
            variable.value = Some(text.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRONJOB: &str = r#"{
        "metadata": {"name": "shop-backup", "namespace": "prod", "uid": "uid-of-cronjob"},
        "spec": {"schedule": "0 2 * * *", "jobTemplate": {
            "metadata": {"labels": {"vertice.io/backup": "shop"}, "annotations": {"example.com/kept": "yes"}},
            "spec": {"backoffLimit": 2, "template": {"spec": {"containers": [{"name": "agent", "image": "postgres:16", "env": [
                {"name": "VERTICE_TASK", "value": "{\"do\":\"backup\",\"owner\":{\"cluster\":\"c\",\"namespace\":\"prod\",\"name\":\"shop\"},\"trigger\":\"scheduled\",\"server\":{\"engine\":\"postgresql\",\"host\":\"db.prod.svc\",\"port\":5433,\"secret\":\"db\"},\"storage\":{\"type\":\"s3\",\"bucket\":\"b\",\"prefix\":\"prod/shop\",\"region\":\"us-east-1\",\"secret\":\"s3\"},\"compression\":\"zstd\"}"},
                {"name": "VERTICE_RUN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}}
            ]}]}}}
        }}
    }"#;

    #[test]
    fn is_the_template_with_a_person_behind_it() {
        let cronjob: CronJob = serde_json::from_str(CRONJOB).unwrap();
        insta::assert_yaml_snapshot!(manual(&cronjob, "x7k2p").unwrap());
    }

    #[test]
    fn a_template_without_a_task_is_not_run() {
        let mut cronjob: CronJob = serde_json::from_str(CRONJOB).unwrap();
        let pod = cronjob.spec.job_template.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.containers[0].env = None;
        assert!(manual(&cronjob, "x7k2p").unwrap_err().to_string().contains("use the operator's version"));
    }

    #[test]
    fn the_longest_name_fits() {
        // 45 characters of the VerticeBackup at most, as its definition says.
        assert!(names::cronjob(&"n".repeat(45)).len() + 1 + suffix().len() <= 63);
        assert_ne!(suffix(), suffix());
    }
}
