//! What an operator costs that has nothing to do: ours, and the same on controller-runtime (`testbed/idle-operator`).
//!
//! For each number of objects there is an API server of its own, all on one etcd, whose objects our operator brings to rest first.
//! Both operators are then started in turns, alone, and the last of each stay: all are watched at rest for the same time.
//! Each has an account of its own, with the rights of the chart, by which the API server's own metrics tell their requests apart.

mod figures;
mod objects;
mod operator;
mod requests;
mod usage;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{MissedTickBehavior, interval};
use vertice_testbed::control_plane::{Etcd, EtcdOptions};
use vertice_testbed::images::{self, Triple};
use vertice_testbed::ledger::Ledger;
use vertice_testbed::parts::{self, Part};
use vertice_testbed::paths::Paths;
use vertice_testbed::report::Reporter;

use self::figures::{Cost, Costs};
pub use self::figures::{report, table};
use self::operator::{Operator, Program};
use self::requests::Requests;
use self::world::World;
use super::figures::median;
use crate::shell::progress;

/// How many `VerticeBackups` there are.
const SIZES: [u32; 3] = [0, 1_000, 10_000];
/// How often memory is looked at while the operators are watched.
const SAMPLE: Duration = Duration::from_secs(1);

/// The programs that are compared.
pub struct Programs {
    paths: Paths,
    vertice: PathBuf,
    peer: PathBuf,
}

impl Programs {
    fn path(&self, program: Program) -> &PathBuf {
        match program {
            Program::Vertice => &self.vertice,
            Program::ControllerRuntime => &self.peer,
        }
    }
}

/// Builds what is missing.
pub fn prepare() -> Result<Programs> {
    let paths = Paths::locate();
    let ledger = Ledger::open(&paths, progress());
    let peer = parts::ensure(&paths, &[Part::Kubernetes, Part::IdleOperator], &ledger)?.bin("idle-operator");
    // As it is deployed: the binary of the image.
    images::product(&paths, &ledger, &Triple::host())?;
    let release = format!("{}-unknown-linux-gnu/release", std::env::consts::ARCH);
    Ok(Programs { vertice: paths.target().join(release).join("vertice"), peer, paths })
}

/// An operator that was watched at rest.
struct Watched<'a> {
    world: &'a World,
    operator: Operator,
    before: Reading,
    after: Reading,
    /// What resided, look by look.
    memory: Vec<u64>,
}

/// What an operator has used up to now.
struct Reading {
    cpu: Duration,
    requests: Requests,
}

/// Measures everything; `repeats` starts of each operator, then `window` at rest.
pub async fn run(programs: &Programs, repeats: u32, window: Duration) -> Result<Costs> {
    let reporter = progress();
    let folder = tempfile::Builder::new().prefix("vertice-bench-").tempdir()?;
    let etcd = Etcd::start(&programs.paths, EtcdOptions { reporter: reporter.clone(), fsync: false }).await?;
    let mut worlds = Vec::new();
    for size in SIZES {
        worlds.push(World::start(&etcd, size, folder.path()).await?);
    }
    for world in &mut worlds {
        bring_to_rest(programs, world, &reporter).await?;
    }
    let (starts, operators) = start_in_turns(programs, &worlds, repeats, &reporter).await?;
    reporter.say(format!("watching {} operators at rest for {} s", operators.len(), window.as_secs()));
    let watched = watch(operators, window).await?;
    let mut costs =
        Costs { peer: operator::version(&programs.peer).await?, window, programs: BTreeMap::new() };
    for one in watched {
        let key = (one.operator.program(), one.world.size());
        let seconds = starts.get(&key).context("an operator was not started")?;
        let cost = one.cost(seconds, window).await?;
        costs.programs.entry(key.0).or_default().insert(key.1, cost);
    }
    Ok(costs)
}

/// Makes the objects while our operator runs, and waits until it has done what it wants with them.
async fn bring_to_rest(programs: &Programs, world: &mut World, reporter: &Reporter) -> Result<()> {
    let size = world.size();
    if size > 0 {
        reporter.say(format!("making {size} VerticeBackups, and bringing them to rest"));
    }
    let mut operator = Operator::start(Program::Vertice, &programs.vertice, world)?;
    objects::create(world.client(), size).await?;
    let rested = objects::at_rest(world.client(), size).await;
    if let Some(end) = operator.ended() {
        bail!("{end}");
    }
    rested?;
    // What it has begun it also ends, such as events.
    operator.synced().await?;
    drop(operator);
    world.rest().await
}

