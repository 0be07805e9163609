//! Tries a story at all its points and compares what it comes to with what it comes to in peace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::Value;
use vertice_controller::client::{Call, Verb};

use crate::error::Result;
use crate::fault::{Fault, Strike};
use crate::ground::Ground;
use crate::hub::Seen;
use crate::oracles::{self, Finding};
use crate::scenario::Scenario;
use crate::scenarios::GOLDEN;
use crate::state;
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

/// A story in peace.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// What it came to.
    pub outcome: Outcome,
    /// Everything that it can be struck with.
    pub strikes: Vec<Strike>,
}

/// Makes the backup that stories restore. Once a ground, before any story of a VerticeRestore.
pub async fn golden(ground: &Ground) -> Result<()> {
    let trial = Trial::begin(ground, None, None).await?;
    GOLDEN.play(&trial).await?;
    trial.end().await;
    Ok(())
}

/// Plays a story in peace.
pub async fn baseline(
    ground: &Ground,
    scenario: &dyn Scenario,
    mutant: Option<&str>,
    expected: Option<&Value>,
) -> Result<Baseline> {
    let outcome = attempt(ground, scenario, None, expected, mutant).await?;
    let strikes = strikes(&outcome);
    Ok(Baseline { outcome, strikes })
}

/// Plays a story once, struck or not, and asks the oracles.
pub async fn attempt(
    ground: &Ground,
    scenario: &dyn Scenario,
    strike: Option<&Strike>,
    expected: Option<&Value>,
    mutant: Option<&str>,
) -> Result<Outcome> {
    let began = Instant::now();
    let trial = Trial::begin(ground, strike.cloned(), mutant.map(str::to_owned)).await?;
    let content = state::content(&trial).await?;
    let played = play(&trial, scenario, expected, &content).await;
    trial.end().await;
    let (findings, state) = played?;
    Ok(Outcome {
        strike: strike.cloned(),
        struck: trial.hub.struck(),
        findings,
        seen: trial.hub.seen(),
        told: trial.hub.told_of(),
        state,
        user: trial.user.clone(),
        took: began.elapsed(),
    })
}

async fn play(
    trial: &Trial<'_>,
    scenario: &dyn Scenario,
    expected: Option<&Value>,
    content: &str,
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
    findings.extend(oracles::ask(trial, &state, content).await?);
    Ok((findings, state.normal))
}

/// Tries a story with each of the strikes, several at a time. `tell` hears of each outcome and says whether to go on.
pub async fn run(
    ground: &Ground,
    scenario: &dyn Scenario,
    baseline: &Baseline,
    strikes: Vec<Strike>,
    parallel: usize,
    mutant: Option<&str>,
    mut tell: impl FnMut(Outcome) -> bool,
) -> Result<()> {
    let expected = Arc::new(baseline.outcome.state.clone());
    let mut trials = futures::stream::iter(strikes)
        .map(|strike| {
            let expected = Arc::clone(&expected);
            async move { attempt(ground, scenario, Some(&strike), Some(&expected), mutant).await }
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
        strikes.extend(faults.iter().map(|fault| Strike { point: seen.point.clone(), fault: *fault }));
    }
    for (name, versions) in &outcome.told {
        for occurrence in 1..=u32::try_from(*versions).unwrap_or(u32::MAX) {
            let point = crate::point::Point { name: name.clone(), occurrence };
            // An event that is the last of its object is never lost for good: a watch ends, and is taken up again.
            let last = occurrence as usize == *versions || name.starts_with("see the end");
            let faults = Fault::EVENTS.into_iter().filter(|fault| *fault != Fault::Skip || !last);
            strikes.extend(faults.map(|fault| Strike { point: point.clone(), fault }));
        }
    }
    strikes
}

fn is_read(call: &Call) -> bool {
    matches!(call.verb, Verb::Get | Verb::List)
}
