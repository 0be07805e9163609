//! The rules of the election, without tasks, timers or connections, so that tests can try every order of events.
//!
//! All times are readings of a clock that never goes back ([`crate::clock::Clock::elapsed`]); clocks of different machines are
//! never compared (the times inside the Lease are for people). A candidate waits until it has itself seen the Lease unchanged for the
//! lease duration. The leader counts its lease from the moment *before* it sent the renewal, and stops after the renew
//! deadline, which is shorter. So whatever the network does, the old leader has stopped before a new one can start, as
//! long as both clocks run about equally fast.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};

use super::Timing;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Read the Lease.
    Read,
    /// Make the Lease.
    Create(Box<Lease>),
    /// Replace the Lease; only the version that was read (`resourceVersion`) may be replaced.
    Replace(Box<Lease>),
    /// Nothing for now; ask again after the retry period.
    Wait,
}

/// The Lease as it was last seen, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    version: Option<String>,
    since: Duration,
}

/// One candidate.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    identity: String,
    timing: Timing,
    lease: Option<Arc<Lease>>,
    seen: Option<Seen>,
    /// `lease` may be outdated: the last write was refused, or its fate is unknown.
    stale: bool,
    /// We lead until then, unless renewed.
    until: Option<Duration>,
    /// Another candidate has held the lease since we look.
    rival: bool,
}

impl Machine {
    pub(crate) fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, lease: None, seen: None, stale: true, until: None, rival: false }
    }

    /// Until when this candidate may act as the leader. The moment itself is too late.
    pub(crate) fn leads_until(&self) -> Option<Duration> {
        self.until
    }

    /// Whether this candidate may act as the leader now.
    pub(crate) fn leads(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Who holds the lease as far as we know.
    pub(crate) fn holder(&self) -> Option<&str> {
        holder(self.lease.as_deref()?)
    }

    /// The first step of an attempt. The leader renews what it last wrote without reading it again.
    pub(crate) fn begin(&mut self, now: Duration, wall: Timestamp) -> Step {
        if self.leads(now) && !self.stale { self.renew(wall) } else { Step::Read }
    }

    /// The Lease was read (`None`: there is none); `now` is the time of the answer.
    pub(crate) fn read(&mut self, lease: Option<Lease>, now: Duration, wall: Timestamp) -> Step {
        let version = lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            self.seen = Some(Seen { version, since: now });
        }
        self.lease = lease.map(Arc::new);
        self.stale = false;
        let waited = self.seen.as_ref().map_or(Duration::ZERO, |seen| now.saturating_sub(seen.since));
        let Some(lease) = self.lease.as_deref() else {
            self.until = None;
            // Somebody deleted it. Whoever held it may not have noticed yet.
            let wait = self.rival && waited < self.timing.lease_duration;
            return if wait { Step::Wait } else { Step::Create(Box::new(self.wanted(None, wall))) };
        };
        match holder(lease) {
            // Our own renewal whose answer was lost.
            Some(holder) if holder == self.identity => self.renew(wall),
            None => self.renew(wall),
            Some(_) => {
                // Taken from us: whatever we believed, it is over.
                self.until = None;
                self.rival = true;
                if waited < self.patience(lease) { Step::Wait } else { self.renew(wall) }
            }
        }
    }

    /// Our write went through. `sent` is the time before it was sent, `now` the time of the answer.
    pub(crate) fn written(&mut self, lease: Lease, sent: Duration, now: Duration) {
        self.seen = Some(Seen { version: lease.metadata.resource_version.clone(), since: now });
        let ours = holder(&lease) == Some(self.identity.as_str());
        self.lease = Some(Arc::new(lease));
        self.stale = false;
        self.until = ours.then(|| sent.saturating_add(self.timing.renew_deadline));
    }

    /// Our read or write failed, or its answer was lost. What we lead by goes on until its time is over.
    pub(crate) fn failed(&mut self) {
        self.stale = true;
    }

    /// Gives the lease up at once; the next candidate need not wait. `None` when it is not ours to give.
    pub(crate) fn release(&mut self, now: Duration, wall: Timestamp) -> Option<Lease> {
        if !self.leads(now) || self.stale {
            self.until = None;
            return None;
        }
        self.until = None;
        let mut lease = Lease::clone(self.lease.as_ref()?);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(wall));
        Some(lease)
    }

    /// Stops leading without a word.
    pub(crate) fn resign(&mut self) {
        self.until = None;
        self.stale = true;
    }

    /// What tells two states apart.
    #[cfg(test)]
    pub(crate) fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash as _;
        let lease = self.lease.as_ref().map(|lease| (&lease.metadata.resource_version, holder(lease)));
        (lease, &self.seen, self.stale, self.until, self.rival).hash(hasher);
    }

    fn renew(&self, wall: Timestamp) -> Step {
        Step::Replace(Box::new(self.wanted(self.lease.as_deref(), wall)))
    }

    /// How long to see the Lease unchanged before taking it: what its holder asked for, and at least what we would.
    fn patience(&self, lease: &Lease) -> Duration {
        let asked = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        Duration::from_secs(u64::try_from(asked).unwrap_or_default()).max(self.timing.lease_duration)
    }

    /// The Lease as we want it: ours, renewed. Labels and whatever else others put there stay.
    fn wanted(&self, present: Option<&Lease>, wall: Timestamp) -> Lease {
        let mut lease = present.cloned().unwrap_or_default();
        let before = lease.spec.take().unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let transitions = before.lease_transitions.unwrap_or_default();
        let seconds = self.timing.lease_duration.as_secs().max(1);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: if ours { before.acquire_time } else { Some(MicroTime(wall)) },
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(if ours || present.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..before
        });
        lease
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}
