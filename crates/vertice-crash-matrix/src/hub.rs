//! What all parts of one trial report to: requests are named, recorded and struck here, and here is known whether anything goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vertice_controller::client::Call;
use vertice_controller::{Clock as _, ManualClock};

use crate::error::Error;
use crate::fault::{Fault, Strike};
use crate::people::Upset;
use crate::point::{self, Occurrences, Point};

/// What became of a request, as far as its sender could know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was sent; nothing was heard since: its process was killed, or the connection broke by itself.
    Sent,
    /// The server answered with this status.
    Answered(u16),
    /// It never left: the matrix answered it, or killed its process before.
    Withheld,
}

/// One request of a trial.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub point: Point,
    /// The request, when it went to the API server; none for the object store.
    pub call: Option<Call>,
    /// What became of it.
    pub fate: Fate,
    /// How often the story had rested before.
    pub rests: usize,
}

impl Seen {
    /// Whether it may change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.call.as_ref().is_none_or(Call::is_write)
    }
}

/// A kill that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Operator,
    Agent,
}

/// Shared by the parts of one trial.
#[derive(Debug)]
pub struct Hub {
    /// The injected clock.
    pub clock: ManualClock,
    inner: Mutex<Inner>,
    kill: Notify,
}

#[derive(Debug)]
struct Inner {
    strike: Option<Strike>,
    struck: bool,
    occurrences: Occurrences,
    seen: Vec<Seen>,
    /// Versions of objects that watches told of, by the name of the event.
    versions: HashMap<String, Vec<String>>,
    /// Requests under way, by the one that waits for them.
    open: HashMap<u64, usize>,
    active: Instant,
    /// How many of the matrix's own controllers are at something.
    working: usize,
    victims: Vec<Victim>,
    /// Of each rest of the story, the custom resources that were there.
    rests: Vec<Vec<&'static str>>,
    /// What a person did whom the strike stands for.
    upset: Option<Upset>,
    /// Why one of the matrix's own parts cannot go on.
    broken: Option<Error>,
}

/// One of the matrix's own controllers is at something, until this is dropped.
#[derive(Debug)]
pub(crate) struct Working<'a>(&'a Hub);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.working -= 1;
        inner.active = Instant::now();
    }
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Pass,
    Answer(u16),
    /// After it took effect.
    LoseAnswer,
    /// Before it is sent: never to return.
    DieNow,
    /// After it took effect: never to return.
    DieAfter,
    /// It passes when a person has done this.
    First(Fault),
    /// It passes, and a person does this before its answer is seen.
    Then(Fault),
}

