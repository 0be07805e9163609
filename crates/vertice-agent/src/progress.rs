//! How far a run is: counters that every step adds to, and a line a second on standard output.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vertice_catalog::report::{Progress as Line, ProgressKind};

/// How often a line is written at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counters of a run.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    plain: AtomicU64,
    stored: AtomicU64,
    expected: AtomicU64,
    doing: Mutex<(String, String)>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            plain: AtomicU64::default(),
            stored: AtomicU64::default(),
            expected: AtomicU64::default(),
            doing: Mutex::default(),
        }
    }
}

impl Progress {
    /// Says what is being done, such as `dump`, to which object.
    pub fn doing(&self, step: &str, object: &str) {
        tracing::info!(step, object, "next step");
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = (step.to_owned(), object.to_owned());
    }

    /// Says how many plain bytes there will be.
    pub fn expect(&self, bytes: u64) {
        self.expected.store(bytes, Ordering::Relaxed);
    }

    /// Plain bytes went by.
    pub fn add_plain(&self, bytes: u64) {
        self.plain.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Stored bytes went by.
    pub fn add_stored(&self, bytes: u64) {
        self.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The state as a line of the log.
    pub fn line(&self) -> Line {
        let (step, object) = self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let expected = self.expected.load(Ordering::Relaxed);
        Line {
            kind: ProgressKind::Progress,
            step,
            object,
            plain_bytes: self.plain.load(Ordering::Relaxed),
            stored_bytes: self.stored.load(Ordering::Relaxed),
            expected_bytes: (expected > 0).then_some(expected),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    /// Writes a line a second until dropped.
    pub async fn print_for_ever(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        // Nothing is known at once.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let line = self.line();
            if line.step.is_empty() {
                continue;
            }
            if let Ok(json) = serde_json::to_string(&line) {
                // A closed pipe must not end a backup.
                let _ = writeln!(std::io::stdout().lock(), "{json}");
            }
        }
    }
}
