//! `vertice completions`

use anyhow::Result;
use clap_complete::Shell;

use crate::{cli, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::tree(), "vertice", &mut script);
    output::result(&String::from_utf8_lossy(&script))
}