impl Hub {
    /// For a trial that is to be struck so, or not at all.
    #[must_use]
    pub fn new(clock: ManualClock, strike: Option<Strike>) -> Arc<Self> {
        let inner = Inner {
            strike,
            struck: false,
            occurrences: Occurrences::default(),
            seen: Vec::new(),
            versions: HashMap::new(),
            open: HashMap::new(),
            active: Instant::now(),
            working: 0,
            victims: Vec::new(),
            rests: Vec::new(),
            upset: None,
            broken: None,
        };
        Arc::new(Self { clock, inner: Mutex::new(inner), kill: Notify::new() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is about to leave. Returns its number in the record, and what to do with it.
    pub(crate) fn leaves(&self, life: u64, name: String, call: Option<&Call>) -> (usize, Order) {
        let mut inner = self.inner();
        inner.active = Instant::now();
        let point = inner.occurrences.next(name);
        let hit = inner.strike.as_ref().filter(|strike| !inner.struck && strike.point == point);
        let order = match hit.map(|strike| strike.fault) {
            Some(Fault::KillBefore) => Order::DieNow,
            Some(Fault::KillAfter) => Order::DieAfter,
            Some(Fault::Answer(status)) => Order::Answer(status),
            Some(Fault::LoseAnswer) => Order::LoseAnswer,
            Some(fault @ (Fault::RemakeBefore | Fault::DeleteBefore | Fault::Replace)) => Order::First(fault),
            Some(fault @ (Fault::RemakeAfter | Fault::DeleteAfter)) => Order::Then(fault),
            // Requests are not struck as events are.
            Some(Fault::Skip | Fault::Repeat | Fault::Break | Fault::Expire | Fault::Lag) | None => {
                Order::Pass
            }
        };
        inner.struck |= order != Order::Pass;
        let withheld = matches!(order, Order::DieNow | Order::Answer(_));
        let fate = if withheld { Fate::Withheld } else { Fate::Sent };
        let rests = inner.rests.len();
        inner.seen.push(Seen { point, call: call.cloned(), fate, rests });
        // One that a person comes before is not under way yet: see [`Hub::goes`].
        if !withheld && !matches!(order, Order::First(_)) {
            *inner.open.entry(life).or_default() += 1;
        }
        let number = inner.seen.len() - 1;
        (number, order)
    }

    /// A request leaves that waited for a person.
    pub(crate) fn goes(&self, life: u64) {
        let mut inner = self.inner();
        inner.active = Instant::now();
        *inner.open.entry(life).or_default() += 1;
    }

    /// The story rests, and these custom resources are there. Returns the one that a person makes again now.
    pub(crate) fn rests(&self, there: Vec<&'static str>) -> Option<(Fault, &'static str)> {
        let mut inner = self.inner();
        inner.rests.push(there.clone());
        let strike =
            inner.strike.as_ref().filter(|strike| strike.point.occurrence as usize == inner.rests.len())?;
        let fault = strike.fault;
        let hit = there.into_iter().find(|resource| strike.point.name == point::of_rest(resource))?;
        inner.struck = true;
        Some((fault, hit))
    }

    /// Of each rest of the story, the custom resources that were there.
    #[must_use]
    pub fn rested(&self) -> Vec<Vec<&'static str>> {
        self.inner().rests.clone()
    }

    /// The request that was struck.
    pub(crate) fn hit(&self) -> Option<Seen> {
        let inner = self.inner();
        let point = &inner.strike.as_ref()?.point;
        inner.seen.iter().find(|seen| seen.point == *point).cloned()
    }

    /// Notes what a person did, or that there was nothing to do it to.
    pub(crate) fn upsets(&self, upset: Option<Upset>) {
        let mut inner = self.inner();
        inner.struck = upset.is_some();
        inner.upset = upset;
    }

    /// What a person did whom the strike stands for.
    pub(crate) fn upset(&self) -> Option<Upset> {
        self.inner().upset.clone()
    }

    /// One of the matrix's own parts cannot go on.
    pub(crate) fn breaks(&self, error: Error) {
        self.inner().broken.get_or_insert(error);
    }

    /// Why one of the matrix's own parts cannot go on; told once.
    pub(crate) fn broken(&self) -> Option<Error> {
        self.inner().broken.take()
    }

    /// The server answered request `number`.
    pub(crate) fn answered(&self, life: u64, number: usize, status: u16) {
        if let Some(seen) = self.inner().seen.get_mut(number) {
            seen.fate = Fate::Answered(status);
        }
        self.abandoned(life);
    }

    /// Nobody waits for the answer to a request any more; unless it was answered, nobody knows whether it took effect.
    pub(crate) fn abandoned(&self, life: u64) {
        let mut inner = self.inner();
        inner.active = Instant::now();
        if let Some(open) = inner.open.get_mut(&life) {
            *open = open.saturating_sub(1);
        }
    }

    /// A watch is about to tell of a version of an object. Returns with what to strike it: every watch that tells of this version is
    /// struck.
    pub(crate) fn told(&self, name: &str, version: &str) -> Option<Fault> {
        let mut inner = self.inner();
        inner.active = Instant::now();
        let versions = inner.versions.entry(name.to_owned()).or_default();
        let known = versions.iter().position(|known| known == version);
        let number = known.unwrap_or_else(|| {
            versions.push(version.to_owned());
            versions.len() - 1
        });
        let strike = inner.strike.as_ref()?;
        let hit = strike.point.name == name && strike.point.occurrence as usize == number + 1;
        let fault = hit.then_some(strike.fault);
        inner.struck |= hit;
        fault
    }

    /// What watches told of: each name with the number of its versions.
    #[must_use]
    pub fn told_of(&self) -> Vec<(String, usize)> {
        let inner = self.inner();
        let mut told: Vec<_> =
            inner.versions.iter().map(|(name, versions)| (name.clone(), versions.len())).collect();
        told.sort();
        told
    }

    /// Whoever `life` was is no more: nobody waits for its requests.
    pub(crate) fn died(&self, life: u64) {
        let mut inner = self.inner();
        inner.active = Instant::now();
        inner.open.remove(&life);
    }

    /// Orders a kill.
    pub(crate) fn kill(&self, victim: Victim) {
        self.inner().victims.push(victim);
        self.kill.notify_one();
    }

    /// Waits for a kill that was ordered.
    pub(crate) async fn next_victim(&self) -> Victim {
        loop {
            if let Some(victim) = self.inner().victims.pop() {
                return victim;
            }
            self.kill.notified().await;
        }
    }

    /// Something happened that the operator will hear of.
    pub fn stir(&self) {
        self.inner().active = Instant::now();
    }

    /// Whether the point that was to be struck was met.
    #[must_use]
    pub fn struck(&self) -> bool {
        self.inner().struck
    }

    /// All requests so far, in their order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.inner().seen.clone()
    }

    /// How many requests there were so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner().seen.len()
    }

