//! cargo-nextest: every test in a process of its own, none retried.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use vertice_testbed::ledger::{Ledger, RUN_VARIABLE, Work};
use vertice_testbed::paths::Paths;

use crate::tools::NEXTEST;

/// nextest's exit code when tests failed.
const TESTS_FAILED: i32 = 100;

pub struct Runner {
    paths: Paths,
    run: String,
}

/// How many tests passed, failed, or were skipped by themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Runner {
    pub fn new(paths: &Paths, ledger: &Ledger) -> Result<Self> {
        NEXTEST.command(paths.target())?;
        Ok(Self { paths: paths.clone(), run: ledger.run().to_owned() })
    }

    fn nextest(&self) -> Result<Command> {
        let mut command = NEXTEST.command(self.paths.target())?;
        command.current_dir(self.paths.workspace()).env(RUN_VARIABLE, &self.run);
        command.args(["run", "--workspace", "--all-features", "--locked"]);
        Ok(command)
    }

    /// Whether a test target of the tiers has `filter` in its name.
    fn names_target(&self, filter: &str) -> bool {
        let folder = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        folder(&self.paths.workspace().join("crates"))
            .flat_map(|room| folder(&room.path().join("tests")))
            .filter_map(|target| target.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()))
            .any(|name| {
                ["api_", "e2e_", "full_"].iter().any(|tier| name.starts_with(tier)) && name.contains(filter)
            })
    }

    /// Compiles all tests of all tiers, once.
    pub fn build(&self, ledger: &Ledger) -> Result<()> {
        ledger.reporter().say("building the tests");
        let start = Instant::now();
        let status = self.nextest()?.arg("--no-run").status()?;
        if !status.success() {
            bail!("the tests do not compile");
        }
        Ok(ledger.record("build tests", start.elapsed(), Work::Cold, 0)?)
    }

    /// Runs the tests that the filter set (<https://nexte.st/docs/filtersets>) and `filter` choose.
    pub fn run(&self, set: &str, filter: Option<&str>, environment: &[(&str, String)]) -> Result<Summary> {
        let chosen = match filter {
            None => set.to_owned(),
            // nextest refuses a set that names no binary at all.
            Some(filter) if self.names_target(filter) => {
                format!("({set}) & (test(~{filter}) | binary(~{filter}))")
            }
            Some(filter) => format!("({set}) & test(~{filter})"),
        };
        let mut command = self.nextest()?;
        command.args(["--no-tests", "pass", "--filterset", &chosen]);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        if console::colors_enabled_stderr() {
            command.args(["--color", "always"]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().context("cargo-nextest cannot be started")?;
        let mut summary = Summary::default();
        for line in BufReader::new(child.stderr.take().context("no standard error")?).lines() {
            let line = line?;
            eprintln!("{line}");
            if let Some(counted) = count(&console::strip_ansi_codes(&line)) {
                summary = counted;
            }
        }
        let status = child.wait()?;
        match status.code() {
            Some(0 | TESTS_FAILED) => Ok(summary),
            _ => bail!("cargo-nextest: {status}"),
        }
    }
}

/// Reads nextest's last line, such as `Summary [   1.2s] 12/12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 5 skipped`.
/// What it calls skipped was not chosen by the filter; a test that never ran because the run was cut short counts as failed.
fn count(line: &str) -> Option<Summary> {
    let text = line.trim_start().strip_prefix("Summary [")?;
    let (_, text) = text.split_once(']')?;
    let (run, counts) = text.split_once(':')?;
    let mut summary = Summary::default();
    for part in counts.split(',') {
        let (number, word) = part.trim().split_once(' ')?;
        let number: u32 = number.parse().ok()?;
        match word.split(' ').next()? {
            "passed" => summary.passed += number,
            "skipped" => {}
            _ => summary.failed += number,
        }
    }
    if let Some((done, all)) = run.split_whitespace().next().and_then(|run| run.split_once('/')) {
        summary.failed += all.parse::<u32>().ok()?.saturating_sub(done.parse().ok()?);
    }
    Some(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(line: &str) -> (u32, u32) {
        let summary = count(line).unwrap();
        (summary.passed, summary.failed)
    }

    #[test]
    fn reads_what_nextest_says() {
        assert_eq!(counted("     Summary [   1.234s] 12 tests run: 12 passed, 3 skipped"), (12, 0));
        assert_eq!(
            counted(
                "     Summary [   1.234s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 3 skipped"
            ),
            (10, 2)
        );
        assert_eq!(counted("     Summary [   1.234s] 5/12 tests run: 4 passed, 1 failed, 0 skipped"), (4, 8));
        assert!(count("        PASS [   0.002s] vertice-api duration::tests::formats_like_go").is_none());
    }
}
