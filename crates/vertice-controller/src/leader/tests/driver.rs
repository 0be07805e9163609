//! The driver with a store in memory and a clock that stands still unless moved.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;

use super::{super::*, holder};
use crate::clock::ManualClock;

/// A Lease that two candidates share, as an API server keeps it.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<(Option<Lease>, u64)>>);

impl Shared {
    fn put(&self, mut lease: Lease, fits: impl Fn(Option<&Lease>) -> bool) -> Result<Lease, StoreError> {
        let mut state = self.0.lock().unwrap();
        if !fits(state.0.as_ref()) {
            return Err(StoreError::Conflict);
        }
        state.1 += 1;
        lease.metadata.resource_version = Some(state.1.to_string());
        state.0 = Some(lease.clone());
        Ok(lease)
    }

    fn holder(&self) -> String {
        self.0.lock().unwrap().0.as_ref().map(holder).unwrap_or_default().to_owned()
    }

    /// Somebody edits the Lease by hand.
    fn steal(&self, name: &str) {
        let mut lease = self.0.lock().unwrap().0.clone().unwrap();
        lease.spec.as_mut().unwrap().holder_identity = Some(name.into());
        self.put(lease, |_| true).unwrap();
    }
}

/// One candidate's way to the Lease.
#[derive(Debug, Clone, Default)]
struct Connection {
    lease: Shared,
    cut: Arc<AtomicBool>,
}

