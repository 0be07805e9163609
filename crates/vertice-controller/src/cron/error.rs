//! Why a schedule was refused.

use snafu::Snafu;

/// Why a schedule or its time zone was refused. Each message names the part that is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
#[snafu(visibility(pub(super)))]
pub enum CronError {
    /// Nothing was given.
    #[snafu(display(
        "the schedule is empty: write five fields (minute, hour, day of month, month, day of week) such as \"0 2 * * *\""
    ))]
    Empty,
    /// `TZ=` or `CRON_TZ=` in the expression.
    #[snafu(display("{expression:?}: a schedule must not contain TZ: set the time zone in its own field"))]
    ZoneInSchedule {
        /// What the user wrote.
        expression: String,
    },
    /// Too many or too few fields.
    #[snafu(display(
        "{expression:?} has {found} {}: five are needed (minute, hour, day of month, month, day of week)",
        if *found == 1 { "field" } else { "fields" }
    ))]
    FieldCount {
        /// What the user wrote.
        expression: String,
        /// How many fields it has.
        found: usize,
    },
    /// One field is wrong.
    #[snafu(display("{field} {text:?}: {problem}"))]
    Field {
        /// Which field, such as `day of month`.
        field: &'static str,
        /// The part of it that is wrong.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A word after `@` that means nothing.
    #[snafu(display(
        "{descriptor:?} is unknown: use @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or \"@every 90m\""
    ))]
    Descriptor {
        /// What the user wrote.
        descriptor: String,
    },
    /// `@every` with something that is no duration.
    #[snafu(display("@every {interval:?}: the interval must be a duration such as 90s, 15m or 1h30m"))]
    Interval {
        /// What stands behind `@every`.
        interval: String,
    },
    /// No such time zone.
    #[snafu(display(
        "time zone {name:?} is unknown: {}",
        suggestion.as_ref().map_or_else(
            || "use an IANA name such as Europe/Zurich or Etc/UTC".to_owned(),
            |right| format!("did you mean {right:?}?")
        )
    ))]
    TimeZone {
        /// What the user wrote.
        name: String,
        /// The right name, when only upper and lower case are wrong.
        suggestion: Option<String>,
    },
}

impl CronError {
    /// Whether the time zone is at fault, not the expression.
    pub fn is_time_zone(&self) -> bool {
        matches!(self, Self::TimeZone { .. })
    }
}
