//! What is done to a trial, and where.

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

    /// What events of watches are struck with.
    pub const EVENTS: [Self; 5] = [Self::Skip, Self::Repeat, Self::Break, Self::Expire, Self::Lag];

    /// Whether it ends the process.
    #[must_use]
    pub fn kills(self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfter)
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
        for fault in Fault::WRITES.into_iter().chain(Fault::STORE).chain(Fault::EVENTS) {
            let point = Point { name: "patch verticebackups/status shop".into(), occurrence: 3 };
            let strike = Strike { point, fault };
            assert_eq!(strike.to_string().parse::<Strike>().unwrap(), strike);
        }
    }
}
