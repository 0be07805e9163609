//! Conditions as the [API conventions] want them.
//!
//! [API conventions]: https://github.com/kubernetes/community/blob/main/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties

use std::fmt;

use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The API server refuses longer messages (`maxLength` of the condition schema).
const MESSAGE_MAX: usize = 32_768;

/// The condition that sums a resource up.
pub const READY: &str = "Ready";

/// The three values of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Not known, for example because the other side cannot be reached.
    Unknown,
}

impl Status {
    /// As it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<bool> for Status {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// One condition as a plan wants it; it carries no time, so plans stay pure and comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// For example [`READY`]; CamelCase.
    pub type_: String,
    /// Whether it is so.
    pub status: Status,
    /// Why, for machines: CamelCase, not empty.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Wanted {
    /// A condition of any type.
    pub fn new(
        type_: impl Into<String>,
        status: impl Into<Status>,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { type_: type_.into(), status: status.into(), reason: reason.into(), message: message.into() }
    }

    /// The `Ready` condition.
    pub fn ready(status: impl Into<Status>, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(READY, status, reason, message)
    }
}

/// Sets one condition: `lastTransitionTime` moves only when the status does. `generation` is the `metadata.generation` that
/// the verdict is about. Returns whether anything but the observed generation changed.
pub fn set(conditions: &mut Vec<Condition>, wanted: Wanted, generation: Option<i64>, now: Timestamp) -> bool {
    let Wanted { type_, status, reason, message } = wanted;
    let message = crate::text::shorten(message, MESSAGE_MAX);
    if let Some(present) = conditions.iter_mut().find(|condition| condition.type_ == type_) {
        let flipped = present.status != status.as_str();
        let changed = flipped || present.reason != reason || present.message != message;
        if flipped {
            present.last_transition_time = seconds(now);
            status.as_str().clone_into(&mut present.status);
        }
        present.reason = reason;
        present.message = message;
        present.observed_generation = generation;
        changed
    } else {
        conditions.push(Condition {
            last_transition_time: seconds(now),
            message,
            observed_generation: generation,
            reason,
            status: status.to_string(),
            type_,
        });
        true
    }
}

/// Sets all of `wanted` and drops conditions that are not in it, so that a condition of an earlier version does not stay for
/// ever.
pub fn replace(
    conditions: &mut Vec<Condition>,
    wanted: impl IntoIterator<Item = Wanted>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let wanted: Vec<_> = wanted.into_iter().collect();
    conditions.retain(|condition| wanted.iter().any(|w| w.type_ == condition.type_));
    for condition in wanted {
        set(conditions, condition, generation, now);
    }
}

/// The condition of a type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether a condition is there and `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == Status::True.as_str())
}

/// `metav1.Time` keeps whole seconds: rounded here, so that what was written equals what is read back.
fn seconds(at: Timestamp) -> Time {
    let options = jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor);
    Time(at.round(options).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        assert!(set(
            &mut conditions,
            Wanted::ready(true, "Scheduled", "next run at 02:00"),
            Some(1),
            at("2026-01-01T10:00:00.7Z")
        ));
        assert!(set(
            &mut conditions,
            Wanted::ready(true, "Running", "run 17 is running"),
            Some(2),
            at("2026-01-01T11:00:00Z")
        ));
        assert_eq!(conditions[0].last_transition_time.0, at("2026-01-01T10:00:00Z"));
        assert_eq!(conditions[0].reason, "Running");
        assert_eq!(conditions[0].message, "run 17 is running");
        assert_eq!(conditions[0].observed_generation, Some(2));

        assert!(set(
            &mut conditions,
            Wanted::ready(false, "Failed", "no"),
            Some(2),
            at("2026-01-01T12:00:00Z")
        ));
        assert_eq!(conditions[0].last_transition_time.0, at("2026-01-01T12:00:00Z"));
        assert!(!is_true(&conditions, READY));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn setting_the_same_again_changes_nothing_but_the_generation() {
        let mut conditions = Vec::new();
        let wanted = Wanted::new("Suspended", Status::Unknown, "Why", "because");
        set(&mut conditions, wanted.clone(), Some(4), at("2026-01-01T10:00:00Z"));
        let before = conditions.clone();
        assert!(!set(&mut conditions, wanted.clone(), Some(4), at("2026-01-02T10:00:00Z")));
        assert_eq!(conditions, before);
        assert!(!set(&mut conditions, wanted, Some(5), at("2026-01-02T10:00:00Z")));
        assert_eq!(conditions[0].observed_generation, Some(5));
    }

    #[test]
    fn what_is_written_equals_what_is_read_back() {
        let mut conditions = Vec::new();
        set(&mut conditions, Wanted::ready(true, "Ok", ""), Some(1), at("2026-01-01T10:00:00.999999Z"));
        let read: Vec<Condition> =
            serde_json::from_value(serde_json::to_value(&conditions).unwrap()).unwrap();
        assert_eq!(read, conditions);
    }

    #[test]
    fn replacing_drops_conditions_that_nobody_wants() {
        let mut conditions = Vec::new();
        set(&mut conditions, Wanted::new("Old", true, "Old", ""), None, at("2026-01-01T10:00:00Z"));
        set(&mut conditions, Wanted::ready(true, "A", ""), None, at("2026-01-01T10:00:00Z"));
        replace(&mut conditions, [Wanted::ready(true, "B", "")], Some(1), at("2026-01-01T11:00:00Z"));
        assert_eq!(conditions.len(), 1);
        assert_eq!(find(&conditions, READY).unwrap().reason, "B");
        assert_eq!(conditions[0].last_transition_time.0, at("2026-01-01T10:00:00Z"));
    }

    #[test]
    fn messages_are_cut_to_what_the_api_server_takes() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            Wanted::ready(false, "Long", "ü".repeat(40_000)),
            None,
            at("2026-01-01T10:00:00Z"),
        );
        assert!(conditions[0].message.len() <= MESSAGE_MAX);
        assert!(conditions[0].message.ends_with('…'));
    }
}
