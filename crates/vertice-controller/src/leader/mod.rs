//! Leader election on a `coordination.k8s.io/Lease`.
//!
//! See `machine` for why two leaders never act at once. Three things keep a leader that lost its lease from acting: its work is
//! dropped before the lease can run out; a client built with the [`Leadership`] as its fence refuses writes from that moment
//! on, also in a process that was stopped and woke up too late for the timer; and every attempt to talk to the API server
//! ends with the lease at the latest. What remains is a request that left in time and arrives late: no lease can call
//! it back, so the margin between renew deadline and lease duration is left for it.

mod machine;
mod store;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use snafu::{Snafu, ensure};
use tokio_util::sync::CancellationToken;

use self::machine::{Machine, Step};
pub use self::store::{KubeLeaseStore, LeaseStore, StoreError};
use crate::{backoff::roll, client::Fence, clock::SharedClock, metrics::Metrics, text::chain};

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How long a candidate sees the lease unchanged before it takes it. 15 s.
    pub lease_duration: Duration,
    /// How long after its last successful renewal a leader stops. 10 s.
    pub renew_deadline: Duration,
    /// How long between attempts. 2 s.
    pub retry_period: Duration,
}

impl Default for Timing {
    /// The times of kube-controller-manager.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// The times of an election do not fit together.
#[derive(Debug, Snafu)]
pub enum TimingError {
    /// A leader has to stop before another one may start.
    #[snafu(display("the renew deadline ({} s) must be shorter than the lease duration ({} s)", renew.as_secs_f32(), lease.as_secs_f32()))]
    DeadlineTooLong {
        /// Renew deadline.
        renew: Duration,
        /// Lease duration.
        lease: Duration,
    },
    /// One failed renewal must not end a leadership.
    #[snafu(display("the retry period ({} s) must be shorter than the renew deadline ({} s)", retry.as_secs_f32(), renew.as_secs_f32()))]
    RetryTooLong {
        /// Retry period.
        retry: Duration,
        /// Renew deadline.
        renew: Duration,
    },
    /// A Lease says its duration in whole seconds.
    #[snafu(display("the lease duration must be whole seconds, at least 1"))]
    NotSeconds,
}

impl Timing {
    fn check(&self) -> Result<(), TimingError> {
        let Self { lease_duration: lease, renew_deadline: renew, retry_period: retry } = *self;
        ensure!(lease.subsec_nanos() == 0 && !lease.is_zero(), NotSecondsSnafu);
        ensure!(renew < lease, DeadlineTooLongSnafu { renew, lease });
        ensure!(retry < renew, RetryTooLongSnafu { retry, renew });
        Ok(())
    }
}

/// Whether this process leads, readable from everywhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leadership {
    clock: SharedClock,
    /// Nanoseconds of [`crate::clock::Clock::elapsed`] until which it leads; 0 when it does not.
    until: Arc<AtomicU64>,
}

impl Leadership {
    /// Nobody's leadership yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, until: Arc::default() }
    }

    /// Whether this process leads at this moment.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.clock.elapsed().as_nanos() < u128::from(self.until.load(Ordering::SeqCst))
    }

    fn set(&self, until: Option<Duration>) {
        let nanos = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        self.until.store(nanos, Ordering::SeqCst);
    }
}

impl Fence for Leadership {
    fn may_write(&self) -> bool {
        self.leads()
    }
}

/// One candidate of an election.
#[derive(Debug)]
pub struct Election<S> {
    name: String,
    store: S,
    clock: SharedClock,
    timing: Timing,
    machine: Machine,
    leadership: Leadership,
    metrics: Metrics,
}

impl<S: LeaseStore> Election<S> {
    /// A candidate for the lease `name` (used in logs and metrics). `identity` must be unique to this *process*, not only to its
    /// host or pod, see [`identity`]. `leadership` is what fenced clients ask.
    pub fn new(
        name: &str,
        identity: String,
        store: S,
        timing: Timing,
        leadership: Leadership,
        metrics: Metrics,
    ) -> Result<Self, TimingError> {
        timing.check()?;
        metrics.set_leader(name, false);
        let machine = Machine::new(identity, timing);
        let clock = Arc::clone(&leadership.clock);
        Ok(Self { name: name.to_owned(), store, clock, timing, machine, leadership, metrics })
    }

    /// Runs for the lease until `stop` is cancelled; runs `work` whenever it leads. When the lease is lost, `work`'s future is
    /// dropped on the spot and started anew with the next leadership. When `stop` is cancelled, the token given to `work` is
    /// cancelled and the lease renewed for as long as `work` takes to finish; then it is released. Also returns when `work` ends by
    /// itself, with what it returned.
    pub async fn run<W, F, T>(mut self, stop: CancellationToken, work: W) -> Option<T>
    where
        W: Fn(CancellationToken) -> F,
        F: Future<Output = T>,
    {
        while !stop.is_cancelled() {
            if !self.won(&stop).await {
                break;
            }
            tracing::info!(lease = self.name, "leading");
            self.metrics.set_leader(&self.name, true);
            let token = stop.child_token();
            let done = self.lead(work(token)).await;
            self.metrics.set_leader(&self.name, false);
            if let Some(result) = done {
                self.release().await;
                return Some(result);
            }
            self.machine.resign();
            self.leadership.set(None);
            tracing::warn!(lease = self.name, "the lease was lost, its work was stopped");
        }
        None
    }

