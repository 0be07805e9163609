//! What is done to a trial, and where.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::point::Point;

/// One way to strike a request, or an event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The process is killed before the request leaves.
    KillBefore,
    /// The process is killed after the request took effect, before its answer was seen.
    KillAfter,
    /// The request is answered with this status and never takes effect.
    Answer(u16),
    /// The request takes effect and its answer is lost.
    LoseAnswer,
    /// An event of a watch is not seen when there is a later version of the object by the time that all else is done.
    Skip,
    /// An event of a watch is seen twice.
    Repeat,
    /// The watch ends before this event, and goes on where it was.
    Break,
    /// The watch ends before this event with 410: everything is listed anew.
    Expire,
    /// The event, and all that follow it in its watch, are seen only when nothing else happens any more, or seconds later: a cache that
    /// lags.
    Lag,
    /// The custom resource that the request is about is deleted and made again with the same spec, before the request leaves.
    RemakeBefore,
    /// The same after the request took effect, before its answer was seen; or while the story rests.
    RemakeAfter,
    /// The object that the request changes is deleted before the request leaves.
    DeleteBefore,
    /// The object that the request made or changed is deleted after the request took effect, before its answer was seen.
    DeleteAfter,
    /// The object that the request changes is deleted and made again as it was, before the request leaves: `kubectl replace --force`.
    Replace,
}

impl Fault {
    /// What API requests are struck with.
    pub const WRITES: [Self; 6] = [
        Self::KillBefore,
        Self::KillAfter,
        Self::Answer(409),
        Self::Answer(429),
        Self::Answer(500),
        Self::LoseAnswer,
    ];
    /// What reads are struck with: being killed at one is being killed before the write that follows.
    pub const READS: [Self; 2] = [Self::Answer(500), Self::Answer(429)];
    /// What requests to the object store are struck with. 409 and 429 are answers of the API server's.
    pub const STORE: [Self; 4] = [Self::KillBefore, Self::KillAfter, Self::Answer(503), Self::LoseAnswer];

    /// What writes about a custom resource, or about what it is made into, are struck with.
    pub const REMAKES: [Self; 2] = [Self::RemakeBefore, Self::RemakeAfter];
    /// What writes to an object that is there already, and that a custom resource is made into, are struck with.
    pub const DELETIONS: [Self; 3] = [Self::DeleteBefore, Self::DeleteAfter, Self::Replace];

    /// What events of watches are struck with.
    pub const EVENTS: [Self; 5] = [Self::Skip, Self::Repeat, Self::Break, Self::Expire, Self::Lag];

    /// Each of them once.
    #[must_use]
    pub fn all() -> BTreeSet<Self> {
        let requests = Self::WRITES.into_iter().chain(Self::READS).chain(Self::STORE);
        requests.chain(Self::EVENTS).chain(Self::REMAKES).chain(Self::DELETIONS).collect()
    }

    /// Whether it ends the process.
    #[must_use]
    pub fn kills(self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfter)
    }

    /// Whether a custom resource is made again.
    #[must_use]
    pub fn remakes(self) -> bool {
        Self::REMAKES.contains(&self)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBefore => f.write_str("kill-before"),
            Self::KillAfter => f.write_str("kill-after"),
            Self::Answer(status) => write!(f, "answer-{status}"),
            Self::LoseAnswer => f.write_str("lose-answer"),
            Self::Skip => f.write_str("skip"),
            Self::Repeat => f.write_str("repeat"),
            Self::Break => f.write_str("break"),
            Self::Expire => f.write_str("expire"),
            Self::Lag => f.write_str("lag"),
            Self::RemakeBefore => f.write_str("remake-before"),
            Self::RemakeAfter => f.write_str("remake-after"),
            Self::DeleteBefore => f.write_str("delete-before"),
            Self::DeleteAfter => f.write_str("delete-after"),
            Self::Replace => f.write_str("replace"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kill-before" => Ok(Self::KillBefore),
            "kill-after" => Ok(Self::KillAfter),
            "lose-answer" => Ok(Self::LoseAnswer),
            "skip" => Ok(Self::Skip),
            "repeat" => Ok(Self::Repeat),
            "break" => Ok(Self::Break),
            "expire" => Ok(Self::Expire),
            "lag" => Ok(Self::Lag),
            "remake-before" => Ok(Self::RemakeBefore),
            "remake-after" => Ok(Self::RemakeAfter),
            "delete-before" => Ok(Self::DeleteBefore),
            "delete-after" => Ok(Self::DeleteAfter),
            "replace" => Ok(Self::Replace),
            _ => text
                .strip_prefix("answer-")
                .and_then(|status| status.parse().ok())
                .map(Self::Answer)
                .ok_or_else(|| format!("{text:?} is not a fault")),
        }
    }
}

/// A fault at a point.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Strike {
    /// Where.
    pub point: Point,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.fault, self.point)
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (fault, point) =
            text.split_once('/').ok_or_else(|| format!("{text:?} has no fault and point"))?;
        Ok(Self { fault: fault.parse()?, point: point.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_strike_can_be_typed() {
        for fault in Fault::all() {
            let point = Point { name: "patch verticebackups/status shop".into(), occurrence: 3 };
            let strike = Strike { point, fault };
            assert_eq!(strike.to_string().parse::<Strike>().unwrap(), strike);
        }
    }
}
