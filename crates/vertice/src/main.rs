//! The one binary of Vertice: every operator, and the commands that people type. As `kubectl-vertice` it is a kubectl plug-in.

mod backup;
mod cli;
mod cluster;
mod completions;
mod crdgen;
mod operator;
mod output;
mod version;

use std::process::ExitCode;

use crate::cli::Command;

/// An operator's lists come and go, and its caches stay: this allocator returns what the lists took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match cli::parse() {
        Command::Operator(command) => operator::run(command).await,
        Command::Backup(command) => backup::run(command).await,
        Command::Crdgen => crdgen::run(),
        Command::Completions(args) => completions::run(&args),
        Command::Version => version::run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
