//! The project's own commands. `cargo xtask --help` lists them.

mod bench;
mod clean;
mod codegen;
mod crash_matrix;
mod demo;
mod image;
mod lint;
mod prepare;
mod shell;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a real cluster on this machine, backs up a real database, destroys it, restores it, proves equality.
    Demo(demo::Args),
    /// Runs the tests: all tiers, or one of unit, api, e2e.
    Test(test::Args),
    /// Formatting, clippy, generated files, licences and versions of dependencies, unused dependencies.
    Lint,
    /// Writes the generated files: CRDs and RBAC.
    Codegen {
        /// Only tell whether they are up to date.
        #[arg(long)]
        check: bool,
    },
    /// Builds the container images of operator and agent as archives.
    Image(image::Args),
    /// Measures ours and its peers on the same work.
    Bench(bench::Args),
    /// Kills, refuses and misleads the controllers at every request, and compares what they come to.
    CrashMatrix(crash_matrix::Args),
    /// Ends and removes everything that the testbed made: processes, namespaces, links, mounts, cgroups.
    Clean(clean::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Lint => lint::run(),
        Command::Codegen { check } => codegen::run(check),
        Command::Image(args) => image::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::CrashMatrix(args) => crash_matrix::run(&args),
        Command::Clean(args) => clean::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", console::style("error:").red().bold());
            ExitCode::FAILURE
        }
    }
}
