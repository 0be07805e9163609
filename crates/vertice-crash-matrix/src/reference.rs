//! What a trial is compared with: the story in peace; and when a person makes a custom resource again, which loses what it remembered,
//! the story in which that happens while it rests, just before or just after.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::error::Result;
use crate::fault::{Fault, Strike};
use crate::ground::Ground;
use crate::hub::Seen;
use crate::people::Upset;
use crate::point::{self, Point};
use crate::run::{Outcome, attempt, strikes};
use crate::scenario::Scenario;

/// A story in peace.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// What it came to.
    pub outcome: Outcome,
    /// Everything that it can be struck with.
    pub strikes: Vec<Strike>,
    rested: Arc<Rested>,
}

/// The states of which a trial must come to one.
#[derive(Clone, Debug)]
pub struct Expected {
    /// When nobody made a custom resource again.
    peace: Vec<Value>,
    /// When somebody did.
    remade: Vec<Value>,
    /// How often the story had rested before that.
    rests: Option<usize>,
}

impl Expected {
    /// After what a person did, if anybody did anything.
    pub(crate) fn of(&self, upset: Option<&Upset>) -> &[Value] {
        if upset.is_some_and(|upset| upset.fault.remakes()) { &self.remade } else { &self.peace }
    }

    /// Whether a request that came when the story had rested so often came in the same step of it as in peace.
    pub(crate) fn is_of_the_step(&self, rests: usize) -> bool {
        self.rests.is_none_or(|expected| expected == rests)
    }
}

/// What the story comes to when a custom resource is made again while it rests, as far as it was played.
type Rested = Mutex<HashMap<Point, Arc<OnceCell<Outcome>>>>;

impl Baseline {
    pub(crate) fn new(outcome: Outcome) -> Self {
        let strikes = strikes(&outcome);
        Self { outcome, strikes, rested: Arc::default() }
    }

    /// That of the story in peace.
    #[must_use]
    pub fn peace(&self) -> Expected {
        Expected { peace: vec![self.outcome.state.clone()], remade: Vec::new(), rests: None }
    }

    /// What is expected of a trial that is struck so.
    pub(crate) async fn expected(
        &self,
        ground: &Ground,
        story: &dyn Scenario,
        strike: Option<&Strike>,
    ) -> Result<Expected> {
        let mut expected = self.peace();
        let Some(strike) = strike.filter(|strike| strike.fault.remakes()) else { return Ok(expected) };
        let points = if is_rest(strike) {
            vec![strike.point.clone()]
        } else {
            expected.rests = self.request(&strike.point).map(|request| request.rests);
            self.around(&strike.point)
        };
        for point in points {
            let there =
                point.occurrence.checked_sub(1).and_then(|rest| self.outcome.rests.get(rest as usize));
            let there = there.is_some_and(|there| there.iter().any(|one| point::of_rest(one) == point.name));
            expected.remade.push(if there {
                self.at_rest(ground, story, &point).await?.state
            } else {
                self.outcome.state.clone()
            });
        }
        Ok(expected)
    }

    /// The story in which a custom resource is made again at this rest. Played once.
    pub(crate) async fn at_rest(
        &self,
        ground: &Ground,
        story: &dyn Scenario,
        rest: &Point,
    ) -> Result<Outcome> {
        let cell = {
            let mut rested = self.rested.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(rested.entry(rest.clone()).or_default())
        };
        let strike = Strike { point: rest.clone(), fault: Fault::RemakeAfter };
        cell.get_or_try_init(|| attempt(ground, story, Some(&strike), None, None)).await.cloned()
    }

    fn request(&self, point: &Point) -> Option<&Seen> {
        self.outcome.seen.iter().find(|seen| seen.point == *point)
    }

    /// The story's rests before and after a request. That before the first one, or after the last, is the story in peace.
    fn around(&self, point: &Point) -> Vec<Point> {
        let request = self.request(point);
        let resource = request.and_then(|seen| point::about(seen.call.as_ref()?));
        let Some((request, resource)) = request.zip(resource) else { return Vec::new() };
        let before = u32::try_from(request.rests).unwrap_or(u32::MAX);
        let name = point::of_rest(resource);
        [before, before.saturating_add(1)].map(|occurrence| Point { name: name.clone(), occurrence }).into()
    }
}

/// Whether a strike comes while the story rests.
pub(crate) fn is_rest(strike: &Strike) -> bool {
    strike.point.name.starts_with("rest ")
}
