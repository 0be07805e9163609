//! Metrics of VerticeBackups.
//!
//! Counters come from `status.totals`, so they go on where they were after a restart, and a new VerticeBackup starts at 0 in the
//! first scrape that sees it.

use std::fmt;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use vertice_api::vertice_io::{
    BackupPhase, BackupTotals, DURATION_BUCKETS, VerticeBackup, VerticeBackupStatus,
};

use crate::metrics::{count, family, seconds};

type Labels = Vec<(&'static str, String)>;

/// Reads the cache at every scrape.
#[derive(Debug)]
pub(crate) struct BackupMetrics {
    backups: Store<VerticeBackup>,
}

/// One VerticeBackup as metrics see it.
struct Subject {
    labels: Labels,
    status: VerticeBackupStatus,
    totals: BackupTotals,
}

impl BackupMetrics {
    /// Over all cached VerticeBackups.
    pub(crate) fn new(backups: Store<VerticeBackup>) -> Self {
        Self { backups }
    }

    fn subjects(&self) -> Vec<Subject> {
        let mut backups: Vec<Arc<VerticeBackup>> = self.backups.state();
        backups.sort_by_key(|backup| (backup.namespace(), backup.name_any()));
        backups.iter().map(|backup| Subject::new(backup)).collect()
    }
}

impl Subject {
    fn new(backup: &VerticeBackup) -> Self {
        let labels = vec![
            ("namespace", backup.namespace().unwrap_or_default()),
            ("name", backup.name_any()),
            ("type", backup.spec.target.r#type.as_str().to_owned()),
        ];
        let status = backup.status.clone().unwrap_or_default();
        let totals = status.totals.clone().unwrap_or_default();
        Self { labels, status, totals }
    }
}

impl Collector for BackupMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let subjects = self.subjects();
        counters(&mut encoder, &subjects)?;
        durations(&mut encoder, &subjects)?;
        gauges(&mut encoder, &subjects)?;
        phases(&mut encoder, &subjects)
    }
}

fn counters(encoder: &mut DescriptorEncoder<'_>, subjects: &[Subject]) -> fmt::Result {
    type Total = fn(&BackupTotals) -> i64;
    // The encoder appends `_total`.
    let totals: [(&str, &str, Total); 4] = [
        ("vertice_backup", "Backup runs that ended", |totals| totals.runs),
        ("vertice_backup_success", "Backup runs that succeeded", |totals| totals.succeeded),
        ("vertice_backup_failure", "Backup runs that failed", |totals| totals.failed),
        ("vertice_backup_missed", "Times that a backup run was due and did not start", |totals| {
            totals.missed
        }),
    ];
    for (name, help, total) in totals {
        let series = subjects.iter().map(|subject| {
            let value = count(total(&subject.totals));
            (subject.labels.clone(), move |metric: &mut MetricEncoder<'_>| {
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
            })
        });
        family(encoder, (name, help, MetricType::Counter), series)?;
    }
    Ok(())
}

fn durations(encoder: &mut DescriptorEncoder<'_>, subjects: &[Subject]) -> fmt::Result {
    let series = subjects.iter().map(|subject| {
        let totals = subject.totals.clone();
        (subject.labels.clone(), move |metric: &mut MetricEncoder<'_>| {
            let bounds = DURATION_BUCKETS.into_iter().chain([f64::INFINITY]);
            let counts = totals.duration_buckets.iter().copied().chain(std::iter::repeat(0));
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.map(count)).collect();
            metric.encode_histogram::<NoLabelSet>(totals.duration_seconds, count(totals.runs), &buckets, None)
        })
    });
    let help = "How long backup runs took, in seconds";
    family(encoder, ("vertice_backup_duration_seconds", help, MetricType::Histogram), series)
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, subjects: &[Subject]) -> fmt::Result {
    type Value = fn(&VerticeBackupStatus) -> Option<f64>;
    // The size is 0 before the first backup; times are absent, as a time of 0 would read as an age of fifty years.
    let gauges: [(&str, &str, Value); 3] = [
        ("vertice_backup_size_bytes", "Stored bytes of the last successful backup", |status| {
            let size = status.last_success.as_ref().and_then(|run| run.size_bytes).unwrap_or(0);
            // Exact up to 2^53 bytes, 9 PB.
            #[allow(clippy::cast_precision_loss)]
            Some(size as f64)
        }),
        ("vertice_backup_last_success_timestamp_seconds", "Start of the last successful run", |status| {
            status.last_success.as_ref().map(|run| seconds(run.timestamp.0))
        }),
        (
            "vertice_backup_next_timestamp_seconds",
            "When the schedule fires next; absent while suspended",
            |status| status.next_backup.as_ref().map(|next| seconds(next.0)),
        ),
    ];
    for (name, help, value) in gauges {
        let series = subjects.iter().filter_map(|subject| {
            let value = value(&subject.status)?;
            Some((subject.labels.clone(), move |metric: &mut MetricEncoder<'_>| metric.encode_gauge(&value)))
        });
        family(encoder, (name, help, MetricType::Gauge), series)?;
    }
    Ok(())
}

fn phases(encoder: &mut DescriptorEncoder<'_>, subjects: &[Subject]) -> fmt::Result {
    let series = subjects.iter().flat_map(|subject| {
        let current = subject.status.phase.unwrap_or(BackupPhase::Pending);
        BackupPhase::ALL.into_iter().map(move |phase| {
            let mut labels = subject.labels.clone();
            labels.push(("phase", phase.as_str().to_owned()));
            let value = i64::from(phase == current);
            (labels, move |metric: &mut MetricEncoder<'_>| metric.encode_gauge(&value))
        })
    });
    let help = "1 for the phase that the VerticeBackup is in, else 0";
    family(encoder, ("vertice_backup_phase", help, MetricType::Gauge), series)
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use vertice_controller::metrics::Metrics;

    use super::*;
    use crate::backup::tests::fixture;

    #[test]
    fn a_new_backup_starts_at_zero_and_an_old_one_goes_on_where_it_was() {
        let mut writer = Writer::default();
        let metrics = Metrics::new();
        metrics.register_collector(BackupMetrics::new(writer.as_reader()));
        let new: VerticeBackup = fixture("new");
        let seasoned: VerticeBackup = fixture("seasoned");
        for backup in [new, seasoned] {
            writer.apply_watcher_event(&Event::Apply(backup));
        }
        let text = metrics.encode().unwrap();
        let ours: Vec<_> = text.lines().filter(|line| line.contains("vertice_backup_")).collect();
        insta::assert_snapshot!(ours.join("\n"));
    }
}
