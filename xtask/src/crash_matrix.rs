//! `cargo xtask crash-matrix`: builds the matrix with its seeded faults, and the agent that goes with it, and starts it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use vertice_testbed::paths::Paths;

use crate::shell;

#[derive(clap::Args)]
pub struct Args {
    /// A kind to be tried alone (verticebackup, verticerestore) and flags of the matrix; `--help` after `--` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "KIND or FLAG")]
    rest: Vec<String>,
}

/// The programs, in a folder of their own: with seeded faults they must not be taken for the product.
const FOLDER: &str = "crash-matrix";

pub fn run(args: &Args) -> Result<()> {
    let target = Paths::locate().target().join(FOLDER);
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--package", "vertice-crash-matrix", "--package", "vertice-agent"]);
    cargo.args(["--bins", "--features", "vertice-crash-matrix/mutants"]);
    shell::run(&mut cargo)?;
    let built = Paths::locate().target().join("debug");
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let [matrix, agent] = ["crash-matrix", "vertice-agent"].map(|name| (built.join(name), target.join(name)));
    for (from, to) in [&matrix, &agent] {
        replace(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    let mut command = std::process::Command::new(&matrix.1);
    shell::run(command.args(&args.rest).arg("--agent").arg(&agent.1))
}

/// A program that runs cannot be written over, only taken the place of.
fn replace(from: &PathBuf, to: &PathBuf) -> std::io::Result<()> {
    let beside = to.with_extension("new");
    fs::copy(from, &beside)?;
    fs::rename(beside, to)
}
