//! Development tools that cargo does not bring: found on the PATH, or installed below `target/tools`.
//!
//! They come as ready-made wheels where pip is at hand (a second), and are compiled from crates.io otherwise (minutes).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use vertice_testbed::command;

use crate::shell;

/// A cargo subcommand.
pub struct Tool {
    /// Crate and binary.
    name: &'static str,
    /// Version of the crate.
    version: &'static str,
}

pub const NEXTEST: Tool = Tool { name: "cargo-nextest", version: "0.9.148" };
pub const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
pub const SHEAR: Tool = Tool { name: "cargo-shear", version: "1.14.0" };

impl Tool {
    /// The tool, installed if need be, ready for its arguments. Any version that is already on the PATH will do.
    pub fn command(&self, target: &Path) -> Result<Command> {
        let mut command = Command::new(self.locate(target)?);
        command::forget_package(&mut command);
        command.arg(self.name.trim_start_matches("cargo-"));
        Ok(command)
    }

    fn locate(&self, target: &Path) -> Result<PathBuf> {
        // A folder each: pip replaces the whole `bin` of the folder that it installs into.
        let folder = target.join("tools").join(format!("{}-{}", self.name, self.version));
        let ours = folder.join("bin").join(self.name);
        if ours.is_file() {
            return Ok(ours);
        }
        if answers(Path::new(self.name)) {
            return Ok(self.name.into());
        }
        eprintln!(
            "{} {} is missing: installing it below {}",
            console::style("»").cyan(),
            self.name,
            folder.display()
        );
        self.install(&folder)?;
        if !answers(&ours) {
            bail!(
                "{} was installed but does not run; install it by hand: cargo install --locked {}",
                ours.display(),
                self.name
            );
        }
        Ok(ours)
    }

    fn install(&self, into: &Path) -> Result<()> {
        std::fs::create_dir_all(into).with_context(|| format!("{} cannot be made", into.display()))?;
        let wheel = format!("astral-dev-toolchain-{}=={}", self.name, self.version);
        let pip = Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--upgrade",
                "--root-user-action",
                "ignore",
                "--target",
            ])
            .arg(into)
            .arg(&wheel)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if pip.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        shell::run(
            shell::cargo()
                .args(["install", "--locked", "--version", self.version, "--root"])
                .arg(into)
                .arg(self.name),
        )
    }
}

fn answers(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
