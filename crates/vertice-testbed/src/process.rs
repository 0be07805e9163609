//! Long-lived processes: each in a process group of its own, marked in its environment, recorded, with a log file.

pub(crate) mod procfs;

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};
use snafu::{ResultExt, Snafu};

pub(crate) use self::procfs::Identity;
use crate::state::{self, Record, Run};

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("failed to open {} for the log of {name}", path.display()))]
    Log { name: String, path: PathBuf, source: std::io::Error },

    #[snafu(display("failed to start {name} ({program})"))]
    Start { name: String, program: String, source: std::io::Error },

    #[snafu(display("{name} ended while it was being started:\n{tail}"))]
    Vanished { name: String, tail: String },

    #[snafu(transparent)]
    State { source: state::Error },
}

/// A running program. Dropping it kills its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    identity: Identity,
    log: PathBuf,
    command: Command,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` (made by [`Run::command`], so that it carries the run's mark) under `name`.
    pub(crate) fn spawn(run: &Run, name: &str, mut command: Command) -> Result<Self, Error> {
        let log = run.log(name);
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let out = open().context(LogSnafu { name, path: &log })?;
        let err = out.try_clone().context(LogSnafu { name, path: &log })?;
        // A group of its own: Ctrl-C in the terminal reaches the owner alone, which then ends things in order.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let (identity, child) = launch(name, &log, &mut command)?;
        let process = Self { name: name.to_owned(), identity, log, command, child: Mutex::new(child) };
        process.record(run)?;
        Ok(process)
    }

    /// Ends it if it runs, then starts it again as it was started first, with the same log.
    pub(crate) fn restart(&mut self, run: &Run) -> Result<(), Error> {
        self.kill();
        let (identity, child) = launch(&self.name, &self.log, &mut self.command)?;
        (self.identity, self.child) = (identity, Mutex::new(child));
        self.record(run)
    }

    fn record(&self, run: &Run) -> Result<(), Error> {
        let Identity { pid, start } = self.identity;
        Ok(run.record(&Record::Process { name: self.name.clone(), pid, start })?)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> i32 {
        self.identity.pid
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().ok().flatten()
    }

    /// Ends the whole process group at once and waits for it.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // A child that was waited for has given its number back: the group may be somebody else's by now.
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(group) = Pid::from_raw(self.identity.pid) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
    }

    /// The last `lines` of its log, for an error message.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the program and waits until it can be told from others that get its number later.
fn launch(name: &str, log: &Path, command: &mut Command) -> Result<(Identity, Child), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().context(StartSnafu { name, program })?;
    let identity = i32::try_from(child.id()).ok().and_then(Identity::of);
    let Some(identity) = identity else {
        let _ = child.kill();
        let _ = child.wait();
        return VanishedSnafu { name, tail: tail(log, 20) }.fail();
    };
    Ok((identity, child))
}

/// The last `lines` of a text file; empty when there is none.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
