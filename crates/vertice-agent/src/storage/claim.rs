//! The claim of the run that is writing: taken, renewed in the background, given up.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use object_store::UpdateVersion;
use snafu::Snafu;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vertice_catalog::claim::{CLAIM_LIFETIME, CLAIM_RENEWAL, Claim, ClaimDecision, decide, renewed};
use vertice_catalog::layout;

use super::{Bucket, Condition, Put, StorageError};
use crate::mutant::{self, Mutant};

/// After a renewal that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Two runs that begin at once see each other within so many attempts.
const ATTEMPTS: usize = 5;

/// The claim cannot be had, or is gone.
#[derive(Debug, Snafu)]
pub enum ClaimError {
    /// Another run has it.
    #[snafu(display(
        "run {holder} is writing to {url} since {since}: wait for its end (if it was killed, its claim ends by itself at {expires})"
    ))]
    Busy {
        /// The prefix.
        url: String,
        /// The other run's pod.
        holder: String,
        /// When it began.
        since: Timestamp,
        /// Until when the claim holds.
        expires: Timestamp,
    },
    /// It could not be renewed in time, or another run took it.
    #[snafu(display(
        "this run lost its claim to {url} because it could not renew it for {}s: the store did not answer or the pod stood still; \
         the next run starts afresh",
        CLAIM_LIFETIME.as_secs()
    ))]
    Lost {
        /// The prefix.
        url: String,
    },
    /// The store failed.
    #[snafu(transparent)]
    ClaimStorage {
        /// How.
        source: StorageError,
    },
}

/// A claim that this run holds and renews; given up by [`HeldClaim::release`], and by itself after its lifetime.
#[derive(Debug)]
pub struct HeldClaim {
    shared: Arc<Shared>,
    renewal: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    bucket: Bucket,
    current: Mutex<Current>,
    lost: CancellationToken,
}

#[derive(Debug)]
struct Current {
    claim: Claim,
    version: UpdateVersion,
    /// Renewals whose answers were lost: any of them may be what the store has now.
    unanswered: Vec<Claim>,
    /// Until when it holds, by the clock that cannot be set.
    until: Instant,
}

impl HeldClaim {
    /// Takes the claim unless another run holds it.
    pub async fn take(bucket: &Bucket, holder: &str) -> Result<Self, ClaimError> {
        let current = acquire(bucket, holder).await?;
        let shared = Arc::new(Shared {
            bucket: bucket.clone(),
            current: Mutex::new(current),
            lost: CancellationToken::new(),
        });
        let renewal = tokio::spawn(Shared::renew_for_ever(shared.clone()));
        Ok(Self { shared, renewal })
    }

    /// Returns when the claim is lost, and why.
    pub async fn lost(&self) -> ClaimError {
        self.shared.lost.cancelled().await;
        ClaimError::Lost { url: self.shared.bucket.url() }
    }

    /// Makes sure that the claim is still ours: the last thing before a manifest is written, and the first after. A store that
    /// fails is asked again for as long as the claim holds: until then nobody else can have taken it.
    pub async fn confirm(&self) -> Result<(), ClaimError> {
        loop {
            match self.shared.renew().await {
                Err(ClaimError::ClaimStorage { source }) if self.shared.holds().await => {
                    tracing::warn!(error = %source, "the claim could not be confirmed, trying again");
                    tokio::time::sleep(RETRY).await;
                }
                confirmed => return confirmed,
            }
        }
    }

    /// Gives the claim up. It stays in the bucket, expired: a conditional put cannot hurt a run that took it meanwhile, a
    /// delete could.
    pub async fn release(self) -> Result<(), ClaimError> {
        self.renewal.abort();
        let current = self.shared.current.lock().await;
        let ended = Claim { expires: Timestamp::now(), ..current.claim.clone() };
        // None means that another has it: there is nothing to give up.
        current.replace(&self.shared.bucket, &ended).await?;
        Ok(())
    }
}

impl Drop for HeldClaim {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Shared {
    async fn renew_for_ever(self: Arc<Self>) {
        let mut pause = CLAIM_RENEWAL.unsigned_abs();
        loop {
            tokio::time::sleep(pause).await;
            match self.renew().await {
                Ok(()) => pause = CLAIM_RENEWAL.unsigned_abs(),
                Err(ClaimError::ClaimStorage { source }) if self.holds().await => {
                    tracing::warn!(error = %source, "the claim could not be renewed, trying again");
                    pause = RETRY;
                }
                Err(_) => return self.lost.cancel(),
            }
        }
    }

