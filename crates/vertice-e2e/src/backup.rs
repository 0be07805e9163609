//! VerticeBackup and VerticeRestore, as a user writes and watches them.

use std::time::Duration;

use serde_json::Value;

use crate::harness::Harness;
use crate::kubectl::{Kubectl, Result, condition};
use crate::s3;

/// A VerticeBackup of the server `server` into `bucket`, as JSON that a test may change before it applies it.
pub fn verticebackup(namespace: &str, name: &str, server: &str, bucket: &str) -> Value {
    serde_json::json!({
        "apiVersion": "vertice.io/v1alpha1",
        "kind": "VerticeBackup",
        "metadata": {"name": name},
        "spec": {
            "target": {"type": "postgresql", "name": server, "credentials": server},
            "schedule": "0 2 * * *",
            "timeZone": "Europe/Zurich",
            "storage": {"type": "s3", "bucket": bucket, "endpoint": s3::endpoint(namespace), "credentials": s3::NAME},
        },
    })
}

/// A VerticeRestore of the newest backup of `backup`.
pub fn verticerestore(name: &str, backup: &str) -> Value {
    serde_json::json!({
        "apiVersion": "vertice.io/v1alpha1",
        "kind": "VerticeRestore",
        "metadata": {"name": name},
        "spec": {"source": {"backupName": backup}},
    })
}

/// Waits until the Ready condition of a VerticeBackup or VerticeRestore speaks of its current spec, and returns the object.
pub async fn judged(kubectl: &Kubectl, namespace: &str, object: &str, limit: Duration) -> Result<Value> {
    let what = format!("{object} in {namespace} has a Ready condition");
    kubectl
        .wait(&what, limit, &["-n", namespace, "get", object], |found| {
            let current = condition(found, "Ready")?["observedGeneration"] == found["metadata"]["generation"];
            current.then(|| found.clone())
        })
        .await
}

/// Waits until a VerticeRestore ended, well or badly, and returns it.
pub async fn ended(kubectl: &Kubectl, namespace: &str, name: &str, limit: Duration) -> Result<Value> {
    let what = format!("verticerestore {name} in {namespace} ended");
    kubectl
        .wait(&what, limit, &["-n", namespace, "get", "verticerestore", name], |found| {
            matches!(found["status"]["phase"].as_str()?, "Succeeded" | "Failed").then(|| found.clone())
        })
        .await
}

/// What `vertice backup run` printed and how it ended.
#[derive(Debug)]
pub struct ManualRun {
    /// Its exit code.
    pub code: Option<i32>,
    /// Standard output and standard error, one after the other.
    pub text: String,
}

/// `vertice backup run NAME`, followed to its end.
pub async fn run_now(harness: &Harness, namespace: &str, name: &str) -> std::io::Result<ManualRun> {
    let words = ["backup", "run", name, "--namespace", namespace];
    let output = harness.kubectl.vertice(&harness.vertice, &words).output().await?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(ManualRun { code: output.status.code(), text })
}
