//! Exponential backoff with jitter.

use std::time::{Duration, Instant};

use rand::RngExt as _;

/// How long to wait after the n-th failure in a row: `base · 2ⁿ⁻¹`, at most `max`, and of that a random half to whole
/// ("equal jitter"), so that objects that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first wait.
    pub base: Duration,
    /// The upper bound of every wait.
    pub max: Duration,
}

impl Default for Backoff {
    /// From half a second to five minutes.
    fn default() -> Self {
        Self { base: Duration::from_millis(500), max: Duration::from_mins(5) }
    }
}

impl Backoff {
    /// The upper bound of the wait after `failures` failures in a row (1 = the first).
    #[must_use]
    pub fn bound(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }

    /// The wait after `failures` failures in a row; `roll` is a random number in `0.0..=1.0`.
    #[must_use]
    pub fn delay(&self, failures: u32, roll: f64) -> Duration {
        self.bound(failures).mul_f64(0.5 + 0.5 * roll.clamp(0.0, 1.0))
    }
}

/// A random number in `0.0..1.0`.
pub(crate) fn roll() -> f64 {
    rand::rng().random()
}

/// A [`Backoff`] in the shape that kube's watch streams take.
#[derive(Debug, Clone)]
pub(crate) struct WatchBackoff {
    backoff: Backoff,
    failures: u32,
    last: Option<Instant>,
}

/// After so long without a failure the next one counts as the first; longer than the longest wait.
const QUIET: Duration = Duration::from_secs(30);

impl WatchBackoff {
    /// Waits at most 10 s, so that a CRD that is installed after the operator is found soon.
    pub(crate) fn new() -> Self {
        Self {
            backoff: Backoff { base: Duration::from_millis(500), max: Duration::from_secs(10) },
            failures: 0,
            last: None,
        }
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) >= QUIET) {
            self.failures = 0;
        }
        self.last = Some(now);
        self.failures = self.failures.saturating_add(1);
        Some(self.backoff.delay(self.failures, roll()))
    }
}

impl kube::runtime::utils::Backoff for WatchBackoff {
    /// Does nothing: a watch stream says that it begins before each attempt to list, which is no success yet.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(7) };

    #[test]
    fn bounds_double_up_to_the_maximum() {
        let bounds: Vec<_> = (1..=6).map(|n| BACKOFF.bound(n).as_millis()).collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 7000, 7000]);
        assert_eq!(BACKOFF.bound(u32::MAX), BACKOFF.max);
    }

    #[test]
    fn a_watch_that_only_ever_begins_is_tried_ever_more_rarely() {
        let mut backoff = WatchBackoff::new();
        let waits: Vec<_> = (0..7)
            .map(|_| {
                kube::runtime::utils::Backoff::reset(&mut backoff);
                backoff.next().unwrap()
            })
            .collect();
        assert!(waits[0] <= Duration::from_millis(500) && waits[6] >= Duration::from_secs(5), "{waits:?}");
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        assert_eq!(BACKOFF.delay(3, 0.0), Duration::from_secs(1));
        assert_eq!(BACKOFF.delay(3, 1.0), Duration::from_secs(2));
        for _ in 0..100 {
            let delay = BACKOFF.delay(3, roll());
            assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&delay), "{delay:?}");
        }
    }
}
