//! Runs a build tool: its output goes to a file, progress is told while it takes long, and a failure shows the end
//! of what it said.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use snafu::{IntoError, ResultExt, Snafu};

use crate::report::Reporter;

/// A person is told that a command still runs once in this time.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many of the last lines of its output a failure shows.
const TAIL_LINES: usize = 25;

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("failed to write the build log {}", path.display()))]
    Log { path: PathBuf, source: io::Error },

    #[snafu(display("failed to start `{program}` to {purpose}"))]
    Start { program: String, purpose: String, source: io::Error },

    #[snafu(display("failed to wait for `{program}`"))]
    Wait { program: String, source: io::Error },

    #[snafu(display("failed to {purpose}: `{program}` ended with {status}; all it said is in {}, the end of it:\n{tail}", log.display()))]
    Failed { program: String, purpose: String, status: ExitStatus, log: PathBuf, tail: String },
}

/// The cargo that runs us, for another build.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_package(&mut command);
    command
}

/// Takes away what `cargo run` told us about our own package: build scripts that look at it (ring's) would run again in every build
/// that we start, and once more in the next one that we do not.
pub fn forget_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
                || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"].contains(&name)
        });
        if ours {
            command.env_remove(name);
        }
    }
}

/// Runs `command` to its end. `purpose` completes "failed to …", such as `build helm`.
pub(crate) fn run(
    command: &mut Command,
    purpose: &str,
    log: &Path,
    reporter: &Reporter,
) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (output, errors) = open_log(log).context(LogSnafu { path: log })?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .context(StartSnafu { program: &program, purpose })?;

    let started = Instant::now();
    let (ended, wait) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait()));
    let status = loop {
        match wait.recv_timeout(HEARTBEAT) {
            Ok(status) => break status.context(WaitSnafu { program: &program })?,
            Err(RecvTimeoutError::Timeout) => {
                reporter.say(format!("  … {purpose}: {} s so far", started.elapsed().as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let gone = io::Error::other("its watching thread ended");
                return Err(WaitSnafu { program: &program }.into_error(gone));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    FailedSnafu { program, purpose, status, log, tail: tail(log) }.fail()
}

fn open_log(log: &Path) -> io::Result<(File, File)> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::create(log)?;
    Ok((file.try_clone()?, file))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_purpose_and_shows_the_end_of_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 100; echo why it failed >&2; exit 3"]);
        let error = run(&mut command, "build it", &folder.path().join("a/log"), &Reporter::new(|_| {}))
            .unwrap_err()
            .to_string();
        assert!(error.contains("failed to build it") && error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("100\nwhy it failed") && !error.contains("\n50\n"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("no-such-program-here");
        let error =
            run(&mut command, "build it", &folder.path().join("log"), &Reporter::new(|_| {})).unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }
}
