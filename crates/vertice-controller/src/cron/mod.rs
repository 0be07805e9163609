//! Cron schedules with exactly the grammar and semantics of Kubernetes' CronJobs.
//!
//! A status that promises the next run must name the instant at which the CronJob controller fires. So this is a port of what that
//! controller uses: `ParseStandard` and `SpecSchedule.Next` of <https://github.com/robfig/cron/tree/v3.0.1>, with its rule for
//! clock changes (an hour that the clock skips has no firing in it, an hour that it repeats has it twice) and its giving up after five
//! years, and the choice of the [`firing`] from `k8s.io/kubernetes/pkg/controller/cronjob`. Tests compare it with the original.
//!
//! ```
//! use vertice_controller::cron::Schedule;
//!
//! let schedule = Schedule::parse("0 2 * * *", "Europe/Zurich")?;
//! let next = schedule.next_after("2026-11-21T09:00:00Z".parse()?);
//! assert_eq!(next, Some("2026-11-22T01:00:00Z".parse()?));
//! assert_eq!(
//!     Schedule::parse("61 2 * * *", "Etc/UTC").unwrap_err().to_string(),
//!     r#"minute "61": must be 0–59"#,
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod field;
pub mod firing;
mod go_duration;
mod next;
#[cfg(test)]
mod tests;
mod zone;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use snafu::ensure;

pub use error::CronError;
use error::{DescriptorSnafu, EmptySnafu, FieldCountSnafu, ZoneInScheduleSnafu};
use field::{Bits, DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH};

/// When something runs: a cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    zone: TimeZone,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Five fields, or a descriptor that stands for them.
    Fields(Fields),
    /// `@every`: this many seconds after the run before.
    Every(i64),
}

/// One set of allowed values a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    minute: Bits,
    hour: Bits,
    day_of_month: Bits,
    month: Bits,
    day_of_week: Bits,
}

impl Schedule {
    /// Parses a cron expression (five fields, `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually` or
    /// `@every 90m`) that is meant in `time_zone`, an IANA name such as `Europe/Zurich`.
    ///
    /// It accepts what the API server accepts in a CronJob's `schedule` and `timeZone`, and nothing else.
    pub fn parse(expression: &str, time_zone: &str) -> Result<Self, CronError> {
        let zone = zone::find(time_zone)?;
        Ok(Self { zone, rule: parse_rule(expression)? })
    }

    /// The first firing strictly after `instant`; none when there is none within five years, as for 30 February.
    ///
    /// For `@every` that is one interval after `instant`: pass the run before, or use [`firing::next`].
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Fields(fields) => next::next_after(fields, &self.zone, instant),
            Rule::Every(seconds) => {
                Timestamp::from_second(next::floor_second(instant).checked_add(*seconds)?).ok()
            }
        }
    }
}

fn parse_rule(expression: &str) -> Result<Rule, CronError> {
    ensure!(!expression.is_empty(), EmptySnafu);
    // The API server looks for the two letters anywhere.
    ensure!(!expression.contains("TZ"), ZoneInScheduleSnafu { expression });
    if expression.starts_with('@') {
        return parse_descriptor(expression);
    }
    let words: Vec<&str> = expression.split_whitespace().collect();
    let [minute, hour, day_of_month, month, day_of_week] = words[..] else {
        return FieldCountSnafu { expression, found: words.len() }.fail();
    };
    Ok(Rule::Fields(Fields {
        minute: MINUTE.parse(minute)?,
        hour: HOUR.parse(hour)?,
        day_of_month: DAY_OF_MONTH.parse(day_of_month)?,
        month: MONTH.parse(month)?,
        day_of_week: DAY_OF_WEEK.parse(day_of_week)?,
    }))
}

fn parse_descriptor(descriptor: &str) -> Result<Rule, CronError> {
    let daily = Fields {
        minute: MINUTE.first(),
        hour: HOUR.first(),
        day_of_month: DAY_OF_MONTH.all(),
        month: MONTH.all(),
        day_of_week: DAY_OF_WEEK.all(),
    };
    let monthly = Fields { day_of_month: DAY_OF_MONTH.first(), ..daily };
    Ok(Rule::Fields(match descriptor {
        "@yearly" | "@annually" => Fields { month: MONTH.first(), ..monthly },
        "@monthly" => monthly,
        "@weekly" => Fields { day_of_week: DAY_OF_WEEK.first(), ..daily },
        "@daily" | "@midnight" => daily,
        "@hourly" => Fields { hour: HOUR.all(), ..daily },
        _ => {
            let Some(interval) = descriptor.strip_prefix("@every ") else {
                return DescriptorSnafu { descriptor }.fail();
            };
            return Ok(Rule::Every(go_duration::parse_interval(interval)?));
        }
    }))
}
