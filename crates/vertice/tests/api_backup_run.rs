//! `vertice backup run` on a real API server. The test plays the operator, the Job controller and the kubelet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::process::{Output, Stdio};

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use support::{client, eventually, install_definitions, kubeconfig, namespace};
use tokio::process::Command;
use vertice_api::vertice_io::VerticeBackup;

struct Stage {
    client: Client,
    namespace: String,
    backup: VerticeBackup,
}

impl Stage {
    /// A VerticeBackup that an operator looked at.
    async fn set(ready: &Value) -> Self {
        let client = client().await;
        install_definitions(&client).await;
        let namespace = namespace(&client, "run").await;
        let backups = Api::<VerticeBackup>::namespaced(client.clone(), &namespace);
        let object = json!({
            "apiVersion": "vertice.io/v1alpha1", "kind": "VerticeBackup", "metadata": {"name": "shop"},
            "spec": {
                "target": {"type": "postgresql", "name": "db", "credentials": "db"},
                "schedule": "0 2 * * *",
                "storage": {"type": "s3", "bucket": "backups", "credentials": "s3"},
            },
        });
        let object = serde_json::from_value(object).unwrap();
        backups.create(&PostParams::default(), &object).await.unwrap();
        let mut condition =
            json!({"type": "Ready", "lastTransitionTime": "2026-11-21T00:00:00Z", "observedGeneration": 1});
        condition.as_object_mut().unwrap().extend(ready.as_object().unwrap().clone());
        let status = Patch::Merge(json!({"status": {"conditions": [condition]}}));
        let backup = backups.patch_status("shop", &PatchParams::default(), &status).await.unwrap();
        Self { client, namespace, backup }
    }

