//! `@every`'s interval, in the notation of <https://pkg.go.dev/time#ParseDuration>.
//!
//! Not jiff's parser: that one also takes `1 hour` and `PT1H`, which the API server refuses.

use super::error::{CronError, IntervalSnafu};

const NANOSECOND: u64 = 1;
const SECOND: u64 = 1_000_000_000 * NANOSECOND;
const UNITS: [(&str, u64); 8] = [
    ("ns", NANOSECOND),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// The interval in whole seconds, at least one: what is negative or shorter is rounded up to it, fractions are cut.
pub(super) fn parse_interval(text: &str) -> Result<i64, CronError> {
    match parse(text) {
        // A sum of 2^63 nanoseconds is the most that a negative duration can be.
        Some((negative, nanos)) if negative || i64::try_from(nanos).is_ok() => {
            let seconds = if negative { 0 } else { nanos / SECOND };
            Ok(i64::try_from(seconds).unwrap_or(i64::MAX).max(1))
        }
        _ => IntervalSnafu { interval: text }.fail(),
    }
}

/// Whether it is negative, and its nanoseconds, 2^63 at most.
fn parse(text: &str) -> Option<(bool, u64)> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some((negative, 0));
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, after) = component(rest)?;
        total = limited(total.checked_add(nanos)?)?;
        rest = after;
    }
    Some((negative, total))
}

/// One number with its unit at the beginning of `text`, in nanoseconds, and what follows.
fn component(text: &str) -> Option<(u64, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos = limited(limited(whole)?.checked_mul(unit)?)?;
    Some((limited(nanos.checked_add(fraction_of(fraction, unit))?)?, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn limited(value: u64) -> Option<u64> {
    (value <= 1 << 63).then_some(value)
}

/// `0.<digits>` of a unit. The original does it in floating point; so must we.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1.0_f64);
    for digit in digits.bytes() {
        // Digits beyond what fits are dropped.
        let Some(next) = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0'))) else {
            break;
        };
        if next > 1 << 63 {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}
