//! `vertice-agent`: `install` copies it into a pod, `run` does the pod's task.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use vertice_agent::{install, run};

/// Backs up and restores databases from inside their own image.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy this program to FOLDER/vertice-agent.
    Install {
        /// The folder.
        folder: PathBuf,
    },
    /// Do the task in VERTICE_TASK, and report to the termination log.
    Run(run::Places),
}

// Two threads: one for the pipe, one for the claim and the rest; every further one costs memory.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("VERTICE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Standard output has the progress lines.
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).with_env_filter(filter).init();
    match Cli::parse().command {
        Command::Run(places) => run::run(places).await,
        Command::Install { folder } => match install::install(&folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "cannot install the agent");
                ExitCode::FAILURE
            }
        },
    }
}
