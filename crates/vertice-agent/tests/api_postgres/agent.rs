//! The agent's binary, with its pod's surroundings.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use vertice_catalog::report::{FailureReason, MAX_REPORT_BYTES, Progress, Report};

use crate::gateway::{ACCESS_KEY, BUCKET, Gateway, PREFIX, SECRET_KEY};
use crate::postgres::{PASSWORD, Postgres};

/// A run that is prepared.
pub(crate) struct Run {
    pub(crate) task: Value,
    pub(crate) pod: String,
    namespace: String,
    dir: TempDir,
}

/// A run under way.
pub(crate) struct Running {
    pub(crate) child: Child,
    dir: TempDir,
}

/// A run that ended.
pub(crate) struct Ended {
    pub(crate) report: Report,
    pub(crate) success: bool,
    pub(crate) output: String,
}

fn server(postgres: &Postgres) -> Value {
    json!({"engine": "postgresql", "host": "127.0.0.1", "port": postgres.port, "secret": "orders-db"})
}

fn storage(gateway: &Gateway) -> Value {
    json!({"type": "s3", "bucket": BUCKET, "prefix": PREFIX, "endpoint": gateway.url(), "region": "us-east-1", "secret": "store-key"})
}

impl Run {
    fn new(task: Value) -> Self {
        let run =
            Self { task, pod: "pod-a".into(), namespace: String::new(), dir: tempfile::tempdir().unwrap() };
        for folder in ["target", "storage", "work"] {
            std::fs::create_dir(run.path(folder)).unwrap();
        }
        run.secret("target/username", "postgres").secret("target/password", PASSWORD);
        run.secret("storage/AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .secret("storage/AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        run
    }

    pub(crate) fn backup(postgres: &Postgres, gateway: &Gateway) -> Self {
        Self::new(json!({
            "do": "backup",
            "owner": {"cluster": "test-cluster", "namespace": "shop", "name": "orders"},
            "trigger": "manual",
            "server": server(postgres),
            "storage": storage(gateway),
            "compression": "gzip"
        }))
    }

    pub(crate) fn restore(postgres: &Postgres, gateway: &Gateway) -> Self {
        Self::new(
            json!({"do": "restore", "server": server(postgres), "storage": storage(gateway), "overwrite": false}),
        )
    }

    /// Sets a field of the task; `/` separates its path.
    pub(crate) fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        let (parent, field) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
        self.task.pointer_mut(&parent).unwrap()[field] = value.into();
        self
    }

    pub(crate) fn pod(mut self, name: &str) -> Self {
        name.clone_into(&mut self.pod);
        self
    }

    pub(crate) fn namespace(mut self, name: &str) -> Self {
        name.clone_into(&mut self.namespace);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn secret(&self, file: &str, value: &str) -> &Self {
        std::fs::write(self.path(file), value).unwrap();
        self
    }

    pub(crate) fn without(self, file: &str) -> Self {
        std::fs::remove_file(self.path(file)).unwrap();
        self
    }

    pub(crate) fn start(self) -> Running {
        let output = std::fs::File::create(self.path("output")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_vertice-agent"))
            .arg("run")
            .env("VERTICE_TASK", self.task.to_string())
            .env("VERTICE_RUN", &self.pod)
            .env("VERTICE_NAMESPACE", &self.namespace)
            .env("VERTICE_TARGET_SECRET_DIR", self.path("target"))
            .env("VERTICE_STORAGE_SECRET_DIR", self.path("storage"))
            .env("VERTICE_WORK_DIR", self.path("work"))
            .env("VERTICE_TERMINATION_LOG", self.path("termination-log"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Running { child, dir: self.dir }
    }

    pub(crate) fn end(self) -> Ended {
        self.start().end()
    }
}

impl Running {
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    pub(crate) fn kill(self) {
        assert_eq!(self.kill_late(), None, "nothing was done that could be reported");
    }

    /// Kills it and returns what it had reported, which only a run may that has done its work.
    pub(crate) fn kill_late(mut self) -> Option<Report> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let message = std::fs::read_to_string(self.dir.path().join("termination-log")).ok()?;
        Some(Report::parse(&message).unwrap())
    }

    pub(crate) fn end(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        let output = self.output();
        let message = std::fs::read_to_string(self.dir.path().join("termination-log"))
            .unwrap_or_else(|error| panic!("no report: {error}\n{output}"));
        assert!(message.len() <= MAX_REPORT_BYTES);
        for text in [&output, &message] {
            for hidden in [PASSWORD, SECRET_KEY] {
                assert!(!text.contains(hidden), "a secret is told: {text}");
            }
        }
        Ended { report: Report::parse(&message).unwrap(), success: status.success(), output }
    }
}

impl Ended {
    /// The id of the backup that was made.
    #[track_caller]
    pub(crate) fn backed_up(self) -> String {
        match self.report {
            Report::BackedUp { backup_id, .. } if self.success => backup_id.to_string(),
            other => panic!("{other:?}\n{}", self.output),
        }
    }

    /// The databases that were restored.
    #[track_caller]
    pub(crate) fn restored(self) -> Vec<String> {
        match self.report {
            Report::Restored { databases, .. } if self.success => databases,
            other => panic!("{other:?}\n{}", self.output),
        }
    }

    #[track_caller]
    pub(crate) fn failed(self) -> (FailureReason, String) {
        match self.report {
            Report::Failed { reason, message, .. } if !self.success => (reason, message),
            other => panic!("{other:?}\n{}", self.output),
        }
    }

    /// The progress lines.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        self.output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
