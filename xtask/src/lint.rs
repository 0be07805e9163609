//! `cargo xtask lint`: everything that can be said of the code without running it.

use anyhow::Result;
use vertice_testbed::paths::Paths;

use crate::tools::{DENY, SHEAR};
use crate::{codegen, shell};

pub fn run() -> Result<()> {
    let paths = Paths::locate();
    let target = paths.target();
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    shell::run(shell::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    eprintln!("{} generated files", console::style("$").dim());
    codegen::run(true)?;
    shell::run(DENY.command(target)?.args([
        "--all-features",
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))?;
    shell::run(&mut SHEAR.command(target)?)?;
    println!("lint: all clean");
    Ok(())
}
