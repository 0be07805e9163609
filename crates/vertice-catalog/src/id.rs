//! Backup ids: `20261121T020000Z-3f9a1c`, the start in UTC and six random hex digits; they sort by time.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use snafu::Snafu;

const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
const TIME_LENGTH: usize = 16;

/// Names one backup in its prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// The text is not a backup id.
#[derive(Debug, Snafu)]
#[snafu(display("{text:?} is not a backup id; one looks like 20261121T020000Z-3f9a1c"))]
pub struct InvalidId {
    text: String,
}

impl BackupId {
    /// Makes the id of a backup that starts at `start`; `random` keeps two of the same second apart.
    pub fn new(start: Timestamp, random: [u8; 3]) -> Self {
        let time = start.to_zoned(TimeZone::UTC).strftime(TIME_FORMAT).to_string();
        Self(format!("{time}-{}", hex::encode(random)))
    }

    /// The id as it stands in keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let valid = text.len() == TIME_LENGTH + 7
            && text.is_ascii()
            && jiff::civil::DateTime::strptime(TIME_FORMAT, &text[..TIME_LENGTH]).is_ok()
            && text.as_bytes()[TIME_LENGTH] == b'-'
            && text[TIME_LENGTH + 1..].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId { text: text.to_owned() }) }
    }
}

impl TryFrom<String> for BackupId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_parse_and_sort_by_time() {
        let early = BackupId::new("2026-11-21T02:00:00Z".parse().unwrap(), [0xff, 0xff, 0xff]);
        let late = BackupId::new("2026-11-21T02:00:01Z".parse().unwrap(), [0, 0, 0]);
        assert_eq!(early.as_str(), "20261121T020000Z-ffffff");
        assert!(early < late);
        assert_eq!(early.as_str().parse::<BackupId>().unwrap(), early);
    }

    #[test]
    fn refuses_what_is_not_an_id() {
        for text in ["", "20261121T020000Z", "20261321T020000Z-3f9a1c", "20261121T020000Z-3F9A1C", "wal"] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
    }
}
