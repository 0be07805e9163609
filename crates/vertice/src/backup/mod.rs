//! `vertice backup …`

mod display;
mod follow;
mod job;
mod outcome;
mod run;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a VerticeBackup now, and follows the run.
    Run(run::Args),
}

pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        // Boxed: following a run holds three streams.
        Command::Run(args) => Box::pin(run::run(args)).await,
    }
}
