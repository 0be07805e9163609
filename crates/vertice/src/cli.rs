//! The tree of commands.

use std::path::Path;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{backup, completions, operator};

/// kubectl finds a plug-in by this name.
const PLUGIN: &str = "kubectl-vertice";

/// Day-2 operations for Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "vertice", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs an operator.
    #[command(subcommand)]
    Operator(operator::Command),
    /// Starts backups and follows them.
    #[command(subcommand)]
    Backup(backup::Command),
    /// Prints the definitions of all custom resources as YAML.
    Crdgen,
    /// Prints a completion script for a shell.
    Completions(completions::Args),
    /// Prints the version.
    Version,
}

/// The tree under the name that this program was called by.
pub(crate) fn tree() -> clap::Command {
    let called = std::env::args_os().next();
    let called = called.as_deref().and_then(|path| Path::new(path).file_stem());
    let tree = Cli::command();
    if called.is_some_and(|name| name == PLUGIN) { tree.bin_name("kubectl vertice") } else { tree }
}

/// Parses this program's arguments; ends it with a message when they make no sense.
pub(crate) fn parse() -> Command {
    let mut tree = tree();
    match Cli::from_arg_matches_mut(&mut tree.get_matches_mut()) {
        Ok(cli) => cli.command,
        Err(error) => error.format(&mut tree).exit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
