//! Fields that both kinds share, from the spec's words to types that hold only valid values.

use jiff::SignedDuration;
use snafu::{ResultExt as _, Snafu};
use vertice_api::duration::{self, DurationError};
use vertice_api::vertice_io::{Storage, StorageType};
use vertice_catalog::task::StorageLocation;

/// `timeout` unless the spec has one.
const DEFAULT_TIMEOUT: SignedDuration = SignedDuration::from_hours(24);
/// `storage.region` unless the spec has one.
const DEFAULT_REGION: &str = "us-east-1";

/// A field that should be a duration is not one.
#[derive(Debug, Snafu)]
#[snafu(display("{field}: {source}"))]
pub(crate) struct InvalidDuration {
    field: &'static str,
    source: DurationError,
}

/// Whole seconds, at least one, of a field that may be absent.
pub(crate) fn seconds(field: &'static str, text: Option<&str>) -> Result<Option<i64>, InvalidDuration> {
    let Some(text) = text else { return Ok(None) };
    let duration = duration::parse_positive(text).context(InvalidDurationSnafu { field })?;
    Ok(Some(whole_seconds(duration)))
}

/// The seconds of `spec.timeout`, or its default.
pub(crate) fn timeout(text: Option<&str>) -> Result<i64, InvalidDuration> {
    Ok(seconds("spec.timeout", text)?.unwrap_or(DEFAULT_TIMEOUT.as_secs()))
}

/// Rounded up: nobody's deadline is cut short.
fn whole_seconds(duration: SignedDuration) -> i64 {
    duration.as_secs().saturating_add(i64::from(duration.subsec_nanos() > 0)).max(1)
}

/// Where the backups of the VerticeBackup `name` are.
pub(crate) fn location(storage: &Storage, namespace: &str, name: &str) -> StorageLocation {
    let r#type = match storage.r#type {
        StorageType::S3 => "s3",
    };
    StorageLocation {
        r#type: r#type.to_owned(),
        bucket: storage.bucket.clone(),
        prefix: storage.prefix.clone().unwrap_or_else(|| format!("{namespace}/{name}")),
        endpoint: storage.endpoint.as_ref().map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
        region: storage.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        secret: storage.credentials.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_to_whole_seconds() {
        for (text, seconds) in [("1s", 1), ("1500ms", 2), ("2h30m", 9000), ("999ms", 1)] {
            assert_eq!(timeout(Some(text)).unwrap(), seconds, "{text}");
        }
        assert_eq!(timeout(None).unwrap(), 86_400);
    }

    #[test]
    fn a_wrong_duration_names_its_field_and_how_to_write_it() {
        let error = seconds("spec.startingDeadline", Some("soon")).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"spec.startingDeadline: "soon" is not a duration; write it like 90s, 15m or 1h30m"#
        );
    }
}