    /// Tries until this candidate leads (true) or should stop.
    async fn won(&mut self, stop: &CancellationToken) -> bool {
        let mut known = None;
        loop {
            let clock = Arc::clone(&self.clock);
            let Timing { renew_deadline, retry_period, .. } = self.timing;
            let limit = clock.elapsed().saturating_add(renew_deadline);
            // An attempt is not cut off at once: one that wins unnoticed would block the others for a lease duration.
            let hurry = async {
                stop.cancelled().await;
                clock.sleep(retry_period).await;
            };
            tokio::select! {
                () = self.attempt(limit) => {}
                () = hurry => return false,
            }
            if stop.is_cancelled() {
                self.release().await;
                return false;
            }
            if self.machine.leads(self.clock.elapsed()) {
                return true;
            }
            let holder = self.machine.holder().map(str::to_owned);
            if holder != known {
                tracing::info!(
                    lease = self.name,
                    holder = holder.as_deref().unwrap_or("nobody"),
                    "standing by"
                );
                known = holder;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = self.clock.sleep(retry_period.mul_f64(1.0 + 0.2 * roll())) => {}
            }
        }
    }

    /// Runs the work and renews the lease until the work is done (its result) or the lease is lost (`None`).
    async fn lead<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let clock = Arc::clone(&self.clock);
        loop {
            let until = self.machine.leads_until()?;
            tokio::select! {
                biased;
                () = clock.sleep(until.saturating_sub(clock.elapsed())) => return None,
                () = clock.sleep(self.timing.retry_period) => {}
                result = &mut work => return Some(result),
            }
            let mut result = None;
            {
                // Ends at `until` at the latest, and comes first: nothing of the work runs after that. An attempt is not
                // cut off when the work is done, or the lease could not be released.
                let mut attempt = pin!(self.attempt(until));
                loop {
                    tokio::select! {
                        biased;
                        () = &mut attempt => break,
                        done = &mut work, if result.is_none() => result = Some(done),
                    }
                }
            }
            if result.is_some() {
                return result;
            }
            if !self.machine.leads(clock.elapsed()) {
                return None;
            }
        }
    }

    /// One attempt to get or renew the lease; given up at `limit`.
    async fn attempt(&mut self, limit: Duration) {
        let clock = Arc::clone(&self.clock);
        let too_late = clock.sleep(limit.saturating_sub(clock.elapsed()));
        // Until an answer says otherwise, nothing is known about what is sent now.
        let step = self.machine.begin(clock.elapsed(), clock.now());
        let result = tokio::select! {
            biased;
            () = too_late => Err(StoreError::Failed { source: "no answer in time".into() }),
            result = self.exchange(step) => result,
        };
        if let Err(error) = result {
            self.machine.failed();
            match error {
                StoreError::Conflict => tracing::debug!(lease = self.name, "another candidate was faster"),
                StoreError::Failed { .. } => {
                    tracing::warn!(lease = self.name, error = chain(&error), "no luck with the lease");
                }
            }
        }
        self.leadership.set(self.machine.leads_until());
    }

    async fn exchange(&mut self, first: Step) -> Result<(), StoreError> {
        let mut step = first;
        loop {
            let sent = self.clock.elapsed();
            let written = match step {
                Step::Wait => return Ok(()),
                Step::Read => {
                    let lease = self.store.get().await?;
                    step = self.machine.read(lease, self.clock.elapsed(), self.clock.now());
                    continue;
                }
                Step::Create(lease) => self.store.create(*lease).await?,
                Step::Replace(lease) => self.store.replace(*lease).await?,
            };
            self.machine.written(written, sent, self.clock.elapsed());
            return Ok(());
        }
    }

    /// Hands the lease back, so that the next candidate need not wait.
    async fn release(&mut self) {
        let released = self.machine.release(self.clock.elapsed(), self.clock.now());
        self.leadership.set(None);
        let Some(lease) = released else { return };
        let sent = tokio::select! {
            result = self.store.replace(lease) => result,
            () = self.clock.sleep(self.timing.retry_period) => {
                Err(StoreError::Failed { source: "no answer in time".into() })
            }
        };
        match sent {
            Ok(_) => tracing::info!(lease = self.name, "lease released"),
            Err(error) => {
                tracing::warn!(lease = self.name, error = chain(&error), "the lease was not released");
            }
        }
    }
}

/// An identity for this process: the pod's (host's) name and something random, so that a restarted container does not take
/// the lease of its predecessor for its own.
#[must_use]
pub fn identity() -> String {
    let host =
        std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let random: u64 = rand::random();
    format!("{}_{random:016x}", host.as_deref().map_or("unknown", str::trim))
}

#[cfg(test)]
mod tests;
