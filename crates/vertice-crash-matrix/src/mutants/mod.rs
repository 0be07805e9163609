//! The seeded faults, each of which an oracle has to find: that they are all found is what the matrix's zero is worth.
//!
//! A fault counts as caught when an oracle finds something in a trial with it, in peace or struck, that it does not find in the very
//! same trial without it. That a step of a story did not come to its end, or that something panicked, does not count.

mod seeds;
mod stories;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::{Mutex, OnceCell};

pub use self::seeds::Mutant;
use crate::error::Result;
use crate::fault::Strike;
use crate::ground::Ground;
use crate::oracles::{Finding, Oracle};
use crate::reference::Baseline;
use crate::run::{Outcome, attempt, baseline};
use crate::scenario::Scenario as _;
use crate::scenarios::Story;

/// Where a fault was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The story.
    pub story: String,
    /// What it was struck with; none in peace.
    pub strike: Option<Strike>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.strike {
            Some(strike) => write!(f, "{}/{strike}", self.story),
            None => write!(f, "{} in peace", self.story),
        }
    }
}

/// What showed a fault.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Where.
    pub place: Place,
    /// Which oracle.
    pub oracle: Oracle,
    /// What it saw; its first line.
    pub line: String,
}

/// What became of one fault.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The fault.
    pub mutant: Mutant,
    /// What showed it.
    pub caught: Option<Catch>,
    /// All that was tried, in its order, with the oracles that found something.
    pub tried: Vec<(Place, Vec<Oracle>)>,
    /// By the machine's clock.
    pub took: Duration,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Catch { place, oracle, line }) = &self.caught {
            return write!(f, "{} → {place} → {oracle} → {line}", self.mutant);
        }
        write!(f, "{} → NOT CAUGHT ({}); tried:", self.mutant, self.mutant.what())?;
        self.tried.iter().try_for_each(|(place, oracles)| {
            let oracles: Vec<_> = oracles.iter().map(ToString::to_string).collect();
            let found = if oracles.is_empty() { "nothing".to_owned() } else { oracles.join(", ") };
            write!(f, "\n  {place}: {found}")
        })
    }
}

/// What the run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One a fault, in their order.
    pub verdicts: Vec<Verdict>,
    /// Trials without any seeded fault in which an oracle found something: findings about the product.
    pub diverged: Vec<(Place, Vec<Finding>)>,
}

impl Report {
    /// How many were caught.
    #[must_use]
    pub fn caught(&self) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.caught.is_some()).count()
    }

    /// How many of them needed a strike to show.
    #[must_use]
    pub fn needed_a_strike(&self) -> usize {
        let struck =
            |verdict: &&Verdict| verdict.caught.as_ref().is_some_and(|caught| caught.place.strike.is_some());
        self.verdicts.iter().filter(struck).count()
    }
}

/// Shared by the faults that are looked for at the same time.
struct Search<'a> {
    ground: &'a Ground,
    baselines: Mutex<HashMap<&'static str, Arc<OnceCell<Baseline>>>>,
    /// What the oracles have against trials without any seeded fault.
    controls: Mutex<HashMap<Place, Arc<OnceCell<Vec<Finding>>>>>,
}

/// Looks for these faults, several at a time. `tell` hears of each.
pub async fn run(
    ground: &Ground,
    mutants: Vec<Mutant>,
    parallel: usize,
    mut tell: impl FnMut(&Verdict),
) -> Result<Report> {
    let search = Search { ground, baselines: Mutex::default(), controls: Mutex::default() };
    let order: Vec<Mutant> = mutants.clone();
    let mut found =
        futures::stream::iter(mutants).map(|mutant| search.look(mutant)).buffer_unordered(parallel);
    let mut verdicts = Vec::new();
    while let Some(verdict) = found.next().await {
        let verdict = verdict?;
        tell(&verdict);
        verdicts.push(verdict);
    }
    drop(found);
    verdicts.sort_by_key(|verdict| order.iter().position(|mutant| *mutant == verdict.mutant));
    let controls = search.controls.into_inner();
    let findings = controls.into_iter().filter_map(|(place, cell)| {
        let findings: Vec<_> = cell.get()?.iter().filter_map(beyond_pace).collect();
        (!findings.is_empty()).then_some((place, findings))
    });
    let diverged = findings.collect();
    Ok(Report { verdicts, diverged })
}