    /// Whether what was renewed last has not run out.
    async fn holds(&self) -> bool {
        Instant::now() < self.current.lock().await.until
    }

    async fn renew(&self) -> Result<(), ClaimError> {
        let mut current = self.current.lock().await;
        let claim = renewed(current.claim.clone(), Timestamp::now());
        let until = Instant::now() + CLAIM_LIFETIME.unsigned_abs();
        match current.replace(&self.bucket, &claim).await {
            Ok(Some(version)) => {
                *current = Current { claim, version, unanswered: Vec::new(), until };
                Ok(())
            }
            Ok(None) => Err(ClaimError::Lost { url: self.bucket.url() }),
            Err(source) => {
                current.unanswered.push(claim);
                Err(source.into())
            }
        }
    }
}

impl Current {
    /// Puts `claim` in the place of what we hold; none when another has it.
    async fn replace(&self, bucket: &Bucket, claim: &Claim) -> Result<Option<UpdateVersion>, StorageError> {
        let mut version = self.version.clone();
        for _ in 0..ATTEMPTS {
            match put(bucket, claim, Condition::Unchanged(version)).await? {
                Put::Done(version) => return Ok(Some(version)),
                // Perhaps a put of our own, whose answer was lost: this one that was sent again, or an earlier one.
                Put::Conflict => match read(bucket).await? {
                    _ if mutant::on(Mutant::OwnClaimNotKnown) => return Ok(None),
                    Some((Some(found), version)) if found == *claim => return Ok(Some(version)),
                    Some((Some(found), newer)) if self.unanswered.contains(&found) => version = newer,
                    _ => return Ok(None),
                },
            }
        }
        Ok(None)
    }
}

async fn acquire(bucket: &Bucket, holder: &str) -> Result<Current, ClaimError> {
    let mut seen = None;
    for _ in 0..ATTEMPTS {
        let (found, condition) = match read(bucket).await? {
            // One that cannot be read protects nobody.
            Some((found, version)) => (found, Condition::Unchanged(version)),
            None => (None, Condition::Absent),
        };
        let until = Instant::now() + CLAIM_LIFETIME.unsigned_abs();
        let claim = match decide(found, holder, Timestamp::now()) {
            ClaimDecision::Take(claim) => claim,
            ClaimDecision::Busy(claim) => return Err(busy(bucket, claim)),
        };
        match put(bucket, &claim, condition).await? {
            Put::Done(version) => return Ok(Current { claim, version, unanswered: Vec::new(), until }),
            Put::Conflict => seen = Some(claim),
        }
    }
    match seen {
        Some(claim) => Err(busy(bucket, Claim { holder: "of somebody else".to_owned(), ..claim })),
        None => Err(ClaimError::Lost { url: bucket.url() }),
    }
}

fn busy(bucket: &Bucket, claim: Claim) -> ClaimError {
    let Claim { holder, since, expires } = claim;
    ClaimError::Busy { url: bucket.url(), holder, since, expires }
}

async fn read(bucket: &Bucket) -> Result<Option<(Option<Claim>, UpdateVersion)>, StorageError> {
    let found = bucket.get(layout::CLAIM).await?;
    Ok(found.map(|found| (serde_json::from_slice(&found.content).ok(), found.version)))
}

async fn put(bucket: &Bucket, claim: &Claim, condition: Condition) -> Result<Put, StorageError> {
    // A string and two instants always serialize.
    let json = serde_json::to_vec_pretty(claim).unwrap_or_default();
    bucket.put(layout::CLAIM, json.into(), condition).await
}

#[cfg(test)]
mod tests {
    use vertice_catalog::task::StorageLocation;

    use super::super::failing::failing_bucket;
    use super::super::tests::{bucket, location};
    use super::super::{Credentials, connect};
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_the_next_after_the_release() {
        let bucket = bucket();
        let first = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        let refused = HeldClaim::take(&bucket, "pod-b").await.unwrap_err();
        assert!(matches!(&refused, ClaimError::Busy { holder, .. } if holder == "pod-a"), "{refused}");
        first.confirm().await.unwrap();
        first.release().await.unwrap();
        let second = HeldClaim::take(&bucket, "pod-b").await.unwrap();
        second.confirm().await.unwrap();
    }

