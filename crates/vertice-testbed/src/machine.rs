//! A machine: a process tree with mounts, network, process numbers and IPC of its own, under one first process.
//!
//! Killing the first process is a power cut: the kernel ends everything in it, and its mounts and links go with it. So
//! nothing that a kubelet or a container runtime does inside can stay behind on the host.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use snafu::{ResultExt, Snafu};

use crate::process::{self, Identity, Process, procfs};
use crate::state::{self, Run};
use crate::{tool, wait};

const BOOT_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("machine {machine} did not boot\n{tail}"))]
    Boot { machine: String, source: wait::Deadline, tail: String },

    #[snafu(display("failed to set up machine {machine}"))]
    Tool { machine: String, source: tool::Error },

    #[snafu(display("machine {machine} did not {what}"))]
    Signal { machine: String, what: &'static str, source: wait::Deadline },

    #[snafu(transparent)]
    Process { source: process::Error },

    #[snafu(transparent)]
    State { source: state::Error },
}

/// A booted machine. Dropping it switches it off.
#[derive(Debug)]
pub struct Machine {
    name: String,
    run: Arc<Run>,
    /// `unshare`, which takes the machine with it when it dies.
    holder: Process,
    /// The first process, by its number on the host.
    init: Identity,
    /// Processes started from outside: `nsenter` on the host, whose child is inside.
    guests: Mutex<Vec<i32>>,
}

impl Machine {
    /// Boots a machine; `init` is a program that sleeps and reaps.
    pub(crate) fn boot(run: &Arc<Run>, name: &str, init: &Path) -> Result<Self, Error> {
        let mut command = run.command("unshare");
        command.args([
            "--mount",
            "--net",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child=SIGKILL",
            "--mount-proc",
            "--",
        ]);
        command.arg(init);
        let holder = Process::spawn(run, &format!("{name}-init"), command)?;
        let found = wait::until_blocking(format!("the first process of {name}"), BOOT_DEADLINE, || {
            first_process(&holder, init).ok_or_else(|| "unshare has not started it yet".to_owned())
        });
        let init = found.with_context(|_| BootSnafu { machine: name, tail: holder.log_tail(20) })?;
        let machine =
            Self { name: name.to_owned(), run: Arc::clone(run), holder, init, guests: Mutex::default() };
        machine.mount()?;
        Ok(machine)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first process, by its number on the host.
    pub fn pid(&self) -> i32 {
        self.init.pid
    }

    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// A command that runs inside, and carries the run's mark.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.run.command("nsenter");
        command.arg(format!("--target={}", self.init.pid));
        command.args(["--mount", "--net", "--pid", "--ipc", "--"]).arg(program);
        command
    }

    /// Starts a long-lived process inside; `command` comes from [`Machine::command`].
    pub(crate) fn spawn(&self, name: &str, command: Command) -> Result<Process, Error> {
        let process = Process::spawn(&self.run, &format!("{}-{name}", self.name), command)?;
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).push(process.pid());
        Ok(process)
    }

    /// Runs a short-lived program inside and returns what it printed.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        let mut command = self.command(program);
        tool::run(command.args(arguments)).context(ToolSnafu { machine: &self.name })
    }

    pub(crate) fn tool_with(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        let mut command = self.command(program);
        tool::run_with(command.args(arguments), input).context(ToolSnafu { machine: &self.name })
    }

    pub(crate) fn ip_batch(&self, lines: &str) -> Result<(), Error> {
        self.tool_with("ip", &["-batch", "-"], lines).map(drop)
    }

    /// Sets a kernel setting of the machine; `key` is a path below `/proc/sys`.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        self.tool_with("tee", &[&format!("/proc/sys/{key}")], value).map(drop)
    }

    /// Gives the machine a `/run` and a `/var` of its own, empty again at each boot. kubelets and container runtimes write
    /// to fixed places there, whatever folders they are told.
    fn mount(&self) -> Result<(), Error> {
        self.tool("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"])?;
        self.tool("mkdir", &["/run/var", "/run/work", "/run/testbed"])?;
        let testbed = self.run.paths().testbed();
        let below_var = testbed.starts_with("/var");
        let testbed = testbed.to_string_lossy();
        if below_var {
            self.tool("mount", &["--bind", &testbed, "/run/testbed"])?;
        }
        let layers = "lowerdir=/var,upperdir=/run/var,workdir=/run/work";
        self.tool("mount", &["-t", "overlay", "-o", layers, "overlay", "/var"])?;
        if below_var {
            self.tool("mount", &["--bind", "/run/testbed", &testbed])?;
        }
        // Pods may ask for mounts that propagate; nothing propagates to the host, whose mounts were made private.
        self.tool("mount", &["--make-rshared", "/"]).map(drop)
    }

    /// Every process inside, by its number on the host.
    fn processes(&self) -> BTreeSet<i32> {
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut roots = guests.clone();
        roots.push(self.init.pid);
        let mut found = procfs::tree(&roots);
        for outside in &guests {
            found.remove(outside);
        }
        found
    }

    /// Stops every process where it is; its connections stay open.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        self.signal_until("freeze", Signal::STOP, procfs::is_stopped)
    }

    /// Lets every process go on.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        self.signal_until("thaw", Signal::CONT, |pid| !procfs::is_stopped(pid))
    }

    /// Repeats: a process may fork before the signal reaches it.
    fn signal_until(
        &self,
        what: &'static str,
        signal: Signal,
        done: impl Fn(i32) -> bool,
    ) -> Result<(), Error> {
        wait::until_blocking("every process of it", STOP_DEADLINE, || {
            let left: Vec<i32> = self.processes().into_iter().filter(|pid| !done(*pid)).collect();
            left.iter().filter_map(|pid| Identity::of(*pid)).for_each(|identity| identity.signal(signal));
            let names: Vec<String> =
                left.iter().map(|pid| format!("{pid} {}", procfs::command_line(*pid))).collect();
            if left.is_empty() { Ok(()) } else { Err(names.join("; ")) }
        })
        .context(SignalSnafu { machine: &self.name, what })
    }

    /// Cuts the power, and returns when everything inside has ended.
    pub(crate) fn power_off(&self) -> Result<(), Error> {
        self.init.signal(Signal::KILL);
        // The holder waits for the first process, which the kernel lets end only when all others have.
        let ended = wait::until_blocking("its processes to end", STOP_DEADLINE, || {
            self.holder.exited().map(drop).ok_or_else(|| "some still run".to_owned())
        });
        ended.context(SignalSnafu { machine: &self.name, what: "stop" })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.power_off() {
            tracing::warn!(machine = %self.name, %error, "failed to switch the machine off");
        }
    }
}

/// The child of `unshare`, once it has become `init` (before that it still sees the host's `/proc`).
fn first_process(holder: &Process, init: &Path) -> Option<Identity> {
    let init: PathBuf = init.canonicalize().ok()?;
    procfs::tree(&[holder.pid()])
        .into_iter()
        .filter(|pid| *pid != holder.pid())
        .find(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == init))
        .and_then(Identity::of)
}