impl Search<'_> {
    async fn look(&self, mutant: Mutant) -> Result<Verdict> {
        let began = Instant::now();
        let (story, beginnings) = mutant.tries();
        let baseline = self.baseline(story).await?;
        let mut tried = Vec::new();
        let mut caught = None;
        for strike in std::iter::once(None).chain(strikes(&baseline, beginnings).map(Some)) {
            let outcome = self.attempt(story, strike.as_ref(), &baseline, Some(mutant)).await?;
            let place = Place { story: story.name().to_owned(), strike };
            tried.push((place.clone(), outcome.findings.iter().map(|finding| finding.oracle).collect()));
            caught = self.judge(story, place, outcome, &baseline).await?;
            if caught.is_some() {
                break;
            }
        }
        Ok(Verdict { mutant, caught, tried, took: began.elapsed() })
    }

    async fn attempt(
        &self,
        story: &'static Story,
        strike: Option<&Strike>,
        baseline: &Baseline,
        mutant: Option<Mutant>,
    ) -> Result<Outcome> {
        let name = mutant.map(Mutant::name);
        let expected = baseline.expected(self.ground, story, strike).await?;
        attempt(self.ground, story, strike, Some(&expected), name.as_deref()).await
    }

    /// What of a trial's findings shows the fault.
    async fn judge(
        &self,
        story: &'static Story,
        place: Place,
        outcome: Outcome,
        baseline: &Baseline,
    ) -> Result<Option<Catch>> {
        let counts = |finding: &Finding| !matches!(finding.oracle, Oracle::Progress | Oracle::Panics);
        let findings: Vec<_> = outcome.findings.into_iter().filter(counts).collect();
        if findings.is_empty() {
            return Ok(None);
        }
        let control = self.control(story, &place, baseline).await?;
        Ok(findings.into_iter().find_map(|finding| {
            let line = telling(&finding, &control)?;
            Some(Catch { place: place.clone(), oracle: finding.oracle, line })
        }))
    }

    /// The story in peace, without any seeded fault.
    async fn baseline(&self, story: &'static Story) -> Result<Baseline> {
        let cell = Arc::clone(self.baselines.lock().await.entry(story.name()).or_default());
        cell.get_or_try_init(|| baseline(self.ground, story)).await.cloned()
    }

    /// What the oracles have against the same trial without any seeded fault.
    async fn control(
        &self,
        story: &'static Story,
        place: &Place,
        baseline: &Baseline,
    ) -> Result<Vec<Finding>> {
        let cell = Arc::clone(self.controls.lock().await.entry(place.clone()).or_default());
        let control = cell.get_or_try_init(|| async {
            let outcome = self.attempt(story, place.strike.as_ref(), baseline, None).await?;
            Ok(outcome.findings)
        });
        control.await.cloned()
    }
}

/// Where a line of a finding points to.
fn path(line: &str) -> &str {
    line.split(": ").next().unwrap_or_default()
}

fn is_time(line: &str) -> bool {
    ["Time", "At", "timestamp", "in-force-since"].iter().any(|end| path(line).ends_with(end))
}

/// What a finding says but when something was done, and in how many steps: the stories wait for nothing, so that what a strike
/// delays is seen late and together.
fn beyond_pace(finding: &Finding) -> Option<Finding> {
    let pace = |line: &String| is_time(line) || path(line).ends_with("metadata.generation");
    let lines: Vec<_> = finding.lines.iter().filter(|line| !pace(line)).cloned().collect();
    (!lines.is_empty()).then_some(Finding { oracle: finding.oracle, lines })
}

/// Of what an oracle saw, the line that tells most; none when it sees the same places without the fault, or nothing but other times:
/// these a slow machine moves, too.
fn telling(finding: &Finding, control: &[Finding]) -> Option<String> {
    let same = control.iter().filter(|other| other.oracle == finding.oracle);
    let known: HashSet<_> = same.flat_map(|other| &other.lines).map(|line| path(line)).collect();
    let new = finding.lines.iter().filter(|line| !known.contains(path(line)) && !is_time(line));
    let rank = |line: &&String| {
        let path = path(line);
        let says_little = ["metadata.", "events.", "bucket."].iter().any(|part| path.contains(part));
        (says_little, !path.contains("Vertice"))
    };
    let line = new.min_by_key(rank)?;
    Some(line.get(..line.floor_char_boundary(LONGEST)).unwrap_or(line).to_owned())
}

/// Of a line, in bytes.
const LONGEST: usize = 220;

/// The strikes of a story that begin so, those of one beginning from the last to the first: what happens late is mended by nothing.
fn strikes<'a>(baseline: &'a Baseline, beginnings: &'a [&'a str]) -> impl Iterator<Item = Strike> + 'a {
    beginnings.iter().flat_map(|beginning| {
        let begins = move |strike: &&Strike| strike.to_string().starts_with(beginning);
        baseline.strikes.iter().rev().filter(begins).cloned()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_what_is_not_seen_without_the_fault_counts() {
        let finding = |lines: &[&str]| Finding {
            oracle: Oracle::SameEnd,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        let found = finding(&[
            "objects.Job a.metadata.generation: 1 → 2",
            "objects.VerticeBackup b.status.phase: 3 → 4",
        ]);
        assert_eq!(telling(&found, &[]).unwrap(), found.lines[1]);
        let control = finding(&["objects.VerticeBackup b.status.phase: 3 → 5"]);
        assert_eq!(telling(&found, &[control]).unwrap(), found.lines[0]);
        assert_eq!(telling(&found, std::slice::from_ref(&found)), None);
        assert_eq!(
            telling(
                &finding(&["objects.VerticeBackup b.status.conditions[0].lastTransitionTime: 1 → 2"]),
                &[]
            ),
            None
        );
    }

    #[test]
    fn every_fault_has_a_name_of_its_own_and_says_what_it_does() {
        let all: Vec<_> = Mutant::all().collect();
        let names: BTreeSet<_> = all.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.len() >= 24, "{}", all.len());
        assert!(all.iter().all(|mutant| !mutant.what().is_empty()));
    }
}