    /// Says that one of the matrix's own controllers is at something.
    pub(crate) fn working(&self) -> Working<'_> {
        self.inner().working += 1;
        Working(self)
    }

    /// Whether the operator is at rest: nothing was asked, answered or changed for `window`, and nobody waits for less than [`SHORT`].
    #[must_use]
    pub fn is_still(&self, window: Duration) -> bool {
        let waits = self.clock.next_wake().is_some_and(|wake| wake <= SHORT);
        let inner = self.inner();
        let open = inner.open.iter().any(|(life, open)| *life != AGENT && *open > 0);
        !waits && !open && inner.active.elapsed() >= window
    }

    /// Whether the operator is at rest, no agent runs and no CronJob, Job or pod waits for anything.
    #[must_use]
    pub fn is_quiet(&self, window: Duration) -> bool {
        self.is_still(window) && self.inner().working == 0
    }

    /// Lets short waits (debounce, first backoffs) pass as they come, for ever. The clock stands still otherwise, so that all times
    /// that a trial writes down are the same in every run.
    pub(crate) async fn tick(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            if let Some(wake) = self.clock.next_wake().filter(|wake| *wake <= SHORT) {
                self.clock.advance(wake);
            }
        }
    }
}

/// The agent's life, for [`Hub::leaves`]: trials run one agent at a time.
pub(crate) const AGENT: u64 = 0;
/// Waits of at most so much pass by themselves.
pub(crate) const SHORT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(4);

/// Moves a clock forward to an instant; returns whether it was not there yet.
pub(crate) fn advance_to(clock: &ManualClock, instant: jiff::Timestamp) -> bool {
    let Ok(left) = Duration::try_from(instant.duration_since(clock.now())) else { return false };
    clock.advance(left);
    !left.is_zero()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vertice_controller::client::Verb;

    use super::*;

    fn hub(strike: &str) -> Arc<Hub> {
        Hub::new(ManualClock::new(Timestamp::UNIX_EPOCH), Some(strike.parse().unwrap()))
    }

    #[test]
    fn a_custom_resource_that_is_not_there_cannot_be_made_again() {
        let hub = hub("remake-after/rest verticerestores#2");
        assert_eq!(hub.rests(vec!["verticebackups", "verticerestores"]), None);
        assert_eq!(hub.rests(vec!["verticebackups"]), None);
        assert!(!hub.struck());
        let hub = self::hub("remake-after/rest verticerestores#1");
        let both = vec!["verticebackups", "verticerestores"];
        assert_eq!(hub.rests(both), Some((Fault::RemakeAfter, "verticerestores")));
    }

    #[test]
    fn a_point_where_there_is_nothing_to_delete_is_not_met() {
        let hub = hub("delete-before/patch jobs back-restore#1");
        let call = Call {
            verb: Verb::Patch,
            group: "batch".to_owned(),
            version: "v1".to_owned(),
            resource: "jobs".to_owned(),
            subresource: None,
            namespace: None,
            name: Some("back-restore".to_owned()),
            role: None,
            apply: false,
            dry_run: false,
        };
        let (_, order) = hub.leaves(1, "patch jobs back-restore".to_owned(), Some(&call));
        assert_eq!((order, hub.struck()), (Order::First(Fault::DeleteBefore), true));
        hub.upsets(None);
        assert!(!hub.struck() && hub.upset().is_none());
        assert_eq!(hub.hit().unwrap().rests, 0);
    }
}
