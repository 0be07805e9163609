//! A clock whose wall tests can put forward, while everything else (calls, debouncing, retries) takes its usual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use vertice_controller::clock::{Clock, SystemClock};

const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, Default)]
pub(crate) struct MovedClock {
    ahead: Arc<Mutex<SignedDuration>>,
}

impl MovedClock {
    /// From now on the wall reads `at`, and goes on from there.
    pub(crate) fn set(&self, at: Timestamp) {
        *self.ahead.lock().unwrap() = at.duration_since(Timestamp::now());
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        Timestamp::now() + *self.ahead.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            while clock.now() < at {
                tokio::time::sleep(POLL).await;
            }
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(duration)
    }
}