impl Connection {
    async fn pass(&self) {
        if self.cut.load(Ordering::SeqCst) {
            futures::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl LeaseStore for Connection {
    async fn get(&self) -> Result<Option<Lease>, StoreError> {
        self.pass().await;
        Ok(self.lease.0.lock().unwrap().0.clone())
    }

    async fn create(&self, lease: Lease) -> Result<Lease, StoreError> {
        self.pass().await;
        self.lease.put(lease, |present| present.is_none())
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, StoreError> {
        self.pass().await;
        let version = lease.metadata.resource_version.clone();
        self.lease
            .put(lease, |present| present.is_some_and(|present| present.metadata.resource_version == version))
    }
}

/// A candidate that runs, and what is seen of it.
struct Running {
    connection: Connection,
    leadership: Leadership,
    /// How many of its work futures are alive.
    working: Arc<AtomicUsize>,
    /// How many there have been.
    started: Arc<AtomicUsize>,
    stop: CancellationToken,
    /// Its work ends only once this is set, after a stop was asked for.
    finish: CancellationToken,
    task: tokio::task::JoinHandle<Option<&'static str>>,
}

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Running {
    fn start(name: &str, lease: &Shared, clock: &ManualClock) -> Self {
        let connection = Connection { lease: lease.clone(), cut: Arc::default() };
        let leadership = Leadership::new(Arc::new(clock.clone()));
        let election = Election::new(
            "test",
            name.into(),
            connection.clone(),
            Timing::default(),
            leadership.clone(),
            Metrics::new(),
        )
        .unwrap();
        let (working, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (stop, finish) = (CancellationToken::new(), CancellationToken::new());
        let (alive, starts, may_finish) = (Arc::clone(&working), Arc::clone(&started), finish.clone());
        let task = tokio::spawn(election.run(stop.clone(), move |asked| {
            let (alive, may_finish) = (Arc::clone(&alive), may_finish.clone());
            starts.fetch_add(1, Ordering::SeqCst);
            async move {
                alive.fetch_add(1, Ordering::SeqCst);
                let _alive = Alive(alive);
                asked.cancelled().await;
                may_finish.cancelled().await;
                "done"
            }
        }));
        Self { connection, leadership, working, started, stop, finish, task }
    }

    fn works(&self) -> bool {
        self.working.load(Ordering::SeqCst) > 0
    }
}

/// Lets every task run until all of them wait.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

async fn pass(clock: &ManualClock, time: Duration) {
    let step = Duration::from_millis(100);
    let mut left = time;
    while !left.is_zero() {
        clock.advance(step.min(left));
        left = left.saturating_sub(step);
        settle().await;
    }
}

fn clock() -> ManualClock {
    ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap())
}

const SECOND: Duration = Duration::from_secs(1);

/// `a` leads, `b` stands by.
async fn two() -> (ManualClock, Shared, Running, Running) {
    let (clock, lease) = (clock(), Shared::default());
    let a = Running::start("a", &lease, &clock);
    settle().await;
    let b = Running::start("b", &lease, &clock);
    pass(&clock, 5 * SECOND).await;
    assert!(a.works() && a.leadership.leads() && !b.works() && !b.leadership.leads());
    (clock, lease, a, b)
}

#[tokio::test]
async fn the_leader_keeps_its_lease_for_as_long_as_it_renews() {
    let (clock, lease, a, b) = two().await;
    for _ in 0..60 {
        pass(&clock, SECOND).await;
        assert!(a.works() && !b.works());
    }
    assert_eq!(lease.holder(), "a");
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_before_the_other_one_starts() {
    let (clock, lease, a, b) = two().await;
    a.connection.cut.store(true, Ordering::SeqCst);
    let mut gap = 0;
    for _ in 0..300 {
        pass(&clock, SECOND / 10).await;
        assert!(!(a.works() && b.works()), "both work");
        assert!(!(a.leadership.leads() && b.leadership.leads()), "both may write");
        gap += u32::from(!a.works() && !b.works());
    }
    assert!(b.works() && lease.holder() == "b");
    assert!(gap >= 20, "there were only {gap} tenths of a second between the leaders");
    // The connection comes back: the old leader stands by.
    a.connection.cut.store(false, Ordering::SeqCst);
    pass(&clock, 20 * SECOND).await;
    assert!(!a.works() && b.works());
}

#[tokio::test]
async fn a_leader_that_was_frozen_may_not_write_when_it_wakes_up() {
    let (clock, lease, a, b) = two().await;
    // Time passes at once, as for a stopped process: no timer has fired yet, the fence knows all the same.
    clock.advance(11 * SECOND);
    assert!(!a.leadership.leads());
    assert!(a.works(), "its tasks did not run yet");
    settle().await;
    // Nobody has taken the lease yet, so it may win it again, but with its work begun anew.
    assert_eq!(a.started.load(Ordering::SeqCst), 2, "its work was dropped before it could go on");
    assert!(!b.works());
    pass(&clock, 30 * SECOND).await;
    assert!(a.works() != b.works());
    assert_eq!(lease.holder(), if a.works() { "a" } else { "b" });
}

#[tokio::test]
async fn a_stolen_lease_ends_the_work_at_the_next_renewal() {
    let (clock, lease, a, b) = two().await;
    lease.steal("intruder");
    pass(&clock, 3 * SECOND).await;
    assert!(!a.works() && !a.leadership.leads() && !b.works());
    // The intruder never renews: someone takes over after the lease duration.
    pass(&clock, 20 * SECOND).await;
    assert!(a.works() != b.works());
}

#[tokio::test]
async fn a_stop_lets_the_work_finish_under_the_lease_and_then_hands_over_at_once() {
    let (clock, lease, a, b) = two().await;
    a.stop.cancel();
    pass(&clock, 30 * SECOND).await;
    assert!(a.works() && a.leadership.leads(), "renewed while its work finishes");
    assert!(!b.works());
    a.finish.cancel();
    settle().await;
    assert!(!a.leadership.leads());
    assert_eq!(lease.holder(), "", "released");
    assert_eq!(a.task.await.unwrap(), Some("done"));
    pass(&clock, 3 * SECOND).await;
    assert!(b.works(), "no need to wait for the lease duration");
}

#[tokio::test]
async fn a_candidate_that_stands_by_stops_without_touching_the_lease() {
    let (clock, lease, a, b) = two().await;
    b.stop.cancel();
    pass(&clock, SECOND).await;
    assert_eq!(b.task.await.unwrap(), None);
    assert!(a.works() && lease.holder() == "a");
}

#[tokio::test]
async fn a_deleted_lease_is_not_taken_while_its_holder_may_not_have_noticed() {
    let (clock, lease, a, b) = two().await;
    a.connection.cut.store(true, Ordering::SeqCst);
    lease.0.lock().unwrap().0 = None;
    for _ in 0..250 {
        pass(&clock, SECOND / 10).await;
        assert!(!(a.leadership.leads() && b.leadership.leads()), "both may write");
    }
    assert!(b.works());
}

#[test]
fn times_that_do_not_fit_together_are_refused() {
    let check = |lease, renew, retry| {
        let timing = Timing {
            lease_duration: lease * SECOND,
            renew_deadline: renew * SECOND,
            retry_period: retry * SECOND,
        };
        timing.check().map_err(|error| error.to_string())
    };
    assert_eq!(check(15, 10, 2), Ok(()));
    let long = "the renew deadline (15 s) must be shorter than the lease duration (15 s)";
    assert_eq!(check(15, 15, 2), Err(long.into()));
    assert_eq!(
        check(15, 2, 2),
        Err("the retry period (2 s) must be shorter than the renew deadline (2 s)".into())
    );
    let half = Timing { lease_duration: Duration::from_millis(1500), ..Timing::default() };
    assert!(half.check().is_err());
}

#[test]
fn identities_are_unique_to_a_process() {
    assert_ne!(identity(), identity());
}
