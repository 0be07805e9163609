//! Waiting for a condition, never for an amount of time.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// A condition that did not come about in time.
#[derive(Debug)]
pub struct Deadline(Box<Missed>);

#[derive(Debug)]
struct Missed {
    what: String,
    waited: Duration,
    last: String,
}

impl Deadline {
    pub(crate) fn missed(what: impl fmt::Display, waited: Duration, last: String) -> Self {
        Self(Box::new(Missed { what: what.to_string(), waited, last }))
    }

    /// What the last look saw.
    pub fn last(&self) -> &str {
        &self.0.last
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missed { what, waited, last } = &*self.0;
        write!(f, "gave up after {:.1} s waiting for {what}: {last}", waited.as_secs_f64())
    }
}

impl std::error::Error for Deadline {}

/// The result of one look: done, or what is still missing.
pub type Look<T> = Result<T, String>;

/// Looks until `look` is done, at most for `deadline`. A look that hangs counts against the deadline too.
pub async fn until<T, F, Fut>(what: impl fmt::Display, deadline: Duration, mut look: F) -> Result<T, Deadline>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Look<T>>,
{
    let start = Instant::now();
    let mut last = String::from("no answer");
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Deadline::missed(what, start.elapsed(), last));
        }
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(missing)) => last = missing,
            Err(_) => continue,
        }
        tokio::time::sleep(PAUSE.min(left)).await;
    }
}

/// As [`until`], for the threads that set machines up.
pub(crate) fn until_blocking<T>(
    what: impl fmt::Display,
    deadline: Duration,
    mut look: impl FnMut() -> Look<T>,
) -> Result<T, Deadline> {
    let start = Instant::now();
    loop {
        let last = match look() {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        if start.elapsed() >= deadline {
            return Err(Deadline::missed(what, start.elapsed(), last));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_what_was_missing_last() {
        let error =
            until("a pod", Duration::from_millis(20), || async { Look::<()>::Err("phase Pending".into()) })
                .await
                .unwrap_err()
                .to_string();
        assert!(error.contains("waiting for a pod: phase Pending"), "{error}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_ends_at_the_deadline() {
        let never = until("an answer", Duration::from_millis(20), std::future::pending::<Look<()>>).await;
        assert_eq!(never.unwrap_err().last(), "no answer");
    }

    #[test]
    fn blocking_wait_returns_what_was_found() {
        let mut looks = 0;
        let found = until_blocking("three looks", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks}")) }
        });
        assert_eq!(found.unwrap(), 3);
    }
}
