//! Where progress goes: the library prints nothing by itself.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Told one line for each step that a person may wait for. Clones share the same listener.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&str) + Send + Sync>);

impl Reporter {
    pub fn new(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Progress as `tracing` events of level info.
    pub fn tracing() -> Self {
        Self::new(|line| tracing::info!(target: "vertice_testbed", "{line}"))
    }

    pub fn say(&self, line: impl AsRef<str>) {
        (self.0)(line.as_ref());
    }

    /// Says `what` with the seconds since `since`, for example `control plane ready 2.7 s`.
    pub fn done(&self, what: &str, since: Instant) {
        self.say(format!("{what} {}", seconds(since.elapsed())));
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self::tracing()
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