/// Seconds of each start.
type Starts = BTreeMap<(Program, u32), Vec<f64>>;

/// Starts every operator `repeats` times; returns the times, and the last of each, which goes on.
async fn start_in_turns<'a>(
    programs: &Programs,
    worlds: &'a [World],
    repeats: u32,
    reporter: &Reporter,
) -> Result<(Starts, Vec<(&'a World, Operator)>)> {
    let mut starts = Starts::new();
    let mut last = Vec::new();
    for round in 1..=repeats {
        for world in worlds {
            let mut order = Program::ALL;
            // None always follows the same.
            order.rotate_left(round as usize % Program::ALL.len());
            for program in order {
                let mut operator = Operator::start(program, programs.path(program), world)?;
                let told =
                    || format!("{} did not come to rest with {} objects", program.name(), world.size());
                let seconds = operator.synced().await.with_context(told)?.as_secs_f64();
                let size = world.size();
                reporter.say(format!(
                    "round {round} of {repeats}: {} at rest with {size} objects after {seconds:.2} s",
                    program.name()
                ));
                starts.entry((program, size)).or_default().push(seconds);
                if round == repeats {
                    last.push((world, operator));
                }
            }
        }
    }
    Ok((starts, last))
}

/// Leaves the operators alone for `window`, and looks at what they hold meanwhile.
async fn watch(operators: Vec<(&World, Operator)>, window: Duration) -> Result<Vec<Watched<'_>>> {
    let mut begun = Vec::new();
    for (world, operator) in operators {
        let before = Reading::take(world, &operator).await?;
        begun.push((world, operator, before, Vec::new()));
    }
    let end = tokio::time::Instant::now() + window;
    let mut samples = interval(SAMPLE);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while samples.tick().await < end {
        for (_, operator, _, memory) in &mut begun {
            if let Some(end) = operator.ended() {
                bail!("{end}");
            }
            memory.push(usage::resident(operator.pid())?);
        }
    }
    let mut watched = Vec::new();
    for (world, operator, before, memory) in begun {
        let after = Reading::take(world, &operator).await?;
        watched.push(Watched { world, operator, before, after, memory });
    }
    Ok(watched)
}

impl Reading {
    async fn take(world: &World, operator: &Operator) -> Result<Self> {
        let requests = world.requests(operator.program()).await?;
        Ok(Self { cpu: usage::cpu(operator.pid())?, requests })
    }
}

impl Watched<'_> {
    /// What it cost; an operator that did not do its work, or that found something to do, is an error.
    async fn cost(&self, starts: &[f64], window: Duration) -> Result<Cost> {
        let (program, size) = (self.operator.program(), self.world.size());
        let Self { before, after, .. } = self;
        let since = after.requests.since(&before.requests);
        // Only now: to print the metrics of ten thousand objects takes memory.
        let reconciled = self.operator.reconciled().await?;
        let told = || format!("{} with {size} objects", program.name());
        ensure!(
            reconciled.succeeded >= u64::from(size) && reconciled.failed == 0,
            "{}: {} reconciles succeeded and {} failed, so it did not come to rest:\n{}",
            told(),
            reconciled.succeeded,
            reconciled.failed,
            self.operator.last_words(),
        );
        let written = after.requests.since(&self.world.rested(program)).writes;
        ensure!(
            written == 0,
            "{}: {written} writes to objects at rest: the operators do not want the same",
            told()
        );
        let minutes = window.as_secs_f64() / 60.0;
        #[expect(clippy::cast_precision_loss, reason = "a count of some minutes")]
        let a_minute = |count: u64| count as f64 / minutes;
        Ok(Cost {
            rss_bytes: median(self.memory.iter().copied(), u64::midpoint)
                .context("memory was not looked at")?,
            cpu_seconds_per_minute: after.cpu.saturating_sub(before.cpu).as_secs_f64() / minutes,
            requests_per_minute: a_minute(since.all()),
            writes_per_minute: a_minute(since.writes + since.events),
            startup_seconds: median(starts.iter().copied(), f64::midpoint).context("it was not started")?,
        })
    }
}
