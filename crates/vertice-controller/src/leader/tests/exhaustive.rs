//! Tries every order in which two candidates, an API server and the time can move, and looks after each move whether both may act.
//!
//! A candidate that is given no move is one that is paused (SIGSTOP, garbage collection); a request may be answered, may be lost
//! before or after it took effect, and may even take effect long after its sender gave up.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use super::{
    super::{
        Timing,
        machine::{Machine, Step},
    },
    holder,
};

const TIMING: Timing = Timing {
    lease_duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_secs(1),
};

/// Where the exploration ends.
const LAST_SECOND: u64 = 4;
const LAST_VERSION: u64 = 3;

/// A request on its way.
#[derive(Debug, Clone)]
struct Request {
    step: Arc<Step>,
    sent: Duration,
    /// What the server said, once it did.
    answer: Option<Result<Option<Arc<Lease>>, ()>>,
}

#[derive(Debug, Clone)]
struct Candidate {
    machine: Machine,
    request: Option<Request>,
    /// Given up by its sender, may still reach the server.
    orphan: Option<Arc<Step>>,
}

#[derive(Debug, Clone)]
struct World {
    now: u64,
    lease: Option<Arc<Lease>>,
    version: u64,
    candidates: [Candidate; 2],
}

/// A fault built into the driver, to see that the exploration finds it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Counts the lease from the answer, as a naive driver would.
    CountsFromAnswer,
    /// The server takes any replacement, whatever version it is based on.
    NoCompareAndSwap,
}

fn wall() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

