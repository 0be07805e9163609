//! `crash-matrix`: starts the ground, runs the matrix on it and prints what came out. `cargo xtask crash-matrix` builds and starts it.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use vertice_crash_matrix::audit::Account;
use vertice_crash_matrix::matrix::{self, Choice, Plan, Played};
use vertice_crash_matrix::{Ground, Kind, Options, Scenario, golden, report, scenarios, transitions};
use vertice_testbed::apt;
use vertice_testbed::control_plane::{Audit, ControlPlane, ControlPlaneOptions, Etcd, EtcdOptions};
use vertice_testbed::ledger::Ledger;
use vertice_testbed::parts::{self, Part};
use vertice_testbed::paths::Paths;
use vertice_testbed::report::Reporter;

/// Kills, refuses and misleads the controllers at every request, and compares what they come to with what they come to in peace.
#[derive(Debug, Parser)]
struct Args {
    /// Only the controller of this kind.
    kind: Option<Kind>,
    /// Only this point, as the matrix prints it: STORY/FAULT/REQUEST#NUMBER.
    #[arg(long, value_name = "NAME")]
    point: Option<String>,
    /// Only stories whose name contains this.
    #[arg(long, value_name = "WORD")]
    story: Option<String>,
    /// Only faults whose name contains this.
    #[arg(long, value_name = "WORD")]
    fault: Option<String>,
    /// Only seeded faults whose name contains this, and no stories.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "WORD")]
    seeded: Option<String>,
    /// Print the figures as one JSON object, on the last line.
    #[arg(long)]
    json: bool,
    /// Print what may differ from trial to trial and why, and differences in full.
    #[arg(long)]
    verbose: bool,
    /// The agent's program.
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
    /// How many trials run at once.
    #[arg(long, default_value_t = 6)]
    parallel: usize,
    /// Where the generated changes of specs begin; printed with what they find.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

type Failure = Box<dyn Error + Send + Sync>;

/// Walks of generated changes.
const WALKS: u64 = 5;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // What was started ends with the future that is dropped.
    let result = tokio::select! {
        result = go(&args) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, as far as they are not in its own words.
fn chain(error: &(dyn Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

async fn go(args: &Args) -> Result<bool, Failure> {
    // reqwest and kube take the process-wide provider; that one is there already is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let began = Instant::now();
    let (mut stories, choice) = wanted(args)?;
    let only_seeded = only_seeded(args);
    if only_seeded {
        stories.clear();
    }
    let plane = Plane::start().await?;
    let ground = plane.ground(args).await?;
    let plan = Plan { parallel: args.parallel, choice };
    let mut account = Account::default();
    let mut played = Vec::new();
    if only_seeded || stories.iter().any(|story| story.kind() == Kind::VerticeRestore) {
        golden(&ground).await?;
    }
    for story in stories {
        let one = matrix::play(&ground, story, &plan, &mut account, |done, all| {
            progress(&format!("{}: {done} of {all} points", story.name()));
        })
        .await?;
        tell(&one, args.verbose);
        played.push(one);
    }
    let mut figures = report::figures(&played);
    let mut good = figures["diverged"] == 0 && played.iter().all(|one| one.points() > 0);
    if args.point.is_none() && args.story.is_none() && args.fault.is_none() {
        good &= further(args, &ground, &mut figures).await?;
    }
    if let Some(log) = &ground.audit_log {
        let reconciled = account.reconcile(log).await?;
        for unmatched in &reconciled.unmatched {
            println!("unmatched: {unmatched}");
        }
        println!("audit log: {} writes matched, {} unmatched", reconciled.matched, reconciled.count());
        good &= reconciled.count() == 0;
        figures["audit_writes"] = reconciled.matched.into();
        figures["audit_writes_unmatched"] = reconciled.count().into();
    }
    figures["seconds"] = began.elapsed().as_secs().into();
    print(args, &played, &figures);
    Ok(good)
}

/// The stories and their strikes that were asked for.
fn wanted(args: &Args) -> Result<(Vec<&'static dyn Scenario>, Choice), Failure> {
    if let Some(name) = &args.point {
        let (story, strike) = name.split_once('/').ok_or("--point needs STORY/FAULT/REQUEST#NUMBER")?;
        let story = scenarios::named(story).ok_or_else(|| format!("there is no story {story:?}"))?;
        return Ok((vec![story], Choice::One(strike.parse()?)));
    }
    let word = args.story.as_deref().unwrap_or_default();
    let stories: Vec<_> = scenarios::all(args.kind).filter(|story| story.name().contains(word)).collect();
    if stories.is_empty() {
        return Err(format!("no story has {word:?} in its name").into());
    }
    Ok((stories, args.fault.clone().map_or(Choice::All, Choice::By)))
}

/// Whether only seeded faults are looked for.
fn only_seeded(args: &Args) -> bool {
    #[cfg(feature = "mutants")]
    return args.seeded.is_some();
    #[cfg(not(feature = "mutants"))]
    {
        let _ = args;
        false
    }
}

/// What is not about single points: generated changes of specs, and the seeded faults.
async fn further(args: &Args, ground: &Ground, figures: &mut Value) -> Result<bool, Failure> {
    let mut good = true;
    if args.kind.is_none_or(|kind| kind == Kind::VerticeBackup) && !only_seeded(args) {
        progress("changes of specs");
        let seeds = args.seed..args.seed.saturating_add(WALKS);
        let walked = transitions::run(ground, seeds, args.parallel, None).await?;
        for diverged in &walked.diverged {
            println!("diverged: {diverged}");
        }
        println!("changes of specs: {} made, {} diverged", walked.transitions, walked.diverged.len());
        good &= walked.diverged.is_empty();
        figures["transitions"] = json!({"made": walked.transitions, "diverged": walked.diverged.len()});
    }
    #[cfg(feature = "mutants")]
    if args.kind.is_none() {
        good &= seeded(args, ground, figures).await?;
    }
    Ok(good)
}

/// The seeded faults.
#[cfg(feature = "mutants")]
async fn seeded(args: &Args, ground: &Ground, figures: &mut Value) -> Result<bool, Failure> {
    use vertice_crash_matrix::mutants::{self, Mutant};
    let word = args.seeded.as_deref().unwrap_or_default();
    let all: Vec<Mutant> = Mutant::all().filter(|mutant| mutant.name().contains(word)).collect();
    let seeded = all.len();
    let mut done = 0;
    let found = mutants::run(ground, all, args.parallel, |verdict| {
        done += 1;
        progress(&format!("seeded faults: {done} of {seeded}, {}", verdict.mutant));
    })
    .await?;
    for (place, findings) in &found.diverged {
        println!("diverged: {place}");
        findings.iter().flat_map(|finding| &finding.lines).for_each(|line| println!("  {line}"));
    }
    println!("{}", report::mutants(&found));
    figures["mutants"] =
        json!({"seeded": seeded, "caught": found.caught(), "by_a_strike": found.needed_a_strike()});
    Ok(found.caught() == seeded && found.diverged.is_empty())
}

/// Rewrites one line of a terminal; a log gets none.
fn progress(text: &str) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        // A line of progress that cannot be written is no loss.
        let _ = write!(errors, "\r\x1b[K» {text}");
        let _ = errors.flush();
    }
}

fn tell(one: &Played, all: bool) {
    progress("");
    eprintln!(
        "» {}: {} points, {} diverged, {} not met, {:.0} s",
        one.story,
        one.points(),
        one.diverged.len(),
        one.missed.len(),
        one.took.as_secs_f64()
    );
    for outcome in &one.diverged {
        println!("{}", report::diverged(&one.story, outcome, all));
    }
    for strike in &one.missed {
        println!("not met: {}/{strike}", one.story);
    }
}

fn print(args: &Args, played: &[Played], figures: &Value) {
    if args.verbose {
        println!("What may differ from trial to trial:\n{}", report::rules());
        println!("What more may differ when a person deleted an object:\n{}", report::losses());
    }
    println!("{}\n{}", report::stories(played), report::faults(played));
    println!(
        "{} points tried, {} diverged, {} s",
        figures["points"], figures["diverged"], figures["seconds"]
    );
    if args.json {
        println!("{figures}");
    }
}

/// A control plane of our own, with an audit log. Ends when it is dropped.
struct Plane {
    parts: parts::Parts,
    plane: ControlPlane,
}

impl Plane {
    async fn start() -> Result<Self, Failure> {
        let paths = Paths::locate();
        let reporter = Reporter::new(|line| eprintln!("» {line}"));
        let ledger = Ledger::open(&paths, reporter.clone());
        let owned = paths.clone();
        let parts = tokio::task::spawn_blocking(move || {
            apt::ensure(&owned, apt::CRASH_MATRIX, ledger.reporter())?;
            Ok::<_, Failure>(parts::ensure(&owned, &[Part::Kubernetes, Part::VersityGw], &ledger)?)
        });
        let parts = parts.await??;
        let etcd = Etcd::start(&paths, EtcdOptions { reporter, ..EtcdOptions::default() }).await?;
        let mut options = ControlPlaneOptions::new("crash-matrix");
        options.audit = Audit::Metadata;
        let plane = ControlPlane::start(&etcd, options).await?;
        Ok(Self { parts, plane })
    }

    async fn ground(&self, args: &Args) -> Result<Ground, Failure> {
        let options = Options {
            kubeconfig: self.plane.kubeconfig().to_owned(),
            audit_log: self.plane.audit_log().map(PathBuf::from),
            versitygw: self.parts.bin("versitygw"),
            agent: args.agent.clone(),
            parallel: args.parallel,
        };
        Ok(Ground::start(options).await?)
    }
}
