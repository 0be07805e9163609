//! `cargo xtask demo`: a real cluster, a real database, a backup, its loss, its return.

mod follow;
mod ground;
mod screen;
mod story;

use anyhow::Result;

#[derive(clap::Args)]
pub struct Args {
    /// Run through and leave nothing behind, instead of staying up until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Use this context of your kubeconfig instead of starting a cluster. Only namespaces that the demo makes are touched;
    /// the definitions and roles of the chart are removed at the end.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// With --context: where the cluster finds the images that `cargo xtask image` built, instead of on its nodes.
    #[arg(long, value_name = "HOST/PATH", requires = "context")]
    registry: Option<String>,
    /// Orders in the sample shop: about four rows each.
    #[arg(long, default_value_t = vertice_e2e::shop::MILLION_ROWS, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    orders: u32,
}

pub fn run(args: &Args) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run_async(args))
}

/// Whatever happens, also Ctrl-C, the ground is left as it was found.
async fn run_async(args: &Args) -> Result<()> {
    screen::headline("Vertice demo: a backup that restores");
    let ground = tokio::select! {
        ground = ground::Ground::prepare(args) => ground?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    let told = tokio::select! {
        told = story::tell(&ground, args.orders) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let (Ok(outcome), false) = (&told, args.once) {
        story::epilogue(&ground, outcome);
        eprintln!("  The cluster stays up until you press Ctrl-C.");
        tokio::signal::ctrl_c().await?;
    }
    ground.leave().await?;
    told.map(|outcome| outcome.print())
}