impl World {
    fn new() -> Self {
        let candidate = |name: &str| Candidate {
            machine: Machine::new(name.into(), TIMING),
            request: None,
            orphan: None,
        };
        Self { now: 0, lease: None, version: 0, candidates: [candidate("a"), candidate("b")] }
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.now)
    }

    /// The server carries out a request.
    fn serve(&mut self, step: &Step, fault: Fault) -> Result<Option<Arc<Lease>>, ()> {
        let (wanted, fits) = match step {
            Step::Read | Step::Wait => return Ok(self.lease.clone()),
            Step::Create(lease) => (lease, self.lease.is_none()),
            Step::Replace(lease) => {
                let version = |lease: &Lease| lease.metadata.resource_version.clone();
                let same = self.lease.as_ref().is_some_and(|present| version(present) == version(lease));
                (lease, same || (fault == Fault::NoCompareAndSwap && self.lease.is_some()))
            }
        };
        if !fits {
            return Err(());
        }
        self.version += 1;
        let mut lease = Lease::clone(wanted);
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(Arc::new(lease));
        Ok(self.lease.clone())
    }

    /// All worlds that can come next.
    fn next(&self, fault: Fault) -> Vec<World> {
        let mut worlds = Vec::new();
        if self.now < LAST_SECOND {
            worlds.push(World { now: self.now + 1, ..self.clone() });
        }
        // Both are alike, so it is always `a` that gets the lease first.
        let candidates = if self.version == 0 { 0..1 } else { 0..2 };
        for i in candidates {
            self.moves_of(i, fault, &mut worlds);
        }
        worlds
    }

    fn moves_of(&self, i: usize, fault: Fault, worlds: &mut Vec<World>) {
        let now = self.time();
        let Some(request) = &self.candidates[i].request else {
            // After the last version no attempt begins any more; those on their way still end.
            if self.version < LAST_VERSION {
                let mut world = self.clone();
                let step = world.candidates[i].machine.begin(now, wall());
                world.candidates[i].request = Some(Request { step: Arc::new(step), sent: now, answer: None });
                worlds.push(world);
            }
            return self.late_arrival(i, fault, worlds);
        };
        if request.answer.is_none() {
            // It reaches the server …
            let mut world = self.clone();
            let answer = world.serve(&request.step, fault);
            world.candidates[i].request = Some(Request { answer: Some(answer), ..request.clone() });
            worlds.push(world);
        } else {
            // … its answer arrives …
            let mut world = self.clone();
            world.candidates[i].request = None;
            world.deliver(i, request, fault);
            worlds.push(world);
        }
        // … or its sender gives it up, not knowing what became of it. (A read that is lost is as good as one never sent.)
        if !matches!(*request.step, Step::Read | Step::Wait) {
            let mut world = self.clone();
            world.candidates[i].request = None;
            world.candidates[i].machine.failed();
            // One late request at a time is enough to explore.
            if request.answer.is_none() && self.candidates.iter().all(|candidate| candidate.orphan.is_none())
            {
                world.candidates[i].orphan = Some(Arc::clone(&request.step));
            }
            worlds.push(world);
        }
        self.late_arrival(i, fault, worlds);
    }

    fn late_arrival(&self, i: usize, fault: Fault, worlds: &mut Vec<World>) {
        if let Some(orphan) = &self.candidates[i].orphan {
            let mut world = self.clone();
            world.candidates[i].orphan = None;
            let _ = world.serve(orphan, fault);
            worlds.push(world);
        }
    }

    fn deliver(&mut self, i: usize, request: &Request, fault: Fault) {
        let now = self.time();
        let machine = &mut self.candidates[i].machine;
        match (&*request.step, request.answer.clone()) {
            (_, None | Some(Err(()))) => machine.failed(),
            (Step::Read, Some(Ok(lease))) => {
                let step = machine.read(lease.map(Arc::unwrap_or_clone), now, wall());
                if step != Step::Wait {
                    self.candidates[i].request =
                        Some(Request { step: Arc::new(step), sent: now, answer: None });
                }
            }
            (_, Some(Ok(lease))) => {
                let sent = if fault == Fault::CountsFromAnswer { now } else { request.sent };
                machine.written(Arc::unwrap_or_clone(lease.unwrap()), sent, now);
            }
        }
    }

    fn leaders(&self) -> [bool; 2] {
        [0, 1].map(|i| self.candidates[i].machine.leads(self.time()))
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.now, self.version, self.lease.as_deref().map(name)).hash(&mut hasher);
        for candidate in &self.candidates {
            candidate.machine.digest(&mut hasher);
            candidate.orphan.as_ref().map(|step| step_name(step)).hash(&mut hasher);
            let request = candidate.request.as_ref().map(|request| {
                let answer = request
                    .answer
                    .as_ref()
                    .map(|answer| answer.as_ref().map(|lease| lease.as_deref().map(name)));
                (step_name(&request.step), request.sent, answer)
            });
            request.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Tells leases apart: the server gives each a version of its own, the holder is for the ones on their way.
fn name(lease: &Lease) -> (Option<String>, String) {
    (lease.metadata.resource_version.clone(), holder(lease).to_owned())
}

fn step_name(step: &Step) -> (u8, Option<(Option<String>, String)>) {
    match step {
        Step::Read => (0, None),
        Step::Wait => (1, None),
        Step::Create(lease) => (2, Some(name(lease))),
        Step::Replace(lease) => (3, Some(name(lease))),
    }
}

#[derive(Debug, Default)]
struct Found {
    worlds: usize,
    two_leaders: Option<World>,
    /// Both led, one after the other.
    handovers: usize,
}

fn explore(fault: Fault) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut open = VecDeque::from([World::new()]);
    while let Some(world) = open.pop_front() {
        if !seen.insert(world.digest()) {
            continue;
        }
        found.worlds += 1;
        let leaders = world.leaders();
        if leaders == [true, true] {
            found.two_leaders = Some(world);
            return found;
        }
        let transitions = world.lease.as_ref().and_then(|lease| lease.spec.as_ref()?.lease_transitions);
        if leaders.contains(&true) && transitions.is_some_and(|transitions| transitions > 0) {
            found.handovers += 1;
            let name = world.lease.as_deref().map(holder);
            assert!(matches!(name, Some("a" | "b")));
        }
        open.extend(world.next(fault));
    }
    found
}

#[test]
fn two_candidates_never_lead_at_once_in_any_order_of_events() {
    let found = explore(Fault::None);
    assert!(
        found.two_leaders.is_none(),
        "two leaders after {} worlds: {:#?}",
        found.worlds,
        found.two_leaders
    );
    // Not because nothing happened.
    println!("{} worlds, {} handovers", found.worlds, found.handovers);
    assert!(found.worlds > 10_000, "{} worlds", found.worlds);
    assert!(found.handovers > 100, "{} handovers", found.handovers);
}

#[test]
fn the_exploration_finds_a_lease_that_is_counted_from_the_answer() {
    assert!(explore(Fault::CountsFromAnswer).two_leaders.is_some());
}

#[test]
fn the_exploration_finds_a_store_without_compare_and_swap() {
    assert!(explore(Fault::NoCompareAndSwap).two_leaders.is_some());
}
