//! Where a process of a control plane runs.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::Arc;

use crate::control_plane::Error;
use crate::machine::Machine;
use crate::process::Process;
use crate::state::Run;

#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// On the host, on its loopback address.
    Host(Arc<Run>),
    /// Inside a machine, with addresses of its own.
    Machine(Arc<Machine>),
}

impl Place {
    pub(crate) fn run(&self) -> &Arc<Run> {
        match self {
            Self::Host(run) => run,
            Self::Machine(machine) => machine.run(),
        }
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Host(run) => run.command(program),
            Self::Machine(machine) => machine.command(program),
        }
    }

    /// Starts a program; on the host, where there may be several of a kind, it is named after its control plane as well.
    pub(crate) fn spawn(
        &self,
        plane: Option<&str>,
        program: &str,
        command: Command,
    ) -> Result<Process, Error> {
        Ok(match (self, plane) {
            (Self::Host(run), Some(plane)) => Process::spawn(run, &format!("{plane}-{program}"), command)?,
            (Self::Host(run), None) => Process::spawn(run, program, command)?,
            (Self::Machine(machine), _) => machine.spawn(program, command)?,
        })
    }
}
