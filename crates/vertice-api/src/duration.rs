//! Durations as Kubernetes users write them: Go's `1h30m`, `90s`, `500ms`.

use jiff::SignedDuration;
use snafu::{ResultExt, Snafu, ensure};

/// Why a duration was refused.
#[derive(Debug, Snafu)]
pub enum DurationError {
    /// The text is not a duration at all.
    #[snafu(display("{text:?} is not a duration; write it like 90s, 15m or 1h30m"))]
    Malformed {
        /// What the user wrote.
        text: String,
        /// What the parser says.
        source: jiff::Error,
    },
    /// Zero or negative.
    #[snafu(display("{text:?} is not a positive duration"))]
    NotPositive {
        /// What the user wrote.
        text: String,
    },
}

/// Parses a positive duration in Go's notation (<https://pkg.go.dev/time#ParseDuration>).
pub fn parse_positive(text: &str) -> Result<SignedDuration, DurationError> {
    let duration: SignedDuration = text.parse().context(MalformedSnafu { text })?;
    ensure!(duration.is_positive(), NotPositiveSnafu { text });
    Ok(duration)
}

/// Writes a duration the way Go prints one rounded to seconds: `0s`, `32s`, `5m32s`, `1h0m5s`.
/// Below one second it keeps milliseconds (`340ms`).
pub fn format(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    if seconds == 0 {
        let millis = duration.subsec_millis().max(0);
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_go_parses() {
        for (text, millis) in [("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("1.5h", 5_400_000)] {
            assert_eq!(parse_positive(text).unwrap().as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn refuses_zero_negative_and_nonsense() {
        for text in ["0s", "-5m", "soon", "", "5"] {
            assert!(parse_positive(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formats_like_go() {
        for (millis, text) in
            [(0, "0s"), (340, "340ms"), (32_900, "32s"), (332_000, "5m32s"), (3_605_000, "1h0m5s")]
        {
            assert_eq!(format(SignedDuration::from_millis(millis)), text);
        }
    }
}
