//! One running operator.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{interval, timeout};

use super::usage;
use super::world::{NAMESPACE, World};
use crate::bench::daemon::{Daemon, bound, free_port, tail};
use crate::bench::postgres::checked;

/// How often a starting operator is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// An operator that has used no processor to speak of for so long has done what it wanted.
const CALM: Duration = Duration::from_millis(1500);
/// Over such a time its use of processors is judged.
const SPAN: Duration = Duration::from_millis(200);
/// Less than this within [`SPAN`] is nothing to speak of: two clock ticks, as a Lease is renewed with one at the most.
const BUSY: Duration = Duration::from_millis(20);
/// A start that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(5);
/// How long the admin server may take for an answer.
const ANSWER: Duration = Duration::from_mins(1);

/// What is compared; the first is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `vertice operator backup`.
    Vertice,
    /// `testbed/idle-operator`.
    ControllerRuntime,
}

impl Program {
    pub const ALL: [Self; 2] = [Self::Vertice, Self::ControllerRuntime];

    /// The key in the report, and the name of its account.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vertice => "vertice",
            Self::ControllerRuntime => "controller-runtime",
        }
    }

    /// Both with the same image of the agent, so that they want the same `CronJobs`.
    fn arguments(self, probes: u16, metrics: u16) -> Vec<String> {
        let image = "--agent-image=registry.example/vertice-agent:bench".to_owned();
        let own: [String; 3] = match self {
            Self::Vertice => {
                let address = format!("--metrics-addr=127.0.0.1:{probes}");
                return ["operator", "backup", "--leader-elect", &image, &address].map(str::to_owned).into();
            }
            Self::ControllerRuntime => [
                format!("--probe-addr=127.0.0.1:{probes}"),
                format!("--metrics-addr=127.0.0.1:{metrics}"),
                format!("--lease-namespace={NAMESPACE}"),
            ],
        };
        std::iter::once(image).chain(own).collect()
    }
}

/// How many reconciles of `VerticeBackups` ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    pub succeeded: u64,
    pub failed: u64,
}

/// An operator that runs until it is dropped: then it is told to stop, gives its Lease back and ends.
pub struct Operator {
    program: Program,
    daemon: Daemon,
    started: Instant,
    probes: u16,
    metrics: u16,
    log: PathBuf,
}

/// What the peer is built with.
pub async fn version(peer: &Path) -> Result<String> {
    Ok(checked("idle-operator", Command::new(peer).arg("--version").output().await?)?.trim().to_owned())
}

impl Operator {
    /// Starts `program`, which is at `binary`, in `world`.
    pub fn start(program: Program, binary: &Path, world: &World) -> Result<Self> {
        let (probes, other) = (free_port()?, free_port()?);
        let metrics = if program == Program::Vertice { probes } else { other };
        let mut command = bound(binary, "KILL", &[]);
        command.args(program.arguments(probes, metrics));
        // As in the chart's pod; nothing of our environment, which could change either.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("KUBECONFIG", world.kubeconfig(program));
        command.env("POD_NAMESPACE", NAMESPACE).env("VERTICE_LOG", "info").env("VERTICE_LOG_FORMAT", "json");
        let log = world.folder().join(format!("{}.log", program.name()));
        let started = Instant::now();
        let daemon = Daemon::start(program.name(), command, log.clone(), Signal::TERM)?;
        Ok(Self { program, daemon, started, probes, metrics, log })
    }

