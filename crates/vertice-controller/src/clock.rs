//! Time that tests can move.
//!
//! Two readings, because they answer different questions: [`Clock::now`] is the wall clock (when does a cron entry fire,
//! what goes into a status), [`Clock::elapsed`] only ever grows (how long ago, has a lease run out) and is blind to an
//! administrator or NTP setting the wall clock.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

/// A source of time; production code gets [`SystemClock`], tests a [`ManualClock`].
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary, fixed origin; never goes back. Counts the time a machine was suspended where the
    /// platform can tell.
    fn elapsed(&self) -> Duration;

    /// Resolves once [`Clock::now`] has reached `at`, also when the wall clock is stepped meanwhile.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;

    /// Resolves once [`Clock::elapsed`] has grown by `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// A clock that is shared by everything in one process.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clocks, ready to be shared.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

/// Timers run on a clock that neither wall clock steps nor a suspended machine move, so long sleeps look again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[cfg(target_os = "linux")]
    fn elapsed(&self) -> Duration {
        // CLOCK_BOOTTIME: CLOCK_MONOTONIC stands still while a machine is suspended, and a leader that wakes up from that
        // would believe that its lease is still good.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    fn elapsed(&self) -> Duration {
        static ORIGIN: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        ORIGIN.elapsed()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while let Some(left) = until(Timestamp::now(), at) {
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = *self;
        let end = clock.elapsed().saturating_add(duration);
        Box::pin(async move {
            while let Some(left) = end.checked_sub(clock.elapsed()).filter(|left| !left.is_zero()) {
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
        })
    }
}

/// What is left from `now` to `at`; `None` when `at` has come.
pub(crate) fn until(now: Timestamp, at: Timestamp) -> Option<Duration> {
    Duration::try_from(at.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// A clock that stands still until a test moves it.
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
    moved: Arc<Notify>,
}

#[derive(Debug)]
struct ManualState {
    wall: Timestamp,
    elapsed: Duration,
    next_id: u64,
    sleepers: BTreeMap<u64, Wake>,
}

/// What a sleeper waits for.
#[derive(Debug, Clone, Copy)]
enum Wake {
    Wall(Timestamp),
    Elapsed(Duration),
}

impl ManualState {
    fn has_come(&self, wake: Wake) -> bool {
        match wake {
            Wake::Wall(at) => self.wall >= at,
            Wake::Elapsed(at) => self.elapsed >= at,
        }
    }
}

impl ManualClock {
    /// A clock whose wall reads `now` and whose [`Clock::elapsed`] starts at zero.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let state = ManualState { wall: now, elapsed: Duration::ZERO, next_id: 0, sleepers: BTreeMap::new() };
        Self { state: Arc::new(Mutex::new(state)), moved: Arc::new(Notify::new()) }
    }

    /// Lets `by` pass: both readings move, sleepers whose time has come wake up.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.elapsed = state.elapsed.saturating_add(by);
        state.wall = state.wall.saturating_add(by).unwrap_or(Timestamp::MAX);
        drop(state);
        self.moved.notify_waiters();
    }

    /// Steps the wall clock alone, forward or back, as NTP or an administrator does.
    pub fn step_wall(&self, by: SignedDuration) {
        let mut state = self.lock();
        state.wall = state.wall.saturating_add(by).unwrap_or(state.wall);
        drop(state);
        self.moved.notify_waiters();
    }

    /// How long until the first sleeper would wake; `None` when nobody sleeps.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let state = self.lock();
        let left = |wake: &Wake| match *wake {
            Wake::Wall(at) => until(state.wall, at).unwrap_or_default(),
            Wake::Elapsed(at) => at.saturating_sub(state.elapsed),
        };
        state.sleepers.values().map(left).min()
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, wake: Wake) -> BoxFuture<'static, ()> {
        let sleeper = {
            let mut state = self.lock();
            let id = state.next_id;
            state.next_id += 1;
            state.sleepers.insert(id, wake);
            Sleeper { clock: self.clone(), id }
        };
        Box::pin(async move {
            loop {
                // Registered before looking, so that a move in between is not missed.
                let moved = sleeper.clock.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if sleeper.clock.lock().has_come(wake) {
                    return;
                }
                moved.await;
            }
        })
    }
}

/// Takes its entry off the list when it wakes up or is dropped.
struct Sleeper {
    clock: ManualClock,
    id: u64,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.clock.lock().sleepers.remove(&self.id);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().wall
    }

    fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.wait(Wake::Wall(at))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let end = self.elapsed().saturating_add(duration);
        self.wait(Wake::Elapsed(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        "2026-03-29T12:00:00Z".parse().unwrap()
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_at_their_time_and_not_before() {
        let clock = ManualClock::new(noon());
        let mut by_wall = clock.sleep_until(noon() + SignedDuration::from_secs(60));
        let mut by_elapsed = clock.sleep(Duration::from_secs(90));
        assert_eq!(clock.next_wake(), Some(Duration::from_mins(1)));

        clock.advance(Duration::from_secs(59));
        assert!(futures::poll!(&mut by_wall).is_pending());
        clock.advance(Duration::from_secs(1));
        assert!(futures::poll!(&mut by_wall).is_ready());
        assert!(futures::poll!(&mut by_elapsed).is_pending());

        drop(by_wall);
        assert_eq!(clock.next_wake(), Some(Duration::from_secs(30)));
        drop(by_elapsed);
        assert_eq!(clock.next_wake(), None);
    }

    #[tokio::test]
    async fn stepping_the_wall_clock_does_not_move_elapsed() {
        let clock = ManualClock::new(noon());
        let mut sleep = clock.sleep(Duration::from_secs(5));
        clock.step_wall(SignedDuration::from_hours(2));
        assert!(futures::poll!(&mut sleep).is_pending());
        assert_eq!(clock.elapsed(), Duration::ZERO);
        assert_eq!(clock.now(), noon() + SignedDuration::from_hours(2));
        clock.step_wall(SignedDuration::from_hours(-3));
        assert_eq!(clock.now(), noon() - SignedDuration::from_hours(1));
    }

    #[tokio::test]
    async fn the_system_clock_does_not_sleep_for_a_time_that_has_passed() {
        let clock = SystemClock;
        let mut sleep = clock.sleep_until(Timestamp::now() - SignedDuration::from_secs(1));
        assert!(futures::poll!(&mut sleep).is_ready());
        let before = clock.elapsed();
        clock.sleep(Duration::from_millis(20)).await;
        assert!(clock.elapsed().saturating_sub(before) >= Duration::from_millis(20));
    }
}
