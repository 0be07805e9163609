//! Time zones by name, as the API server takes them.

use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use snafu::OptionExt as _;

use super::error::{CronError, TimeZoneSnafu};

/// The rules built into this program: the same on every machine, and there in an image without files.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The zone of that exact name.
///
/// Kubernetes compares names by case; jiff does not, and a CronJob with such a name would be refused.
pub(super) fn find(name: &str) -> Result<TimeZone, CronError> {
    let zone = ZONES.get(name).ok();
    let canonical = zone.as_ref().and_then(TimeZone::iana_name).map(str::to_owned);
    let suggestion = canonical.filter(|right| right != name);
    zone.filter(|_| suggestion.is_none()).context(TimeZoneSnafu { name, suggestion })
}

/// The names of all zones.
#[cfg(test)]
pub(super) fn names() -> Vec<String> {
    ZONES.available().map(|name| name.as_str().to_owned()).collect()
}
