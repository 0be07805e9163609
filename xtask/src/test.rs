//! `cargo xtask test`: the tests by tier, each on the ground that it needs.

mod api;
mod e2e;
mod runner;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;
use vertice_testbed::ledger::{Ledger, Work, cache_weights, human_bytes};
use vertice_testbed::paths::Paths;

use crate::shell::progress;
use runner::{Runner, Summary};

#[derive(clap::Args)]
pub struct Args {
    /// Only this tier; all without.
    tier: Option<Tier>,
    /// Only tests whose name, or whose target's name, contains this.
    #[arg(value_parser = word)]
    filter: Option<String>,
    /// Add the tests that take longer than a continuous integration run has.
    #[arg(long, conflicts_with = "context")]
    full: bool,
    /// With e2e: run on this context of your kubeconfig instead of starting a cluster.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// With --context: where the cluster finds the images that `cargo xtask image` built, instead of on its nodes.
    #[arg(long, value_name = "HOST/PATH", requires = "context")]
    registry: Option<String>,
}

/// A part of a test's name.
fn word(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c)) {
        Ok(text.to_owned())
    } else {
        Err("a part of a test's name has letters, digits, `_`, `:` and `-` only".to_owned())
    }
}

/// What a test stands on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Nothing.
    Unit,
    /// A real API server.
    Api,
    /// Real nodes and pods.
    E2e,
}

/// The ground of a test run.
struct Ground {
    paths: Paths,
    ledger: Ledger,
    runner: Runner,
    filter: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    if args.context.is_some() && args.tier != Some(Tier::E2e) {
        bail!("--context goes with the tier e2e: cargo xtask test e2e --context NAME");
    }
    let paths = Paths::locate();
    let ledger = Ledger::open(&paths, progress());
    let runner = Runner::new(&paths, &ledger)?;
    let ground = Ground { paths, ledger, runner, filter: args.filter.clone() };
    let start = Instant::now();
    let result = tiers(&ground, args);
    print_ledger(&ground, start)?;
    let summaries = result?;
    print_summary(&summaries)
}

fn tiers(ground: &Ground, args: &Args) -> Result<Vec<(&'static str, Summary)>> {
    ground.runner.build(&ground.ledger)?;
    let wanted = |tier| args.tier.is_none_or(|only| only == tier);
    let mut summaries = Vec::new();
    if wanted(Tier::Unit) {
        summaries.push((
            "unit",
            timed(ground, "unit", || {
                ground.runner.run("not binary(/^(api|e2e|full)_/)", ground.filter.as_deref(), &[])
            })?,
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if wanted(Tier::Api) {
        summaries.push(("api", timed(ground, "api", || runtime.block_on(api::run(ground)))?));
    }
    if wanted(Tier::E2e) {
        summaries.push((
            "e2e",
            timed(ground, "e2e", || {
                runtime.block_on(e2e::run(ground, args.context.as_deref(), args.registry.as_deref()))
            })?,
        ));
    }
    if args.full {
        summaries.push(("full", timed(ground, "full", || e2e::run_full(ground))?));
    }
    Ok(summaries)
}

fn timed(ground: &Ground, tier: &str, work: impl FnOnce() -> Result<Summary>) -> Result<Summary> {
    eprintln!("\n{}", console::style(format!("── tier {tier} ──")).bold());
    let start = Instant::now();
    let summary = work()?;
    ground.ledger.record(&format!("tier {tier}"), start.elapsed(), Work::Cold, 0)?;
    Ok(summary)
}

fn print_ledger(ground: &Ground, start: Instant) -> Result<()> {
    ground.ledger.record("everything", start.elapsed(), Work::Cold, 0)?;
    println!("\n{}", ground.ledger.table()?);
    for (name, bytes) in cache_weights(&ground.paths) {
        println!("{name}: {}", human_bytes(bytes));
    }
    Ok(())
}

/// The last lines: the test runner's own words, and the sum that `.ci/run` is judged by. A test that was skipped did not pass.
fn print_summary(summaries: &[(&'static str, Summary)]) -> Result<()> {
    let mut total = Summary::default();
    println!();
    for (tier, summary) in summaries {
        println!(
            "{tier:5} {} passed, {} failed, {} skipped",
            summary.passed, summary.failed, summary.skipped
        );
        total.add(summary);
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    if total.passed == 0 {
        bail!("no test was run: does the filter match any name?");
    }
    Ok(())
}
