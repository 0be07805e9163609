//! Tries a story at all its points and compares what it comes to with what it comes to in peace.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::Value;
use vertice_controller::client::{Call, Verb};

use crate::error::Result;
use crate::fault::{Fault, Strike};
use crate::ground::Ground;
use crate::hub::{Fate, Seen};
use crate::oracles::{self, Finding};
use crate::point::{self, Point};
use crate::reference::{Baseline, Expected, is_rest};
use crate::scenario::Scenario;
use crate::scenarios::GOLDEN;
use crate::trial::Trial;

/// What one trial came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it was struck.
    pub strike: Option<Strike>,
    /// Whether the point was met.
    pub struck: bool,
    /// What the oracles have against it.
    pub findings: Vec<Finding>,
    /// All requests, in their order.
    pub seen: Vec<Seen>,
    /// What watches told of: each name with the number of its versions.
    pub told: Vec<(String, usize)>,
    /// Of each rest of the story, the custom resources that were there.
    pub rests: Vec<Vec<&'static str>>,
    /// The state, without what must differ.
    pub state: Value,
    /// Who the operator was, for the audit log.
    pub user: String,
    /// By the machine's clock.
    pub took: Duration,
}

impl Outcome {
    /// Whether an oracle has something against it.
    #[must_use]
    pub fn diverged(&self) -> bool {
        !self.findings.is_empty()
    }
}

/// Makes the backup that stories restore. Once a ground, before any story of a VerticeRestore.
pub async fn golden(ground: &Ground) -> Result<()> {
    let trial = Trial::begin(ground, None, None).await?;
    GOLDEN.play(&trial).await?;
    trial.end().await;
    Ok(())
}

/// Plays a story in peace.
pub async fn baseline(ground: &Ground, scenario: &dyn Scenario) -> Result<Baseline> {
    Ok(Baseline::new(attempt(ground, scenario, None, None, None).await?))
}

/// Plays a story once, struck or not, and asks the oracles. It must come to what is expected of it, if anything is.
pub async fn attempt(
    ground: &Ground,
    scenario: &dyn Scenario,
    strike: Option<&Strike>,
    expected: Option<&Expected>,
    mutant: Option<&str>,
) -> Result<Outcome> {
    let began = Instant::now();
    let trial = Trial::begin(ground, strike.cloned(), mutant.map(str::to_owned)).await?;
    let played = play(&trial, scenario, expected).await;
    trial.end().await;
    let (findings, state) = played?;
    Ok(Outcome {
        strike: strike.cloned(),
        // In another step of the story it is another point.
        struck: trial.hub.struck() && is_where_expected(&trial, expected),
        findings,
        seen: trial.hub.seen(),
        told: trial.hub.told_of(),
        rests: trial.hub.rested(),
        state,
        user: trial.user.clone(),
        took: began.elapsed(),
    })
}

/// Whether the trial was struck where it was to be.
pub(crate) fn is_where_expected(trial: &Trial<'_>, expected: Option<&Expected>) -> bool {
    let rests = trial.hub.hit().map(|seen| seen.rests);
    expected.is_none_or(|expected| rests.is_none_or(|rests| expected.is_of_the_step(rests)))
}

async fn play(
    trial: &Trial<'_>,
    scenario: &dyn Scenario,
    expected: Option<&Expected>,
) -> Result<(Vec<Finding>, Value)> {
    let mut findings = Vec::new();
    if let Err(error) = scenario.play(trial).await {
        findings.push(Finding::stuck(error)?);
        return Ok((findings, Value::Null));
    }
    let (state, differs) = match oracles::converge(trial, expected).await {
        Ok(converged) => converged,
        Err(error) => {
            findings.push(Finding::stuck(error)?);
            return Ok((findings, Value::Null));
        }
    };
    findings.extend(differs);
    findings.extend(oracles::ask(trial, &state).await?);
    Ok((findings, state.normal))
}

/// Tries a story with each of the strikes, several at a time. `tell` hears of each outcome and says whether to go on.
pub async fn run(
    ground: &Ground,
    scenario: &dyn Scenario,
    baseline: &Baseline,
    strikes: Vec<Strike>,
    parallel: usize,
    mut tell: impl FnMut(Outcome) -> bool,
) -> Result<()> {
    let mut trials = futures::stream::iter(strikes)
        .map(|strike| async move {
            if is_rest(&strike) {
                return baseline.at_rest(ground, scenario, &strike.point).await;
            }
            let expected = baseline.expected(ground, scenario, Some(&strike)).await?;
            attempt(ground, scenario, Some(&strike), Some(&expected), None).await
        })
        .buffer_unordered(parallel);
    while let Some(outcome) = trials.next().await {
        if !tell(outcome?) {
            break;
        }
    }
    Ok(())
}

/// Reads of one name are struck so often: the many that follow are the same code.
const READS: u32 = 2;

/// Everything that a story can be struck with.
pub(crate) fn strikes(outcome: &Outcome) -> Vec<Strike> {
    let mut strikes = Vec::new();
    for seen in &outcome.seen {
        let faults: &[Fault] = match &seen.call {
            None => &Fault::STORE,
            Some(call) if call.is_write() => &Fault::WRITES,
            Some(call) if is_read(call) && seen.point.occurrence <= READS => &Fault::READS,
            Some(_) => &[],
        };
        let faults = faults.iter().chain(by_people(seen));
        strikes.extend(faults.map(|fault| Strike { point: seen.point.clone(), fault: *fault }));
    }
    for (rest, there) in (1..).zip(&outcome.rests) {
        strikes.extend(there.iter().map(|resource| Strike {
            point: Point { name: point::of_rest(resource), occurrence: rest },
            fault: Fault::RemakeAfter,
        }));
    }
    for (name, versions) in &outcome.told {
        for occurrence in 1..=u32::try_from(*versions).unwrap_or(u32::MAX) {
            let point = Point { name: name.clone(), occurrence };
            // An event that is the last of its object is never lost for good: a watch ends, and is taken up again.
            let last = occurrence as usize == *versions || name.starts_with("see the end");
            let faults = Fault::EVENTS.into_iter().filter(|fault| *fault != Fault::Skip || !last);
            strikes.extend(faults.map(|fault| Strike { point: point.clone(), fault }));
        }
    }
    strikes
}

/// What people may do just before a request or just after it.
fn by_people(seen: &Seen) -> impl Iterator<Item = &'static Fault> {
    let call = seen.call.as_ref().filter(|call| call.is_write() && point::about(call).is_some());
    let owned = call.is_some_and(|call| ["cronjobs", "jobs"].contains(&call.resource.as_str()));
    // What a request makes is not there before.
    let there = seen.fate == Fate::Answered(200);
    let remakes = Fault::REMAKES.iter().filter(move |_| call.is_some());
    remakes
        .chain(Fault::DELETIONS.iter().filter(move |fault| owned && (there || **fault == Fault::DeleteAfter)))
}

fn is_read(call: &Call) -> bool {
    matches!(call.verb, Verb::Get | Verb::List)
}
