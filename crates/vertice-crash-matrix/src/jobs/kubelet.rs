//! The kubelet of a node that has everything: it mounts Secrets, runs the agent's container as a process, and tells how it ended.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Secret};
use kube::ResourceExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use snafu::ResultExt as _;
use tempfile::TempDir;
use vertice_backup::names;
use vertice_catalog::task::{STORAGE_SECRET_DIR, TARGET_SECRET_DIR, TASK_ENV, WORK_DIR};

use super::Cluster;
use super::job::phase;
use crate::error::{ApiSnafu, IoSnafu, ProgramSnafu, Result};
use crate::hub::advance_to;
use crate::server::bound;
use crate::{gateway, postgres};

/// How long every run takes by the injected clock, whatever befalls it: longer than all backoffs of one strike.
const RUN: SignedDuration = SignedDuration::from_mins(5);

/// What runs instead of a container, and what the cluster's DNS would lead it to.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) program: PathBuf,
    pub(crate) postgres: u16,
    pub(crate) store: u16,
    /// `VERTICE_MUTANT` of the agent's processes.
    pub(crate) mutant: Option<String>,
}

/// The kubelet.
#[derive(Debug)]
pub(crate) struct Kubelet {
    cluster: Cluster,
    agent: Agent,
    running: Mutex<Option<Pid>>,
    logs: Mutex<Vec<String>>,
    restores: Mutex<Vec<Carried>>,
}

/// What an agent did for a VerticeRestore.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// UID of the VerticeRestore.
    pub(crate) owner: String,
    /// UID of the Job.
    pub(crate) job: String,
    /// How it ended; none when its pod was deleted before.
    pub(crate) code: Option<i32>,
}

/// How a container ended.
struct Ended {
    code: i32,
    message: Option<String>,
}

impl Kubelet {
    pub(crate) fn new(cluster: Cluster, agent: Agent) -> Self {
        Self { cluster, agent, running: Mutex::default(), logs: Mutex::default(), restores: Mutex::default() }
    }

