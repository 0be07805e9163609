//! Servers of a bench: each ends when it is dropped, and also when this process is killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::future::Future;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal};
use vertice_testbed::wait;

/// How long a server may take until it serves.
const READY: Duration = Duration::from_mins(1);
/// How many of the last lines of a log an error shows.
const TAIL_LINES: usize = 20;

/// A server that runs until it is dropped.
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
    stop: Signal,
}

/// A command whose process is signalled with `death` when we die, however we die. `setpriv` becomes the program, so that its
/// number is the program's.
pub fn bound(program: impl AsRef<OsStr>, death: &str, privileges: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", death]).args(privileges).arg("--").arg(program);
    command
}

/// A port of the loopback that nobody listens on.
pub fn free_port() -> Result<u16> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(port.context("no port of the loopback is free")?.port())
}

/// The end of a log, for an error message.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

impl Daemon {
    /// Starts a command made by [`bound`]; `stop` is the signal that ends it at once, with all that it started.
    pub fn start(name: &'static str, mut command: Command, log: PathBuf, stop: Signal) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        // A group of its own: Ctrl-C in the terminal reaches us alone, and we end things in order.
        command.process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log, stop })
    }

    /// Its process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, with its last words; `None` while it runs.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} ended ({status}):\n{}", self.name, tail(&self.log)))
    }

    /// Waits until `look` finds that it serves; ends early when it has ended.
    pub async fn ready<F: Future<Output = Result<()>>>(&mut self, mut look: impl FnMut() -> F) -> Result<()> {
        let Self { name, child, log, .. } = self;
        let served = wait::until(format!("{name} to serve"), READY, || {
            let ended = child.try_wait();
            let looked = look();
            let told = || anyhow!("{name} ended while it was started:\n{}", tail(log));
            async move {
                if matches!(ended, Ok(Some(_))) {
                    return Ok(Err(told()));
                }
                looked.await.map(Ok).map_err(|error| format!("{error:#}"))
            }
        });
        served.await?
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child that was waited for has given its number back: it may be somebody else's by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && rustix::process::kill_process(pid, self.stop).is_ok()
        {
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, log: &Path) -> Daemon {
        let mut command = bound("sh", "KILL", &[]);
        command.args(["-c", script]);
        Daemon::start("the server", command, log.to_owned(), Signal::KILL).unwrap()
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_told_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = start("echo no room left >&2; exit 1", &folder.path().join("log"));
        let error = daemon.ready(|| async { Err(anyhow!("no answer")) }).await.unwrap_err().to_string();
        assert_eq!(error, "the server ended while it was started:\nno room left");
    }

    #[tokio::test]
    async fn dropping_a_server_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = start("exec sleep 600", &folder.path().join("log"));
        daemon.ready(|| async { Ok(()) }).await.unwrap();
        let entry = PathBuf::from(format!("/proc/{}", daemon.child.id()));
        assert!(entry.exists());
        drop(daemon);
        assert!(!entry.exists());
    }
}