    #[tokio::test]
    async fn a_claim_that_another_took_is_lost() {
        let bucket = bucket();
        let ours = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        let (_, version) = read(&bucket).await.unwrap().unwrap();
        let now = Timestamp::now();
        let theirs = Claim { holder: "pod-b".into(), since: now, expires: now + CLAIM_LIFETIME };
        put(&bucket, &theirs, Condition::Unchanged(version)).await.unwrap();
        assert!(matches!(ours.confirm().await, Err(ClaimError::Lost { .. })));
        ours.release().await.unwrap();
        let (kept, _) = read(&bucket).await.unwrap().unwrap();
        assert_eq!(kept.unwrap(), theirs);
    }

    #[tokio::test]
    async fn a_renewal_that_landed_without_an_answer_is_ours() {
        let bucket = bucket();
        let ours = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        let (found, version) = read(&bucket).await.unwrap().unwrap();
        let later = Timestamp::now() + CLAIM_RENEWAL;
        let landed = renewed(found.unwrap(), later);
        put(&bucket, &landed, Condition::Unchanged(version)).await.unwrap();
        ours.shared.current.lock().await.unanswered.push(landed);
        ours.confirm().await.unwrap();
        assert!(ours.shared.current.lock().await.unanswered.is_empty());
        ours.confirm().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_without_an_answer_is_remembered() {
        let bucket = bucket();
        let Current { claim, version, until, .. } = acquire(&bucket, "pod-a").await.unwrap();
        // Nobody listens on port 1.
        let location = StorageLocation { endpoint: Some("http://127.0.0.1:1".into()), ..location() };
        let (access_key_id, secret_access_key) = ("id".to_owned(), "hush".to_owned());
        let keys = Credentials { access_key_id, secret_access_key, session_token: None };
        let deaf = Shared {
            bucket: connect(&location, &keys).unwrap(),
            current: Mutex::new(Current { claim, version, unanswered: Vec::new(), until }),
            lost: CancellationToken::new(),
        };
        assert!(matches!(deaf.renew().await, Err(ClaimError::ClaimStorage { .. })));
        assert_eq!(deaf.current.lock().await.unanswered.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_for_a_while_does_not_take_the_claim() {
        let (bucket, store) = failing_bucket();
        let ours = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        let begin = Instant::now();
        store.fail_puts(3);
        ours.confirm().await.unwrap();
        assert_eq!(store.failures_left(), 0);
        assert!(begin.elapsed() < CLAIM_LIFETIME.unsigned_abs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_until_the_claim_ran_out_does() {
        let (bucket, store) = failing_bucket();
        let ours = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        let begin = Instant::now();
        store.fail_puts(usize::MAX);
        assert!(matches!(ours.confirm().await, Err(ClaimError::ClaimStorage { .. })));
        let waited = begin.elapsed();
        let lifetime = CLAIM_LIFETIME.unsigned_abs();
        assert!(waited >= lifetime && waited <= lifetime + 2 * RETRY, "{waited:?}");
        assert!(matches!(ours.lost().await, ClaimError::Lost { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_was_taken_while_the_store_failed_is_lost() {
        let (bucket, store) = failing_bucket();
        let ours = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        let (_, version) = read(&bucket).await.unwrap().unwrap();
        let now = Timestamp::now();
        let theirs = Claim { holder: "pod-b".into(), since: now, expires: now + CLAIM_LIFETIME };
        put(&bucket, &theirs, Condition::Unchanged(version)).await.unwrap();
        store.fail_puts(2);
        assert!(matches!(ours.confirm().await, Err(ClaimError::Lost { .. })));
        assert_eq!(store.failures_left(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_renewal_notices_the_loss() {
        let bucket = bucket();
        let ours = HeldClaim::take(&bucket, "pod-a").await.unwrap();
        let (_, version) = read(&bucket).await.unwrap().unwrap();
        let now = Timestamp::now();
        let theirs = Claim { holder: "pod-b".into(), since: now, expires: now + CLAIM_LIFETIME };
        put(&bucket, &theirs, Condition::Unchanged(version)).await.unwrap();
        let begin = Instant::now();
        assert!(matches!(ours.lost().await, ClaimError::Lost { .. }));
        assert!(begin.elapsed() <= CLAIM_RENEWAL.unsigned_abs() + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn many_at_once_leave_one_holder() {
        let bucket = bucket();
        let names: Vec<_> = (0..8).map(|n| format!("pod-{n}")).collect();
        let taken = futures::future::join_all(names.iter().map(|name| HeldClaim::take(&bucket, name))).await;
        assert_eq!(taken.iter().filter(|result| result.is_ok()).count(), 1);
    }
}
