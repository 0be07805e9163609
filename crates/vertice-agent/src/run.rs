//! The process around a run: its task, its signals, its report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use vertice_catalog::report::{EXIT_FAILED, EXIT_INTERRUPTED, FailureReason, Report};
use vertice_catalog::task::{
    NAMESPACE_ENV, RUN_NAME_ENV, RUN_UID_ENV, STORAGE_SECRET_DIR, Server, StorageLocation, TARGET_SECRET_DIR,
    TASK_ENV, Task, WORK_DIR,
};

use crate::engines::postgresql::ENGINE;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::secrets::{SecretDir, SecretError};
use crate::storage::Credentials;
use crate::{backup, restore};

/// Where a run finds things. A pod uses the defaults; outside of Kubernetes they can be elsewhere.
#[derive(Clone, Debug, Args)]
pub struct Places {
    /// The task, as JSON.
    #[arg(long, env = TASK_ENV, hide_env_values = true, default_value = "")]
    pub task: String,
    /// Name of the run: it holds the claim.
    #[arg(long, env = RUN_NAME_ENV)]
    pub run_name: Option<String>,
    /// UID of the run: a backup that has it was made by an earlier pod of this run.
    #[arg(long, env = RUN_UID_ENV)]
    pub run_uid: Option<String>,
    /// Namespace of the run: only with it is the name of a run one of a kind.
    #[arg(long, env = NAMESPACE_ENV)]
    pub namespace: Option<String>,
    /// Folder with the files username and password.
    #[arg(long, env = "VERTICE_TARGET_SECRET_DIR", default_value = TARGET_SECRET_DIR)]
    pub target_secret_dir: PathBuf,
    /// Folder with files named after the provider's keys.
    #[arg(long, env = "VERTICE_STORAGE_SECRET_DIR", default_value = STORAGE_SECRET_DIR)]
    pub storage_secret_dir: PathBuf,
    /// Small writable folder.
    #[arg(long, env = "VERTICE_WORK_DIR", default_value = WORK_DIR)]
    pub work_dir: PathBuf,
    /// File that the report is written to.
    #[arg(long, env = "VERTICE_TERMINATION_LOG", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// What the runs share.
#[derive(Debug)]
pub struct Environment {
    /// Who holds claims: the run's namespace and name.
    pub holder: String,
    /// UID of the run's Job.
    pub run_uid: Option<String>,
    /// When the run started.
    pub started_at: Timestamp,
    /// Small writable folder.
    pub work_dir: PathBuf,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Held over the one step that makes the result valid; a run that is told to stop lets it end.
    pub critical: Mutex<()>,
    target_secret_dir: PathBuf,
    storage_secret_dir: PathBuf,
    termination_log: PathBuf,
    stop: CancellationToken,
}

impl Environment {
    fn new(places: &Places, started_at: Timestamp) -> Self {
        Self {
            holder: holder(places.namespace.as_deref(), places.run_name.as_deref()),
            run_uid: places.run_uid.clone().filter(|uid| !uid.is_empty()),
            started_at,
            work_dir: places.work_dir.clone(),
            progress: Arc::default(),
            critical: Mutex::default(),
            target_secret_dir: places.target_secret_dir.clone(),
            storage_secret_dir: places.storage_secret_dir.clone(),
            termination_log: places.termination_log.clone(),
            stop: CancellationToken::new(),
        }
    }

    /// The database's Secret.
    pub fn target_secret<'a>(&'a self, server: &'a Server) -> SecretDir<'a> {
        let (name, path) = (server.secret.as_str(), self.target_secret_dir.as_path());
        SecretDir { name, path, purpose: "the database's credentials", keys: &["username", "password"] }
    }

    /// The store's keys.
    pub fn storage_credentials(&self, storage: &StorageLocation) -> Result<Credentials, SecretError> {
        let (name, path) = (storage.secret.as_str(), self.storage_secret_dir.as_path());
        Credentials::from_secret(&SecretDir {
            name,
            path,
            purpose: "the object store's keys",
            keys: &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
        })
    }

    /// Whether we know the engine.
    pub fn check_engine(&self, server: &Server) -> Result<(), Failure> {
        if server.engine == ENGINE {
            return Ok(());
        }
        Err(Failure::Task { detail: format!("engine {:?} is not known to this agent", server.engine) })
    }

    /// Whether a backup is of the engine that it is to go into.
    pub fn check_same_engine(&self, backup: &str, server: &Server) -> Result<(), Failure> {
        if backup == server.engine {
            return Ok(());
        }
        Err(Failure::Task { detail: format!("the backup is of {backup}, the target is {}", server.engine) })
    }

    /// Reports a result that stands before all is tidied up: a process that is killed from now on has succeeded all the same.
    pub fn report_early(&self, report: &Report) {
        if let Err(error) = write(report, &self.termination_log) {
            tracing::warn!(path = %self.termination_log.display(), %error, "the report cannot be written yet");
        }
    }

