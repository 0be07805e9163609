//! What helps to see why a test failed, gathered in `target/testbed/failures/<test>`.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::paths::Paths;

/// Where to gather from.
#[derive(Clone, Debug)]
pub struct Source {
    pub paths: Paths,
    /// Logs of processes; all `.log` files of the folder are copied.
    pub logs: Option<PathBuf>,
    /// The program kubectl.
    pub kubectl: PathBuf,
    /// Its `KUBECONFIG`, when it is not the environment's.
    pub kubeconfig: Option<PathBuf>,
    /// Its context, when it is not the current one.
    pub context: Option<String>,
}

/// Gathers process logs, and of each namespace pods' logs, events, and all objects; of the cluster its nodes, volumes and
/// custom resource definitions. What cannot be had leaves its error in the place of its file. Returns the folder.
pub async fn collect(source: &Source, test: &str, namespaces: &[&str]) -> PathBuf {
    let dir = source.paths.failures().join(file_name(test));
    // What an earlier failure left would mislead.
    let _ = std::fs::remove_dir_all(&dir);
    if let Err(error) = std::fs::create_dir_all(&dir) {
        tracing::warn!(dir = %dir.display(), %error, "failed to make the folder for a failed test");
        return dir;
    }
    if let Some(logs) = &source.logs {
        copy_logs(logs, &dir.join("logs"));
    }
    source.save(&dir.join("cluster.yaml"), &["get", "nodes,pv,storageclass,crd", "-o", "yaml"]).await;
    for namespace in namespaces {
        source.namespace(namespace, &dir.join(namespace)).await;
    }
    dir
}

impl Source {
    async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.kubectl);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        let output = command.arg("--request-timeout=20s").args(arguments).output().await;
        let output = output.map_err(|error| format!("failed to start kubectl: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    async fn save(&self, path: &Path, arguments: &[&str]) {
        let text = self.kubectl(arguments).await.unwrap_or_else(|error| format!("# {error}"));
        if let Err(error) = std::fs::write(path, text) {
            tracing::warn!(path = %path.display(), %error, "failed to keep what a failed test left");
        }
    }

    async fn namespace(&self, namespace: &str, dir: &Path) {
        if let Err(error) = std::fs::create_dir_all(dir.join("logs")) {
            tracing::warn!(dir = %dir.display(), %error, "failed to make the folder of a namespace");
            return;
        }
        let events = ["events", "--namespace", namespace];
        self.save(&dir.join("events.txt"), &events).await;
        self.save(&dir.join("pods.txt"), &["describe", "pods", "--namespace", namespace]).await;
        // Secrets are left out: the folder may be an artefact that others see.
        let kinds = self.kubectl(&["api-resources", "--namespaced", "--verbs=list", "-o", "name"]).await;
        let kinds: Vec<String> = kinds
            .unwrap_or_default()
            .lines()
            .filter(|kind| {
                !matches!(*kind, "secrets" | "events" | "events.events.k8s.io")
                    && !kind.contains("metrics.k8s.io")
            })
            .map(str::to_owned)
            .collect();
        let all = ["get", &kinds.join(","), "--namespace", namespace, "-o", "yaml"];
        self.save(&dir.join("objects.yaml"), &all).await;
        let pods =
            self.kubectl(&["get", "pods", "--namespace", namespace, "-o", "name"]).await.unwrap_or_default();
        for pod in pods.lines() {
            let file = |kind: &str| dir.join("logs").join(format!("{}{kind}.log", file_name(pod)));
            let now = ["logs", pod, "--namespace", namespace, "--all-containers", "--prefix"];
            self.save(&file(""), &now).await;
            let before: Vec<&str> = now.into_iter().chain(["--previous"]).collect();
            if let Ok(text) = self.kubectl(&before).await {
                let _ = std::fs::write(file("-previous"), text);
            }
        }
    }
}

fn copy_logs(from: &Path, to: &Path) {
    let copied = || -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    };
    if let Err(error) = copied() {
        tracing::warn!(from = %from.display(), %error, "failed to keep the logs of a failed test");
    }
}

/// A test's or a pod's name as one file name.
fn file_name(name: &str) -> String {
    name.replace("::", "-").replace(['/', '\\', ' '], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_had_leaves_its_error() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("run-logs");
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(logs.join("etcd.log"), "an election").unwrap();
        let source = Source {
            paths: Paths::new(dir.path(), "target"),
            logs: Some(logs),
            kubectl: "/no/kubectl".into(),
            kubeconfig: None,
            context: None,
        };
        let kept = collect(&source, "backup::restores", &["shop"]).await;
        assert!(kept.ends_with("failures/backup-restores"));
        assert_eq!(std::fs::read_to_string(kept.join("logs/etcd.log")).unwrap(), "an election");
        let events = std::fs::read_to_string(kept.join("shop/events.txt")).unwrap();
        assert!(events.starts_with("# failed to start kubectl"), "{events}");
    }
}
