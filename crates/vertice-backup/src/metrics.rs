//! Metrics that are read from the cached objects at every scrape: nothing to keep in step, nothing lost over a restart, and what is
//! deleted disappears by itself.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// One metric: its description once, then a series an object.
pub(crate) fn family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    series: impl IntoIterator<Item = (L, impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, encode) in series {
        encode(&mut metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The totals of a status as an unsigned number; the status never holds a negative one.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Seconds since the epoch.
pub(crate) fn seconds(at: jiff::Timestamp) -> f64 {
    at.duration_since(jiff::Timestamp::UNIX_EPOCH).as_secs_f64()
}
