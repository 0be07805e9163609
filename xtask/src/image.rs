//! `cargo xtask image`: the container images of operator and agent, as archives.

use anyhow::Result;
use vertice_testbed::images::{self, Triple};
use vertice_testbed::ledger::{Ledger, human_bytes};
use vertice_testbed::paths::Paths;

use crate::shell::progress;

#[derive(clap::Args)]
pub struct Args {
    /// Rust target triple to build for, such as aarch64-unknown-linux-gnu; this machine's without.
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let paths = Paths::locate();
    let triple = args.target.as_ref().map_or_else(Triple::host, Triple::new);
    let product = images::product(&paths, &Ledger::open(&paths, progress()), &triple)?;
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header(["image", "size", "archive"]);
    for image in [&product.vertice, &product.agent] {
        let size = human_bytes(image.bytes()?);
        table.add_row([image.reference.clone(), size, image.archive.display().to_string()]);
    }
    println!("{table}");
    Ok(())
}
