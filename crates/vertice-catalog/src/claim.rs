//! Who may write to a prefix.
//!
//! Two objects guard it, both written with conditional puts (`If-None-Match: *`, `If-Match: <etag>`):
//! the **owner's mark** says which VerticeBackup of which cluster the prefix belongs to, for good; the **claim** says which run is
//! writing now, and expires, so that a killed run blocks the next one only for a while.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a claim holds without being renewed.
pub const CLAIM_LIFETIME: SignedDuration = SignedDuration::from_secs(60);
/// How often a run renews its claim.
pub const CLAIM_RENEWAL: SignedDuration = SignedDuration::from_secs(15);

/// Which VerticeBackup of which cluster a prefix belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// UID of the cluster's `kube-system` namespace.
    pub cluster: String,
    /// Namespace of the VerticeBackup.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} of cluster {}", self.namespace, self.name, self.cluster)
    }
}

/// The run that is writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Name of the run: of its Job.
    pub holder: String,
    /// When it began.
    pub since: Timestamp,
    /// Until when it holds unless renewed.
    pub expires: Timestamp,
}

/// What a run that wants a prefix does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimDecision {
    /// Put the claim: nobody holds it, it is expired, or it is ours.
    Take(Claim),
    /// Somebody else is writing.
    Busy(Claim),
}

/// Decides from the claim that was found.
pub fn decide(found: Option<Claim>, holder: &str, now: Timestamp) -> ClaimDecision {
    match found {
        Some(claim) if claim.holder != holder && claim.expires > now => ClaimDecision::Busy(claim),
        Some(claim) if claim.holder == holder => ClaimDecision::Take(renewed(claim, now)),
        _ => ClaimDecision::Take(renewed(Claim { holder: holder.to_owned(), since: now, expires: now }, now)),
    }
}

/// The claim with a new end.
pub fn renewed(claim: Claim, now: Timestamp) -> Claim {
    Claim { expires: now + CLAIM_LIFETIME, ..claim }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    #[test]
    fn a_live_claim_of_another_is_respected_and_an_expired_one_taken() {
        let theirs = Claim { holder: "a".into(), since: at(0), expires: at(60) };
        assert_eq!(decide(Some(theirs.clone()), "b", at(59)), ClaimDecision::Busy(theirs.clone()));
        let ours = Claim { holder: "b".into(), since: at(60), expires: at(120) };
        assert_eq!(decide(Some(theirs), "b", at(60)), ClaimDecision::Take(ours));
    }

    #[test]
    fn our_own_claim_keeps_its_beginning() {
        let ours = Claim { holder: "b".into(), since: at(0), expires: at(60) };
        assert_eq!(
            decide(Some(ours), "b", at(30)),
            ClaimDecision::Take(Claim { holder: "b".into(), since: at(0), expires: at(90) })
        );
    }
}
