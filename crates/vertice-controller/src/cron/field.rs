//! One field of a cron expression: a comma-separated list of numbers, names, ranges and steps.

use snafu::OptionExt as _;

use super::error::{CronError, FieldSnafu};

/// The allowed values of a field: bit n stands for the value n, the top bit for "a star was written".
pub(super) type Bits = u64;

/// Set when a field holds `*` or `?` without a step: then the other day field alone decides.
pub(super) const STAR: Bits = 1 << 63;

/// What a field may hold.
#[derive(Debug)]
pub(super) struct Bounds {
    /// For messages.
    name: &'static str,
    min: u64,
    max: u64,
    /// Words for the values from `min` on.
    words: &'static [&'static str],
}

pub(super) const MINUTE: Bounds = Bounds { name: "minute", min: 0, max: 59, words: &[] };
pub(super) const HOUR: Bounds = Bounds { name: "hour", min: 0, max: 23, words: &[] };
pub(super) const DAY_OF_MONTH: Bounds = Bounds { name: "day of month", min: 1, max: 31, words: &[] };
pub(super) const MONTH: Bounds = Bounds {
    name: "month",
    min: 1,
    max: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(super) const DAY_OF_WEEK: Bounds =
    Bounds { name: "day of week", min: 0, max: 6, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Bounds {
    /// The lowest value alone.
    pub(super) fn first(&self) -> Bits {
        1 << self.min
    }

    /// Every value, as `*` means it.
    pub(super) fn all(&self) -> Bits {
        range(self.min, self.max, 1) | STAR
    }

    /// Parses the field. Empty list entries are allowed, as in the original.
    pub(super) fn parse(&self, field: &str) -> Result<Bits, CronError> {
        field.split(',').filter(|part| !part.is_empty()).try_fold(0, |bits, part| Ok(bits | self.part(part)?))
    }

    /// One entry: `5`, `mon`, `1-5`, `*`, `*/15`, `8-18/2`, or `5/15` for `5-<max>/15`.
    fn part(&self, part: &str) -> Result<Bits, CronError> {
        let (values, step) = match part.split('/').collect::<Vec<_>>()[..] {
            [values] => (values, None),
            [values, step] => (values, Some(self.number(part, step)?)),
            _ => return self.refuse(part, "has more than one slash"),
        };
        let ends: Vec<&str> = values.split('-').collect();
        let starred = matches!(ends[0], "*" | "?");
        let (start, end) = if starred {
            // The original ignores what follows the star, as in `*-5`.
            (self.min, self.max)
        } else {
            let start = self.value(part, ends[0])?;
            match ends[1..] {
                [] if step.is_some() => (start, self.max),
                [] => (start, start),
                [end] => (start, self.value(part, end)?),
                _ => return self.refuse(part, "has more than one hyphen"),
            }
        };
        if start < self.min || end > self.max {
            return self.refuse(part, &self.allowed());
        }
        if start > end {
            return self.refuse(part, "the range runs backwards: write the smaller value first");
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return self.refuse(part, "the step must be at least 1");
        }
        let star = if starred && step == 1 { STAR } else { 0 };
        Ok(range(start, end, step) | star)
    }

    /// A number or one of the field's words.
    fn value(&self, part: &str, text: &str) -> Result<u64, CronError> {
        let word = text.to_ascii_lowercase();
        match (self.min..).zip(self.words).find(|(_, known)| **known == word) {
            Some((value, _)) => Ok(value),
            None => self.number(part, text),
        }
    }

    fn number(&self, part: &str, text: &str) -> Result<u64, CronError> {
        // Signed, as the original: it accepts `+5` and `-0`.
        let number = text.parse::<i64>().ok().and_then(|n| u64::try_from(n).ok());
        number.with_context(|| FieldSnafu { field: self.name, text: part, problem: self.allowed() })
    }

    fn allowed(&self) -> String {
        let Self { min, max, words, .. } = self;
        match words {
            [first, .., last] => format!("must be {min}–{max} or {first}–{last}"),
            _ => format!("must be {min}–{max}"),
        }
    }

    fn refuse<T>(&self, part: &str, problem: &str) -> Result<T, CronError> {
        FieldSnafu { field: self.name, text: part, problem }.fail()
    }
}

/// The values from `start` to `end` in steps; both are below 63.
fn range(start: u64, end: u64, step: u64) -> Bits {
    let mut bits = 0;
    let mut value = start;
    while value <= end {
        bits |= 1 << value;
        value = value.saturating_add(step);
    }
    bits
}