    async fn in_force() -> Self {
        let stage = Self::set(&json!({"status": "True", "reason": "Scheduled", "message": "ok"})).await;
        let task = json!({
            "do": "backup", "owner": {"cluster": "c", "namespace": stage.namespace, "name": "shop"}, "trigger": "scheduled",
            "server": {"engine": "postgresql", "host": "db", "port": 5432, "secret": "db"},
            "storage": {"type": "s3", "bucket": "backups", "prefix": "team/shop", "region": "us-east-1", "secret": "s3"},
            "compression": "gzip",
        });
        let container = json!({"name": "agent", "image": "postgres:16",
            "env": [{"name": "VERTICE_TASK", "value": task.to_string()}]});
        let cronjob = json!({
            "metadata": {"name": "shop-backup", "ownerReferences": [{"apiVersion": "vertice.io/v1alpha1", "kind": "VerticeBackup",
                "name": "shop", "uid": stage.backup.uid().unwrap(), "controller": true}]},
            "spec": {"schedule": "0 2 * * *", "jobTemplate": {
                "metadata": {"labels": {"vertice.io/backup": "shop"}},
                "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
            }},
        });
        let cronjobs = Api::<CronJob>::namespaced(stage.client.clone(), &stage.namespace);
        cronjobs.create(&PostParams::default(), &serde_json::from_value(cronjob).unwrap()).await.unwrap();
        stage
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vertice"));
        command.args(["backup", "run", "shop", "--namespace", &self.namespace]).args(words);
        command.env("KUBECONFIG", kubeconfig()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn job(&self) -> Job {
        let jobs = self.jobs();
        eventually("the Job is made", async || jobs.list(&ListParams::default()).await.unwrap().items.pop())
            .await
    }

    /// Ends the Job's pod with this termination message, and the Job.
    async fn end(&self, job: &Job, report: Option<&Value>, condition: &str) {
        let name = job.name_any();
        if let Some(report) = report {
            let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
            let pod = json!({"metadata": {"name": name, "labels": {"batch.kubernetes.io/job-name": name}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "agent", "image": "postgres:16"}]}});
            pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
            let terminated =
                json!({"exitCode": 0, "message": report.to_string(), "finishedAt": "2026-11-21T02:00:10Z"});
            let status = json!({"status": {"containerStatuses": [{"name": "agent", "image": "postgres:16", "imageID": "",
                "ready": false, "restartCount": 0, "state": {"terminated": terminated}}]}});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        }
        let (target, reason) = if condition == "Complete" {
            ("SuccessCriteriaMet", "Done")
        } else {
            ("FailureTarget", "PodFailurePolicy")
        };
        let now = "2026-11-21T02:00:11Z";
        let settled = json!({"type": target, "status": "True", "reason": reason, "message": "the Job's own words",
            "lastTransitionTime": now, "lastProbeTime": now});
        let status = json!({"status": {"startTime": "2026-11-21T02:00:00Z", "conditions": [settled]}});
        self.jobs().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    fn text(&self, job: Option<&Job>, output: &Output) -> String {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let text =
            format!("{}\nstdout: {out}\nstderr: {err}", output.status).replace(&self.namespace, "NAMESPACE");
        job.map_or(text.clone(), |job| text.replace(&job.name_any(), "JOB"))
    }
}

#[tokio::test]
async fn a_backup_that_was_made_is_told() {
    let stage = Stage::in_force().await;
    let child = stage.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let job = stage.job().await;
    assert_eq!(job.annotations()["cronjob.kubernetes.io/instantiate"], "manual");
    assert_eq!(job.owner_references()[0].kind, "CronJob");
    let report = json!({"outcome": "backedUp", "backupId": "20261121T020000Z-3f9a1c",
        "startedAt": "2026-11-21T02:00:00Z", "finishedAt": "2026-11-21T02:00:10Z", "storedBytes": 12_300_000,
        "plainBytes": 45_600_000, "databases": 3, "serverVersion": "16.4"});
    stage.end(&job, Some(&report), "Complete").await;
    let output = child.wait_with_output().await.unwrap();
    insta::assert_snapshot!(stage.text(Some(&job), &output));
}

#[tokio::test]
async fn a_backup_that_failed_is_told_in_the_operators_words() {
    let stage = Stage::in_force().await;
    let child = stage.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let job = stage.job().await;
    let report = json!({"outcome": "failed", "reason": "AuthenticationFailed", "message": "password refused",
        "startedAt": "2026-11-21T02:00:00Z", "finishedAt": "2026-11-21T02:00:10Z"});
    stage.end(&job, Some(&report), "Failed").await;
    let run = json!({"timestamp": "2026-11-21T02:00:00Z", "status": "Failed", "job": job.name_any(), "jobUid": job.uid().unwrap(),
        "reason": "AuthenticationFailed", "message": "user \"postgres\" was refused: check Secret db"});
    let backups = Api::<VerticeBackup>::namespaced(stage.client.clone(), &stage.namespace);
    let status = Patch::Merge(json!({"status": {"history": [run]}}));
    backups.patch_status("shop", &PatchParams::default(), &status).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    insta::assert_snapshot!(stage.text(Some(&job), &output));
}

#[tokio::test]
async fn what_is_not_in_force_is_not_run() {
    let stage =
        Stage::set(&json!({"status": "False", "reason": "InvalidSchedule", "message": "spec.schedule: no"}))
            .await;
    let output = stage.command(&[]).output().await.unwrap();
    insta::assert_snapshot!(stage.text(None, &output));
    assert!(stage.jobs().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn without_following_or_patience_the_run_goes_on() {
    let stage = Stage::in_force().await;
    let output = stage.command(&["--no-follow"]).output().await.unwrap();
    let job = stage.job().await;
    insta::assert_snapshot!("no_follow", stage.text(Some(&job), &output));
    stage.jobs().delete(&job.name_any(), &kube::api::DeleteParams::background()).await.unwrap();
    let jobs = stage.jobs();
    eventually("the Job is gone", async || {
        jobs.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
    let output = stage.command(&["--timeout", "1s"]).output().await.unwrap();
    insta::assert_snapshot!("timeout", stage.text(Some(&stage.job().await), &output));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let stage = Stage::in_force().await;
    let words = ["backup", "run", "nothing", "-n", &stage.namespace];
    let mut command = Command::new(env!("CARGO_BIN_EXE_vertice"));
    let output = command.args(words).env("KUBECONFIG", kubeconfig()).output().await.unwrap();
    insta::assert_snapshot!(stage.text(None, &output));
}
