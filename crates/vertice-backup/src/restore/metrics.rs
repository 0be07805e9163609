//! Metrics of VerticeRestores.

use std::fmt;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use vertice_api::vertice_io::{RestorePhase, VerticeRestore};

use crate::metrics::{count, family};

/// The ends that are counted, as the label `outcome`.
const OUTCOMES: [(&str, RestorePhase); 2] =
    [("success", RestorePhase::Succeeded), ("failure", RestorePhase::Failed)];

/// Reads the cache at every scrape.
#[derive(Debug)]
pub(super) struct RestoreMetrics {
    restores: Store<VerticeRestore>,
}

impl RestoreMetrics {
    /// Over all cached VerticeRestores.
    pub(super) fn new(restores: Store<VerticeRestore>) -> Self {
        Self { restores }
    }
}

impl Collector for RestoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut restores: Vec<Arc<VerticeRestore>> = self.restores.state();
        restores.sort_by_key(|restore| (restore.namespace(), restore.name_any()));
        let encoder = &mut encoder;

        let outcomes = restores.iter().flat_map(|restore| {
            OUTCOMES.into_iter().map(|(outcome, phase)| {
                let value = u64::from(current(restore) == phase);
                (labels(restore, Some(("outcome", outcome))), move |metric: &mut MetricEncoder<'_>| {
                    metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
                })
            })
        });
        family(encoder, ("vertice_restore", "Restores that ended, by how", MetricType::Counter), outcomes)?;

        let sizes = restores.iter().map(|restore| {
            let size = restore.status.as_ref().and_then(|status| status.size_bytes).map_or(0, count);
            (labels(restore, None), move |metric: &mut MetricEncoder<'_>| metric.encode_gauge(&size))
        });
        family(
            encoder,
            ("vertice_restore_size_bytes", "Bytes put into the server", MetricType::Gauge),
            sizes,
        )?;

        let phases = restores.iter().flat_map(|restore| {
            RestorePhase::ALL.into_iter().map(|phase| {
                let value = i64::from(current(restore) == phase);
                (labels(restore, Some(("phase", phase.as_str()))), move |metric: &mut MetricEncoder<'_>| {
                    metric.encode_gauge(&value)
                })
            })
        });
        let help = "1 for the phase that the VerticeRestore is in, else 0";
        family(encoder, ("vertice_restore_phase", help, MetricType::Gauge), phases)
    }
}

fn current(restore: &VerticeRestore) -> RestorePhase {
    restore.status.as_ref().and_then(|status| status.phase).unwrap_or(RestorePhase::Pending)
}

fn labels(restore: &VerticeRestore, more: Option<(&'static str, &str)>) -> Vec<(&'static str, String)> {
    let own = [("namespace", restore.namespace().unwrap_or_default()), ("name", restore.name_any())];
    own.into_iter().chain(more.map(|(name, value)| (name, value.to_owned()))).collect()
}