    /// Returns when the run is to stop, after a step that must not be cut.
    pub async fn told_to_stop(&self) -> Failure {
        self.stop.cancelled().await;
        let _uncut = self.critical.lock().await;
        Failure::Interrupted
    }
}

/// `shop/orders-29418120`. Without a pod any name does that no other run has.
fn holder(namespace: Option<&str>, run_name: Option<&str>) -> String {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let name = given(run_name).unwrap_or_else(|| format!("local-{}", hex::encode(rand::random::<[u8; 4]>())));
    given(namespace).map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"))
}

/// Does the task and reports. Fails only by exit code: the words are in the report and in the log.
pub async fn run(places: Places) -> ExitCode {
    let started_at = Timestamp::now();
    report_panics(places.termination_log.clone(), started_at);
    let environment = Arc::new(Environment::new(&places, started_at));
    let printing = tokio::spawn(environment.progress.clone().print_for_ever());
    let signals = tokio::spawn(cancel_on_signal(environment.stop.clone()));
    let outcome = tokio::spawn(perform(places.task, environment.clone())).await;
    printing.abort();
    signals.abort();
    let report = match outcome {
        Ok(Ok(report)) => report,
        Ok(Err(failure)) => failed(failure.reason(), failure.to_string(), started_at),
        // The hook has reported it already.
        Err(_) => return ExitCode::FAILURE,
    };
    finish(&report, &places.termination_log)
}

async fn perform(task: String, environment: Arc<Environment>) -> Result<Report, Failure> {
    let task: Task =
        serde_json::from_str(&task).map_err(|error| Failure::Task { detail: error.to_string() })?;
    match &task {
        Task::Backup(task) => backup::run(task, &environment).await,
        Task::Restore(task) => restore::run(task, &environment).await,
    }
}

async fn cancel_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be received; a stopped run will be cleaned up by the next one");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::warn!("told to stop");
    stop.cancel();
}

fn failed(reason: FailureReason, message: String, started_at: Timestamp) -> Report {
    Report::Failed { reason, message, started_at, finished_at: Timestamp::now() }
}

fn finish(report: &Report, termination_log: &Path) -> ExitCode {
    let code = match report {
        Report::Failed { reason, message, .. } => {
            tracing::error!(?reason, "{message}");
            ExitCode::from(if *reason == FailureReason::Interrupted { EXIT_INTERRUPTED } else { EXIT_FAILED })
        }
        done => {
            tracing::info!(report = ?done, "done");
            ExitCode::SUCCESS
        }
    };
    match write(report, termination_log) {
        Ok(()) => code,
        Err(error) => {
            // Without a report nobody would know of a success.
            tracing::error!(path = %termination_log.display(), %error, "the report cannot be written");
            ExitCode::FAILURE
        }
    }
}

fn write(report: &Report, termination_log: &Path) -> std::io::Result<()> {
    std::fs::write(termination_log, report.to_termination_message()?)
}

/// A panic is a bug; the operator should hear of it in words all the same.
fn report_panics(termination_log: PathBuf, started_at: Timestamp) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        let message = format!("the agent panicked, which is a bug; please report it: {info}");
        // Standard error has the words if this fails.
        let _ = write(&failed(FailureReason::EngineFailed, message, started_at), &termination_log);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_makes_no_sense_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let termination_log = dir.path().join("termination-log");
        let places = Places {
            task: r#"{"do":"dance"}"#.to_owned(),
            run_name: None,
            run_uid: None,
            namespace: None,
            target_secret_dir: dir.path().into(),
            storage_secret_dir: dir.path().into(),
            work_dir: dir.path().into(),
            termination_log: termination_log.clone(),
        };
        run(places).await;
        let report = Report::parse(&std::fs::read_to_string(termination_log).unwrap()).unwrap();
        let Report::Failed { reason, message, .. } = report else { panic!("{report:?}") };
        assert_eq!(reason, FailureReason::InvalidTask);
        insta::assert_snapshot!(message, @"the task in VERTICE_TASK cannot be done: unknown variant `dance`, expected `backup` or `restore` at line 1 column 13; operator and agent should have the same version");
    }

    #[test]
    fn runs_of_one_name_in_two_namespaces_are_two_holders() {
        assert_eq!(holder(Some("shop"), Some("back")), "shop/back");
        assert_eq!(holder(Some("sales"), Some("back")), "sales/back");
        assert_eq!(holder(Some(""), Some("back")), "back");
        assert_ne!(holder(None, Some("")), holder(None, None));
    }

    #[test]
    fn a_panic_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let termination_log = dir.path().join("termination-log");
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        report_panics(termination_log.clone(), Timestamp::UNIX_EPOCH);
        let panicked = std::thread::spawn(|| panic!("boom")).join();
        std::panic::set_hook(before);
        assert!(panicked.is_err());
        let report = Report::parse(&std::fs::read_to_string(termination_log).unwrap()).unwrap();
        let Report::Failed { message, .. } = report else { panic!("{report:?}") };
        assert!(message.contains("boom"), "{message}");
    }
}