    pub fn program(&self) -> Program {
        self.program
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<String> {
        self.daemon.ended()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// Waits until it is ready and has nothing left to do; returns how long that took since it was started.
    ///
    /// That it has gone through all objects shows in what it uses: to ask it would mean to let it print ten thousand objects'
    /// metrics while it works. Whether it really had is asked at the end, see [`Self::reconciled`].
    pub async fn synced(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let mut looks = interval(LOOK);
        let mut activity = Activity::default();
        let mut ready = None;
        loop {
            looks.tick().await;
            if let Some(end) = self.ended() {
                bail!("{end}");
            }
            let since = self.started.elapsed();
            ensure!(begun.elapsed() < LIMIT, "it is still at work:\n{}", self.last_words());
            activity.look(since, usage::cpu(self.pid())?);
            if ready.is_none() && self.is_ready().await {
                ready = Some(self.started.elapsed());
            }
            if let Some(ready) = ready
                && activity.calm(since) >= CALM
                && since.saturating_sub(ready) >= CALM
            {
                return Ok(ready.max(activity.last));
            }
        }
    }

    async fn is_ready(&self) -> bool {
        matches!(get(self.probes, "/readyz").await, Ok(answer) if answer.starts_with("HTTP/1.1 200"))
    }

    /// What its metrics say of its reconciles of `VerticeBackups`.
    pub async fn reconciled(&self) -> Result<Reconciled> {
        let metrics = get(self.metrics, "/metrics").await.context("its metrics cannot be read")?;
        Ok(Reconciled::parse(&metrics))
    }
}

impl Reconciled {
    fn parse(metrics: &str) -> Self {
        let results = |wanted: &[&str]| {
            let series = metrics.lines().filter(|line| {
                let (name, labels) = line.split_once('{').unwrap_or_default();
                matches!(name, "vertice_controller_reconcile_total" | "controller_runtime_reconcile_total")
                    && labels.contains("controller=\"backup\"")
                    && wanted.iter().any(|result| labels.contains(&format!("result={result:?}")))
            });
            series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        let succeeded = results(&["success", "requeue", "requeue_after"]);
        Self { succeeded, failed: results(&["error", "conflict", "panic"]) }
    }
}

/// When a process last did something, by what it has used.
#[derive(Debug, Default)]
struct Activity {
    /// Within [`SPAN`], oldest first: when it was looked at, and what it had used.
    looks: VecDeque<(Duration, Duration)>,
    /// The last look that found more than a moment before, in a busy span.
    last: Duration,
}

impl Activity {
    fn look(&mut self, at: Duration, used: Duration) {
        let grew = self.looks.back().is_some_and(|(_, before)| used > *before);
        self.looks.push_back((at, used));
        while self.looks.front().is_some_and(|(old, _)| at.saturating_sub(*old) > SPAN) {
            self.looks.pop_front();
        }
        let first = self.looks.front().map_or(used, |(_, used)| *used);
        if grew && used.saturating_sub(first) >= BUSY {
            self.last = at;
        }
    }

    /// For how long it has done nothing to speak of.
    fn calm(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last)
    }
}

/// The answer of an admin server, head and body.
async fn get(port: u16, path: &str) -> Result<String> {
    let exchange = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(ANSWER, exchange).await.context("no answer in time")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_write_down_their_reconciles_in_their_own_way() {
        let ours = r#"
vertice_controller_reconcile_total{controller="backup",result="success"} 1000
vertice_controller_reconcile_total{controller="backup",result="error"} 2
vertice_controller_reconcile_total{controller="restore",result="success"} 70
"#;
        assert_eq!(Reconciled::parse(ours), Reconciled { succeeded: 1000, failed: 2 });
        let theirs = r#"
controller_runtime_reconcile_total{controller="backup",result="requeue_after"} 999
controller_runtime_reconcile_total{controller="backup",result="success"} 1
controller_runtime_reconcile_total{controller="backup",result="error"} 0
controller_runtime_reconcile_errors_total{controller="backup"} 8
"#;
        assert_eq!(Reconciled::parse(theirs), Reconciled { succeeded: 1000, failed: 0 });
    }

    #[test]
    fn work_ends_with_the_last_growth_in_a_busy_span() {
        let ms = Duration::from_millis;
        let mut activity = Activity::default();
        // Works until 300, and renews its Lease at 900.
        for step in 0..100_u64 {
            let at = step * 20;
            let used = at.min(300) / 10 * 10 + if at >= 900 { 10 } else { 0 };
            activity.look(ms(at), ms(used));
        }
        assert_eq!(activity.last, ms(300));
        assert_eq!(activity.calm(ms(1980)), ms(1680));
    }
}
