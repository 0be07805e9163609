//! `kubectl` against one cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use snafu::{ResultExt, Snafu};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What went wrong with a call.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum KubectlError {
    /// The program is missing.
    #[snafu(display("{} cannot be started", program.display()))]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It said no.
    #[snafu(display("{line}: {message}"))]
    Failed {
        /// The command.
        line: String,
        /// Its standard error.
        message: String,
    },
    /// It answered something that is not JSON.
    #[snafu(display("{line} did not answer with JSON"))]
    Answer {
        /// The command.
        line: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A condition did not come true in time.
    #[snafu(display("{what}: not within {} s; last seen: {last}", limit.as_secs()))]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The last look at it.
        last: String,
    },
}

/// The result of a call.
pub type Result<T, E = KubectlError> = std::result::Result<T, E>;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(250);

/// `kubectl` and `helm` for one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    programs: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

impl Kubectl {
    /// Uses the programs in `programs` with this kubeconfig (the user's own without), and its current context unless told otherwise.
    pub fn new(programs: &Path, kubeconfig: Option<&Path>, context: Option<&str>) -> Self {
        Self {
            programs: programs.to_owned(),
            kubeconfig: kubeconfig.map(Path::to_owned),
            context: context.map(str::to_owned),
        }
    }

    /// Where `kubectl` and `helm` lie.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The kubeconfig, if not the user's own.
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// The context, if not the current one.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// A program of the folder, pointed at the cluster.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        self.point(&mut command);
        if let Some(context) = &self.context {
            command.arg(if name == "helm" { "--kube-context" } else { "--context" }).arg(context);
        }
        command
    }

    /// `vertice` with these words, pointed at the cluster.
    pub fn vertice(&self, binary: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(binary);
        self.point(&mut command);
        command.args(words);
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command
    }

    fn point(&self, command: &mut Command) {
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
    }

    /// Runs a command to its end and returns its standard output.
    pub async fn output(&self, mut command: Command, input: Option<&[u8]>) -> Result<String> {
        let line = line(&command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let program = PathBuf::from(command.as_std().get_program());
        let mut child = command.spawn().context(StartSnafu { program: program.clone() })?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            let input = input.to_vec();
            // A program that ends without reading its input says why on its standard error.
            tokio::spawn(async move {
                let _ = stdin.write_all(&input).await;
            });
        }
        let output = child.wait_with_output().await.context(StartSnafu { program })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        FailedSnafu { line, message }.fail()
    }

    /// `kubectl` with these words.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = self.program("kubectl");
        command.args(args);
        self.output(command, None).await
    }

    /// `kubectl … -o json`.
    pub async fn json(&self, args: &[&str]) -> Result<Value> {
        let mut command = self.program("kubectl");
        command.args(args).args(["-o", "json"]);
        let line = line(&command);
        let text = self.output(command, None).await?;
        serde_json::from_str(&text).context(AnswerSnafu { line })
    }

    /// Applies objects given as YAML, unknown fields refused.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> Result<String> {
        let mut command = self.program("kubectl");
        command.args(["-n", namespace, "apply", "--server-side", "--validate=strict", "-f", "-"]);
        self.output(command, Some(yaml.as_bytes())).await
    }

    /// Runs a program in a pod and returns what it prints.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        words: &[&str],
        input: Option<&[u8]>,
    ) -> Result<String> {
        let mut command = self.program("kubectl");
        command.args(["-n", namespace, "exec", pod]);
        if input.is_some() {
            command.arg("-i");
        }
        command.arg("--").args(words);
        self.output(command, input).await
    }

    /// Makes a namespace that enforces the `restricted` pod security level.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        });
        let mut command = self.program("kubectl");
        command.args(["create", "-f", "-"]);
        self.output(command, Some(namespace.to_string().as_bytes())).await?;
        Ok(())
    }

    /// Looks until `done` says `Some`; errors of the look itself count as "not yet".
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        args: &[&str],
        mut done: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut last = String::new();
        loop {
            match self.json(args).await {
                Ok(value) => {
                    if let Some(result) = done(&value) {
                        return Ok(result);
                    }
                    last = value.get("status").unwrap_or(&value).to_string();
                }
                Err(error) => last.clone_from(&error.to_string()),
            }
            if start.elapsed() > limit {
                last.truncate(last.floor_char_boundary(2000));
                return TimedOutSnafu { what, limit, last }.fail();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a workload has all its replicas ready.
    pub async fn rolled_out(&self, namespace: &str, workload: &str, limit: Duration) -> Result<()> {
        self.wait(
            &format!("{workload} in {namespace} ready"),
            limit,
            &["-n", namespace, "get", workload],
            |object| {
                let wanted = object["spec"]["replicas"].as_i64()?;
                let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
                let ready = object["status"]["readyReplicas"].as_i64().unwrap_or(0);
                let updated = object["status"]["updatedReplicas"].as_i64().unwrap_or(0);
                (current && ready == wanted && updated == wanted).then_some(())
            },
        )
        .await
    }
}

/// The condition of a type, from an object's status.
pub fn condition<'a>(object: &'a Value, r#type: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == r#type)
}

fn line(command: &Command) -> String {
    let std = command.as_std();
    let program = Path::new(std.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = std.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}
