//! Running other programs, each announced by a line.

use std::process::Command;

use anyhow::{Context, Result, bail};
use vertice_testbed::command;
use vertice_testbed::report::Reporter;

/// Runs a command with our own output; an exit code other than 0 is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("{} {line}", console::style("$").dim());
    let status = command.status().with_context(|| format!("{line}: cannot be started"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// A command as a person would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// `cargo`, the one that runs us.
pub fn cargo() -> Command {
    command::cargo()
}

/// Tells a person what the testbed does, a line a step.
pub fn progress() -> Reporter {
    Reporter::new(|line| eprintln!("{} {line}", console::style("»").cyan()))
}
