//! `crash-matrix`: starts the ground and runs the matrix on it. `cargo xtask crash-matrix` builds and starts this.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vertice_crash_matrix::{Ground, Kind, Options, Strike, attempt, baseline, golden, run, scenarios};
use vertice_testbed::control_plane::{Audit, ControlPlane, ControlPlaneOptions, Etcd, EtcdOptions};
use vertice_testbed::ledger::Ledger;
use vertice_testbed::parts::{self, Part};
use vertice_testbed::paths::Paths;
use vertice_testbed::report::Reporter;

/// Kills, refuses and misleads the controllers at every write, and compares what they come to.
#[derive(Debug, Parser)]
struct Args {
    /// Only the controller of this kind.
    kind: Option<Kind>,
    /// Only this point, as the matrix prints it.
    #[arg(long)]
    point: Option<String>,
    /// Only the stories whose name contains this.
    #[arg(long)]
    story: Option<String>,
    /// The agent's program.
    #[arg(long)]
    agent: PathBuf,
    /// How many trials run at once.
    #[arg(long, default_value_t = 6)]
    parallel: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match go(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn go(args: Args) -> Result<bool, Box<dyn Error>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let paths = Paths::locate();
    let reporter = Reporter::new(|line| eprintln!("» {line}"));
    let ledger = Ledger::open(&paths, reporter.clone());
    let owned = paths.clone();
    let parts = tokio::task::spawn_blocking(move || {
        parts::ensure(&owned, &[Part::Kubernetes, Part::VersityGw], &ledger)
    });
    let parts = parts.await??;
    let etcd = Etcd::start(&paths, EtcdOptions { reporter, ..EtcdOptions::default() }).await?;
    let mut options = ControlPlaneOptions::new("crash-matrix");
    options.audit = Audit::Metadata;
    let plane = ControlPlane::start(&etcd, options).await?;
    let options = Options {
        kubeconfig: plane.kubeconfig().to_owned(),
        audit_log: plane.audit_log().map(PathBuf::from),
        versitygw: parts.bin("versitygw"),
        agent: args.agent.clone(),
        parallel: args.parallel,
    };
    let ground = Ground::start(options).await?;
    eprintln!("» ground ready");
    golden(&ground).await?;
    eprintln!("» golden backup made");
    let mut good = true;
    for scenario in scenarios::all(args.kind) {
        if args.story.as_ref().is_some_and(|story| !scenario.name().contains(story.as_str())) {
            continue;
        }
        let began = std::time::Instant::now();
        let first = baseline(&ground, scenario, None, None).await?;
        println!("{}: {:.1} s, {} requests, {} strikes", scenario.name(), first.outcome.took.as_secs_f64(), first.outcome.seen.len(), first.strikes.len());
        for finding in &first.outcome.findings {
            println!("  in peace: {}: {:#?}", finding.oracle, finding.lines);
        }
        let second = attempt(&ground, scenario, None, Some(&first.outcome.state), None).await?;
        for finding in &second.findings {
            println!("  in peace again: {}: {:#?}", finding.oracle, finding.lines);
        }
        let strikes: Vec<Strike> = match &args.point {
            None => first.strikes.clone(),
            Some(text) => first.strikes.iter().filter(|strike| strike.to_string().contains(text.as_str())).cloned().collect(),
        };
        let (mut tried, mut diverged, mut missed, mut longest) = (0, 0, 0, 0.0_f64);
        let all = strikes.len();
        run(&ground, scenario, &first, strikes, args.parallel, None, |outcome| {
            tried += 1;
            longest = longest.max(outcome.took.as_secs_f64());
            let strike = outcome.strike.as_ref().map(ToString::to_string).unwrap_or_default();
            if !outcome.struck {
                missed += 1;
                println!("  not met: {strike}");
            }
            if outcome.diverged() {
                diverged += 1;
                println!("  DIVERGED {}/{strike} ({:.1} s)", scenario.name(), outcome.took.as_secs_f64());
                for finding in &outcome.findings {
                    println!("    {}:", finding.oracle);
                    finding.lines.iter().take(12).for_each(|line| println!("      {line}"));
                }
            }
            eprint!("\r{tried}/{all} ");
            true
        })
        .await?;
        good &= diverged == 0;
        println!("{}: {tried} tried, {diverged} diverged, {missed} not met, {:.0} s, longest {longest:.1} s", scenario.name(), began.elapsed().as_secs_f64());
    }
    Ok(good)
}
