//! `cargo xtask clean`: ends and removes everything that the testbed made.

use anyhow::Result;
use vertice_testbed::clean;
use vertice_testbed::paths::Paths;

#[derive(clap::Args)]
pub struct Args {
    /// Also remove what was built: programs, images, logs of failed tests.
    #[arg(long)]
    caches: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let paths = Paths::locate();
    let cleaned = clean::clean(&paths)?;
    for run in &cleaned.runs {
        let whose = if cleaned.live.contains(run) { ", whose owner was still running" } else { "" };
        println!("ended run {run}{whose}");
    }
    if args.caches && paths.testbed().exists() {
        std::fs::remove_dir_all(paths.testbed())?;
    }
    println!("clean: nothing of the testbed is left");
    Ok(())
}
