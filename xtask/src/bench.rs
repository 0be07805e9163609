//! `cargo xtask bench`: ours and its peers, interleaved on the same work in one run.
//!
//! A bench prints and never fails a build: its figures are those of this machine at this hour, only their ratios travel.

mod backup;
mod daemon;
mod figures;
mod gateway;
mod idle;
mod measure;
mod postgres;

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

#[derive(clap::Args)]
pub struct Args {
    /// Which bench: backup or idle.
    name: String,
    /// Print the figures as one JSON object, on the last line.
    #[arg(long)]
    json: bool,
    /// Runs of each program (idle: starts); the figures are their medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// backup: orders in the sample shop, about four rows and 470 bytes on disk each.
    #[arg(long, default_value_t = 600_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    orders: u32,
    /// idle: seconds for which the operators are watched at rest. Watches are renewed every 5 to 10 minutes: in a shorter time
    /// those requests do not show.
    #[arg(long, default_value_t = 420, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    window: u64,
}

/// The benches by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bench {
    /// A backup of one database into S3.
    Backup,
    /// The operator with nothing to do.
    Idle,
}

impl Bench {
    const ALL: [(&str, Self); 2] = [("backup", Self::Backup), ("idle", Self::Idle)];

    fn find(name: &str) -> Result<Self> {
        if let Some((_, bench)) = Self::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(*bench);
        }
        bail!("there is no bench {name:?}; the benches are: {}", Self::ALL.map(|(known, _)| known).join(", "))
    }
}

pub fn run(args: &Args) -> Result<()> {
    // What takes minutes comes first and blocks: there is nothing to end yet, so that Ctrl-C may simply kill us.
    match Bench::find(&args.name)? {
        Bench::Backup => {
            let programs = backup::prepare()?;
            let series = until_interrupted(backup::run(&programs, args.orders, args.repeats))?;
            println!("{}", figures::table(&series));
            for one in &series {
                println!("{}: {}", one.name, one.settings);
            }
            print_json(args, &figures::Report::new(&args.name, &series)?)
        }
        Bench::Idle => {
            let programs = idle::prepare()?;
            let window = Duration::from_secs(args.window);
            let costs = until_interrupted(idle::run(&programs, args.repeats, window))?;
            println!("{}", idle::table(&costs));
            print_json(args, &idle::report(&args.name, &costs)?)
        }
    }
}

/// One thread, the main one: what it starts dies with the thread that started it (see `daemon::bound`).
fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminated.recv() => bail!("terminated"),
            result = work => result,
        }
    })
}

fn print_json(args: &Args, report: &impl Serialize) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(report)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_in_one_line_with_the_names_there_are() {
        assert_eq!(Bench::find("backup").unwrap(), Bench::Backup);
        insta::assert_snapshot!(Bench::find("restore").unwrap_err(), @r#"there is no bench "restore"; the benches are: backup, idle"#);
    }
}