    /// Runs pods until dropped. Returns only when it cannot go on.
    pub(crate) async fn run(&self) -> Result<()> {
        let mut known = HashSet::new();
        let mut changes = self.cluster.world.changes();
        loop {
            changes.borrow_and_update();
            let pods = self.cluster.world.pods.state();
            let new = pods.into_iter().find(|pod| phase(pod) == "Pending" && !known.contains(&pod.uid()));
            if let Some(pod) = new {
                let _working = self.cluster.hub.working();
                known.insert(pod.uid());
                self.pod(&pod).await?;
            } else if changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Ends the process that runs now, and all that it started, as the end of its container would.
    pub(crate) fn kill(&self) {
        let running = *self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = running {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// All that agents wrote to their logs.
    pub(crate) fn logs(&self) -> Vec<String> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What agents did for VerticeRestores, in its order.
    pub(crate) fn restores(&self) -> Vec<Carried> {
        self.restores.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the agent of a pod does, if that is a VerticeRestore's.
    fn note(&self, pod: &Pod, code: Option<i32>) {
        let label = |label: &str| pod.labels().get(label).cloned().unwrap_or_default();
        if label(names::COMPONENT_LABEL) != "restore" {
            return;
        }
        let carried =
            Carried { owner: label(names::OWNER_UID_LABEL), job: label(names::JOB_UID_LABEL), code };
        let mut restores = self.restores.lock().unwrap_or_else(PoisonError::into_inner);
        restores.push(carried);
    }

    async fn pod(&self, pod: &Pod) -> Result<()> {
        let agent = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let Some(container) = agent else { return Ok(()) };
        let started = self.cluster.now();
        self.tell(pod, "Running", json!({"running": {"startedAt": started}})).await?;
        let gone = self.gone(pod);
        let ended = tokio::select! {
            ended = self.container(pod, container) => ended?,
            () = gone => {
                self.kill();
                self.set_running(None);
                self.note(pod, None);
                return Ok(());
            }
        };
        self.note(pod, Some(ended.code));
        advance_to(&self.cluster.hub.clock, self.started(pod).saturating_add(RUN).unwrap_or(started));
        self.cluster.world.nudge();
        let finished = self.cluster.now();
        let is = json!({"terminated": {
            "exitCode": ended.code, "message": ended.message, "startedAt": started, "finishedAt": finished,
            "reason": if ended.code == 0 { "Completed" } else { "Error" },
        }});
        self.tell(pod, if ended.code == 0 { "Succeeded" } else { "Failed" }, is).await
    }

    /// When the pod's Job started.
    fn started(&self, pod: &Pod) -> jiff::Timestamp {
        let job = pod.owner_references().first().map(|owner| owner.name.clone()).unwrap_or_default();
        let job = self.cluster.world.get(&self.cluster.world.jobs, &job);
        let started = job.and_then(|job| job.status.as_ref()?.start_time.as_ref().map(|time| time.0));
        started.unwrap_or_else(|| self.cluster.now())
    }

    /// Returns when the pod was deleted.
    async fn gone(&self, pod: &Pod) {
        let (name, uid) = (pod.name_any(), pod.uid());
        let mut changes = self.cluster.world.changes();
        while self.cluster.world.get(&self.cluster.world.pods, &name).is_some_and(|found| found.uid() == uid)
        {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn tell(&self, pod: &Pod, phase: &str, state: Value) -> Result<()> {
        let Some(seen) = self.cluster.world.get(&self.cluster.world.pods, &pod.name_any()) else {
            return Ok(());
        };
        if seen.uid() != pod.uid() {
            return Ok(());
        }
        let container = json!({
            "name": "agent", "image": "postgres:15.18", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        });
        let status = json!({"phase": phase, "containerStatuses": [container]});
        self.cluster.status(&self.cluster.world.pods, &*seen, status).await
    }

    async fn container(&self, pod: &Pod, container: &Container) -> Result<Ended> {
        let dir = tempfile::tempdir().context(IoSnafu { action: "make", path: "a temporary folder" })?;
        self.mount(pod, container, &dir).await?;
        let message = dir.path().join("termination-log");
        let mut command = bound(&self.agent.program, &[]);
        command.arg("run").env_clear().env("PATH", postgres::BIN).env("VERTICE_TERMINATION_LOG", &message);
        for (variable, mounted) in [
            ("VERTICE_TARGET_SECRET_DIR", TARGET_SECRET_DIR),
            ("VERTICE_STORAGE_SECRET_DIR", STORAGE_SECRET_DIR),
            ("VERTICE_WORK_DIR", WORK_DIR),
        ] {
            command.env(variable, place(&dir, mounted));
        }
        if let Some(mutant) = &self.agent.mutant {
            command.env("VERTICE_MUTANT", mutant);
        }
        for variable in container.env.iter().flatten() {
            command.env(&variable.name, self.value(pod, variable));
        }
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| {
            ProgramSnafu { program: "vertice-agent", message: error.to_string() }.build()
        };
        let child = command.kill_on_drop(true).spawn().map_err(failed)?;
        self.set_running(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
        let output = child.wait_with_output().await.map_err(failed)?;
        self.set_running(None);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let log = text(&output.stdout) + &text(&output.stderr);
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log);
        let message = std::fs::read_to_string(&message).ok();
        // As a container's runtime tells of one that was killed.
        Ok(Ended { code: output.status.code().unwrap_or(137), message })
    }

    fn set_running(&self, pid: Option<Pid>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    /// Puts the files of Secrets where the container mounts them, and makes its empty folders.
    async fn mount(&self, pod: &Pod, container: &Container, dir: &TempDir) -> Result<()> {
        for mount in container.volume_mounts.iter().flatten() {
            let place = place(dir, &mount.mount_path);
            std::fs::create_dir_all(&place).context(IoSnafu { action: "make", path: &place })?;
            let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
            let volume = volumes.into_iter().flatten().find(|volume| volume.name == mount.name);
            let secret = volume.and_then(|volume| volume.secret.as_ref()?.secret_name.as_deref());
            let Some(secret) = secret else { continue };
            let found = self.cluster.api::<Secret>().get_opt(secret).await;
            let found = found.with_context(|_| ApiSnafu { doing: format!("read Secret {secret}") })?;
            for (key, value) in found.and_then(|secret| secret.data).unwrap_or_default() {
                let path = place.join(key);
                std::fs::write(&path, value.0).context(IoSnafu { action: "write", path: &path })?;
            }
        }
        Ok(())
    }

    /// The value of a variable, with addresses as the cluster's DNS would resolve them.
    fn value(&self, pod: &Pod, variable: &EnvVar) -> String {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let value = match field.map(|field| field.field_path.as_str()) {
            None => variable.value.clone(),
            Some("metadata.namespace") => pod.namespace(),
            Some("metadata.name") => Some(pod.name_any()),
            Some(path) => label(path).and_then(|label| pod.labels().get(label).cloned()),
        };
        let value = value.unwrap_or_default();
        if variable.name == TASK_ENV { self.resolved(&value) } else { value }
    }

    fn resolved(&self, task: &str) -> String {
        let Ok(mut task) = serde_json::from_str::<Value>(task) else { return task.to_owned() };
        task["server"]["host"] = "127.0.0.1".into();
        task["server"]["port"] = self.agent.postgres.into();
        task["storage"]["endpoint"] = format!("http://127.0.0.1:{}", self.agent.store).into();
        task.to_string()
    }
}

/// The label in `metadata.labels['…']`.
fn label(path: &str) -> Option<&str> {
    path.strip_prefix("metadata.labels['")?.strip_suffix("']")
}

/// Where a container's path lies on this machine.
fn place(dir: &TempDir, path: &str) -> PathBuf {
    let relative = path.trim_start_matches('/');
    Path::new(dir.path()).join(relative)
}

/// The Secrets of a namespace, by name: what pods may mount.
pub(crate) fn secrets() -> [Value; 2] {
    [
        json!({
            "metadata": {"name": "db"},
            "stringData": {"username": "postgres", "password": postgres::PASSWORD},
        }),
        json!({
            "metadata": {"name": "s3"},
            "stringData": {"AWS_ACCESS_KEY_ID": gateway::ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": gateway::SECRET_KEY},
        }),
    ]
}
