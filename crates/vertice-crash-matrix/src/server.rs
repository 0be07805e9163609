//! Servers of the ground: each ends when it is dropped, and also when this process is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use snafu::ResultExt as _;
use tokio::process::{Child, Command};

use crate::error::{IoSnafu, ProgramSnafu, Result};

/// A program that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    stop: Signal,
}

/// Of util-linux; by its path, as the environment of what it starts may have no other.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A command whose process is killed when the thread that started it ends, however it ends. `setpriv` becomes the program.
pub(crate) fn bound(program: impl AsRef<OsStr>, privileges: &[String]) -> Command {
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL"]).args(privileges).arg("--").arg(program);
    command
}

/// A port of the loopback that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(port.context(IoSnafu { action: "find a free port on", path: "127.0.0.1" })?.port())
}

impl Server {
    /// Starts a command made by [`bound`]; `stop` is the signal that ends it at once, with all that it started.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        log: impl Into<PathBuf>,
        stop: Signal,
    ) -> Result<Self> {
        let log: PathBuf = log.into();
        let open = |path: &Path| File::create(path).context(IoSnafu { action: "write", path });
        let output = open(&log)?;
        let errors = output.try_clone().context(IoSnafu { action: "write", path: &log })?;
        let spawned = command.process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let failed =
            |error: std::io::Error| ProgramSnafu { program: name, message: error.to_string() }.build();
        Ok(Self { child: spawned.map_err(failed)?, stop })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended has given its number back: it may be somebody else's by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, self.stop);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}
