//! All stories with all their strikes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use crate::audit::Account;
use crate::error::Result;
use crate::fault::{Fault, Strike};
use crate::ground::Ground;
use crate::run::{self, Outcome, attempt};
use crate::scenario::{Kind, Scenario};

/// How the matrix is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many trials run at once.
    pub parallel: usize,
    /// Which strikes of a story are tried.
    pub choice: Choice,
}

/// Which strikes of a story are tried.
#[derive(Clone, Debug)]
pub enum Choice {
    /// All of them.
    All,
    /// This one.
    One(Strike),
    /// Those whose fault's name contains this.
    By(String),
    /// So many: every request and event at least once as far as they go, every fault about as often as the others; and some more, for
    /// faults that would not be tried at all. With how often each was tried before, in other stories.
    Some(usize, BTreeMap<Fault, usize>),
}

/// A point that does not come up (two changes in a row woke the operator once) is tried again so often.
const ROUNDS: usize = 3;

/// What a story came to.
#[derive(Clone, Debug)]
pub struct Played {
    /// Its name.
    pub story: String,
    /// Whose controller it tries.
    pub kind: Kind,
    /// By fault: how often it was tried, and how many of these trials diverged.
    pub faults: BTreeMap<Fault, (usize, usize)>,
    /// Trials that diverged; those without a strike are the story in peace.
    pub diverged: Vec<Outcome>,
    /// Points that did not come up when they were to be struck: nothing was tried there.
    pub missed: Vec<Strike>,
    /// The longest trial.
    pub longest: Duration,
    /// By the machine's clock.
    pub took: Duration,
}

impl Played {
    /// How many points were tried.
    #[must_use]
    pub fn points(&self) -> usize {
        self.faults.values().map(|(tried, _)| tried).sum()
    }
}

/// Tries one story. `tell` hears of progress: how many of how many trials are done.
pub async fn play(
    ground: &Ground,
    scenario: &dyn Scenario,
    plan: &Plan,
    account: &mut Account,
    mut tell: impl FnMut(usize, usize),
) -> Result<Played> {
    let began = Instant::now();
    let mut played = Played {
        story: scenario.name().to_owned(),
        kind: scenario.kind(),
        faults: BTreeMap::new(),
        diverged: Vec::new(),
        missed: Vec::new(),
        longest: Duration::ZERO,
        took: Duration::ZERO,
    };
    let first = run::baseline(ground, scenario).await?;
    let again = attempt(ground, scenario, None, Some(&first.peace()), None).await?;
    let mut strikes = stable(&first.strikes, &run::strikes(&again));
    strikes.retain(|strike| scenario.is_for(strike));
    let strikes = choose(strikes, &plan.choice);
    for outcome in [first.outcome.clone(), again] {
        account.record(&outcome);
        played.diverged.extend(Some(outcome).filter(Outcome::diverged));
    }
    // Whatever follows would be compared with a story that goes wrong by itself.
    let mut left = if played.diverged.is_empty() { strikes } else { Vec::new() };
    let (all, mut done) = (left.len(), 0);
    for _ in 0..ROUNDS {
        run::run(ground, scenario, &first, std::mem::take(&mut left), plan.parallel, |outcome| {
            account.record(&outcome);
            left.extend(played.add(outcome));
            done += 1;
            tell(done.min(all), all);
            true
        })
        .await?;
    }
    played.missed = left;
    played.took = began.elapsed();
    Ok(played)
}

impl Played {
    /// Adds an outcome; returns the strike whose point did not come up.
    fn add(&mut self, outcome: Outcome) -> Option<Strike> {
        self.longest = self.longest.max(outcome.took);
        let strike = outcome.strike.as_ref()?;
        if !outcome.struck && !outcome.diverged() {
            return Some(strike.clone());
        }
        let (tried, diverged) = self.faults.entry(strike.fault).or_default();
        *tried += 1;
        if outcome.diverged() {
            *diverged += 1;
            self.diverged.push(outcome);
        }
        None
    }
}

/// Those that came up in both plays: what two changes in a row wake the operator for once or twice is not worth a name.
fn stable(first: &[Strike], again: &[Strike]) -> Vec<Strike> {
    let again: HashSet<&Strike> = again.iter().collect();
    first.iter().filter(|strike| again.contains(strike)).cloned().collect()
}

fn choose(strikes: Vec<Strike>, choice: &Choice) -> Vec<Strike> {
    match choice {
        Choice::All => strikes,
        Choice::By(word) => {
            strikes.into_iter().filter(|strike| strike.fault.to_string().contains(word)).collect()
        }
        // By its name alone: a person typed it, who may know better.
        Choice::One(strike) => vec![strike.clone()],
        Choice::Some(limit, tried) => spread(&strikes, *limit, tried.clone()),
    }
}

/// One strike of each point, each time with the fault that was taken least; then one with each fault that was never taken.
fn spread(strikes: &[Strike], limit: usize, mut taken: BTreeMap<Fault, usize>) -> Vec<Strike> {
    let mut points: Vec<_> = strikes.iter().map(|strike| &strike.point).collect();
    let mut known = HashSet::new();
    points.retain(|point| known.insert(*point));
    // Of more points than may be tried, those that lie evenly between the first and the last.
    let step = (points.len().max(1)).div_ceil(limit.max(1));
    let mut chosen = Vec::new();
    for point in points.into_iter().step_by(step) {
        let faults = strikes.iter().filter(|strike| strike.point == *point);
        let rarest = faults.min_by_key(|strike| taken.get(&strike.fault).copied().unwrap_or_default());
        if let Some(strike) = rarest {
            *taken.entry(strike.fault).or_default() += 1;
            chosen.push(strike.clone());
        }
    }
    for strike in strikes {
        if let Entry::Vacant(never) = taken.entry(strike.fault) {
            never.insert(1);
            chosen.push(strike.clone());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::Point;

    fn strikes(points: u32) -> Vec<Strike> {
        let point = |occurrence| Point { name: "patch verticebackups/status shop".into(), occurrence };
        (1..=points)
            .flat_map(|number| Fault::WRITES.map(|fault| Strike { point: point(number), fault }))
            .collect()
    }

    #[test]
    fn a_few_strikes_take_every_fault_and_distinct_points() {
        let chosen = spread(&strikes(12), 6, BTreeMap::new());
        assert_eq!(chosen.len(), 6);
        let faults: HashSet<_> = chosen.iter().map(|strike| strike.fault).collect();
        let points: HashSet<_> = chosen.iter().map(|strike| &strike.point).collect();
        assert_eq!((faults.len(), points.len()), (6, 6));
        assert!(spread(&strikes(12), 100, BTreeMap::new()).len() == 12);
        let all_but_two = Fault::WRITES[2..].iter().map(|fault| (*fault, 1));
        let chosen = spread(&strikes(1), 1, all_but_two.collect());
        let faults: Vec<_> = chosen.iter().map(|strike| strike.fault).collect();
        assert_eq!(faults, [Fault::KillBefore, Fault::KillAfter]);
    }

    #[test]
    fn only_what_comes_up_in_both_plays_is_struck() {
        assert_eq!(stable(&strikes(3), &strikes(2)), strikes(2));
    }
}
