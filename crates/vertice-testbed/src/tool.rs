//! Runs a short-lived program of the machine (`ip`, `nft`, `nsenter`, `ctr` …) and turns its complaint into an error.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use snafu::{ResultExt, Snafu};

#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum Error {
    #[snafu(display("failed to start `{program}` (is it installed and in PATH?)"))]
    Start { program: String, source: std::io::Error },

    #[snafu(display("failed to talk to `{command}`"))]
    Talk { command: String, source: std::io::Error },

    #[snafu(display("`{command}` failed ({status}): {stderr}"))]
    Failed { command: String, status: String, stderr: String },
}

/// Standard output of a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    run_with(command, "")
}

/// As [`run`], with `input` on standard input.
pub(crate) fn run_with(command: &mut Command, input: &str) -> Result<String, Error> {
    let shown = shown(command);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(StartSnafu { program })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says why by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context(TalkSnafu { command: &shown })?;
    checked(shown, &output)
}

/// Our own kubectl where it has been built, else the user's.
pub(crate) fn kubectl(bin: &Path) -> PathBuf {
    Some(bin.join("kubectl")).filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("kubectl"))
}

fn checked(command: String, output: &Output) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    FailedSnafu { command, status: output.status.to_string(), stderr }.fail()
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = run(Command::new("ls").arg("/no-such-folder")).unwrap_err().to_string();
        assert!(error.starts_with("`ls /no-such-folder` failed"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-here")).unwrap_err().to_string();
        assert!(error.contains("`no-such-program-here`"), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(run_with(&mut Command::new("cat"), "hello").unwrap(), "hello");
    }
}
