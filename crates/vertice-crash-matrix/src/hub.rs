//! What all parts of one trial report to: requests are named, recorded and struck here, and here is known whether anything goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vertice_controller::client::Call;
use vertice_controller::{Clock as _, ManualClock};

use crate::fault::{Fault, Strike};
use crate::point::{Occurrences, Point};

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
            // Requests are not struck as events are.
            Some(Fault::Skip | Fault::Repeat | Fault::Break | Fault::Expire | Fault::Lag) | None => {
                Order::Pass
            }
        };
        inner.struck |= order != Order::Pass;
        let withheld = matches!(order, Order::DieNow | Order::Answer(_));
        let fate = if withheld { Fate::Withheld } else { Fate::Sent };
        inner.seen.push(Seen { point, call: call.cloned(), fate });
        if !withheld {
            *inner.open.entry(life).or_default() += 1;
        }
        let number = inner.seen.len() - 1;
        (number, order)
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
