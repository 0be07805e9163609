//! Metrics of controllers, and the registry that the admin server shows.

use std::{
    fmt::{self, Debug},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::leader::Leadership;

/// How a reconcile ended, as the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReconcileResult {
    /// It went through.
    Success,
    /// It failed and is tried again later.
    Error,
    /// It worked on an outdated copy; tried again with the current one. Normal now and then.
    Conflict,
    /// It panicked: a bug. Tried again later like an error.
    Panic,
}

impl ReconcileResult {
    const ALL: [Self; 4] = [Self::Success, Self::Error, Self::Conflict, Self::Panic];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Conflict => "conflict",
            Self::Panic => "panic",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    controller: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    controller: String,
    verb: &'static str,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    controller: String,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabel {
    lease: String,
}

/// All metrics of one process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<RwLock<Registry>>,
    families: Arc<Families>,
}

#[derive(Debug)]
struct Families {
    reconciles: Family<ResultLabels, Counter>,
    durations: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    panics: Family<ControllerLabel, Counter>,
    depth: Family<ControllerLabel, Gauge>,
    running: Family<ControllerLabel, Gauge>,
    writes: Family<WriteLabels, Counter>,
    drift: Family<KindLabels, Counter>,
    leader: Family<LeaseLabel, Gauge>,
}

fn duration_histogram() -> Histogram {
    // 1 ms to 65 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

impl Default for Families {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            panics: Family::default(),
            depth: Family::default(),
            running: Family::default(),
            writes: Family::default(),
            drift: Family::default(),
            leader: Family::default(),
        }
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry that holds the metrics every controller has.
    #[must_use]
    pub fn new() -> Self {
        let families = Families::default();
        let mut registry = Registry::default();
        let Families { reconciles, durations, panics, depth, running, writes, drift, leader } = &families;
        registry.register("vertice_controller_reconcile", "Reconciles by how they ended", reconciles.clone());
        registry.register(
            "vertice_controller_reconcile_duration_seconds",
            "How long reconciles took, in seconds",
            durations.clone(),
        );
        registry.register(
            "vertice_controller_reconcile_panics",
            "Reconciles that panicked; each is also counted among the reconciles",
            panics.clone(),
        );
        registry.register(
            "vertice_controller_queue_depth",
            "Objects that wait for a free worker",
            depth.clone(),
        );
        registry.register("vertice_controller_running", "Reconciles that run now", running.clone());
        registry.register(
            "vertice_controller_api_writes",
            "Requests sent to the API server that may change something, by verb and resource (as in RBAC rules)",
            writes.clone(),
        );
        registry.register(
            "vertice_controller_drift_corrected",
            "Objects whose fields someone else had changed and that were set right",
            drift.clone(),
        );
        registry.register(
            "vertice_controller_leader",
            "1 while this process holds the lease, else 0",
            leader.clone(),
        );
        Self { registry: Arc::new(RwLock::new(registry)), families: Arc::new(families) }
    }

    /// Registers metrics of a kind's own.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Registers a collector, which is asked at every scrape. A kind's figures come best from one, read from its cache: there is
    /// nothing to keep in step, and what is deleted disappears by itself. See [`crate::Manager::leader_collector`] for these.
    pub fn register_collector(&self, collector: impl Collector) {
        self.register(|registry| registry.register_collector(Box::new(collector)));
    }

    /// As [`Metrics::register_collector`], but asked only while this process leads. For figures of objects rather than of this
    /// process: every replica has them in its cache, and a sum over the replicas would count each object several times.
    pub(crate) fn register_leader_collector(&self, leadership: Leadership, collector: impl Collector) {
        self.register_collector(LeaderCollector { leadership, collector });
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry.read().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }

    /// The metrics of one controller. Its series exist from here on, at 0, so that `increase()` sees the first event.
    #[must_use]
    pub fn controller(&self, controller: &str) -> ControllerMetrics {
        let metrics =
            ControllerMetrics { controller: controller.to_owned(), families: Arc::clone(&self.families) };
        for result in ReconcileResult::ALL {
            drop(metrics.families.reconciles.get_or_create(&metrics.result(result)));
        }
        drop(metrics.families.durations.get_or_create(&metrics.label()));
        drop(metrics.families.panics.get_or_create(&metrics.label()));
        metrics.queue(0, 0);
        metrics
    }

    pub(crate) fn set_leader(&self, lease: &str, leading: bool) {
        let label = LeaseLabel { lease: lease.to_owned() };
        self.families.leader.get_or_create(&label).set(i64::from(leading));
    }
}

#[derive(Debug)]
struct LeaderCollector<C> {
    leadership: Leadership,
    collector: C,
}

impl<C: Collector> Collector for LeaderCollector<C> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.leadership.leads() { self.collector.encode(encoder) } else { Ok(()) }
    }
}

/// The metrics of one controller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControllerMetrics {
    controller: String,
    families: Arc<Families>,
}

impl ControllerMetrics {
    fn label(&self) -> ControllerLabel {
        ControllerLabel { controller: self.controller.clone() }
    }

    fn result(&self, result: ReconcileResult) -> ResultLabels {
        ResultLabels { controller: self.controller.clone(), result: result.as_str() }
    }

    pub(crate) fn reconciled(&self, result: ReconcileResult, took: Duration) {
        self.families.reconciles.get_or_create(&self.result(result)).inc();
        self.families.durations.get_or_create(&self.label()).observe(took.as_secs_f64());
        if result == ReconcileResult::Panic {
            self.families.panics.get_or_create(&self.label()).inc();
        }
    }

    pub(crate) fn queue(&self, depth: usize, running: usize) {
        let label = self.label();
        self.families.depth.get_or_create(&label).set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.families.running.get_or_create(&label).set(i64::try_from(running).unwrap_or(i64::MAX));
    }

    pub(crate) fn api_write(&self, verb: &'static str, kind: &str) {
        let labels = WriteLabels { controller: self.controller.clone(), verb, kind: kind.to_owned() };
        self.families.writes.get_or_create(&labels).inc();
    }

    pub(crate) fn drift_corrected(&self, kind: &str) {
        let labels = KindLabels { controller: self.controller.clone(), kind: kind.to_owned() };
        self.families.drift.get_or_create(&labels).inc();
    }

    /// How many reconciles ended with `result` so far.
    #[must_use]
    pub fn reconciles(&self, result: ReconcileResult) -> u64 {
        self.families.reconciles.get_or_create(&self.result(result)).get()
    }

    /// How many writes were sent so far, whatever their verb, for a resource such as `jobs` or `verticebackups/status`.
    #[must_use]
    pub fn writes(&self, kind: &str) -> u64 {
        ["create", "update", "patch", "delete", "deletecollection"]
            .into_iter()
            .map(|verb| WriteLabels { controller: self.controller.clone(), verb, kind: kind.to_owned() })
            .filter_map(|labels| self.families.writes.get(&labels).map(|counter| counter.get()))
            .sum()
    }

    /// How many objects of a kind were set right so far.
    #[must_use]
    pub fn drift(&self, kind: &str) -> u64 {
        let labels = KindLabels { controller: self.controller.clone(), kind: kind.to_owned() };
        self.families.drift.get(&labels).map_or(0, |counter| counter.get())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        encoding::EncodeMetric,
        metrics::{MetricType, gauge::ConstGauge},
    };
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn every_series_of_a_controller_is_there_before_anything_happened() {
        let metrics = Metrics::new();
        let _ = metrics.controller("backup");
        metrics.set_leader("vertice-backup", false);
        // Families are hash maps: their series come in any order.
        let text = metrics.encode().unwrap();
        let mut lines: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{")).collect();
        lines.sort_unstable();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn what_happened_is_counted_under_its_labels() {
        let metrics = Metrics::new();
        let controller = metrics.controller("backup");
        controller.reconciled(ReconcileResult::Success, Duration::from_millis(3));
        controller.reconciled(ReconcileResult::Panic, Duration::from_millis(3));
        controller.api_write("patch", "cronjobs");
        controller.api_write("delete", "cronjobs");
        controller.drift_corrected("cronjobs");
        controller.queue(7, 2);
        metrics.set_leader("vertice-backup", true);
        let text = metrics.encode().unwrap();
        for line in [
            r#"vertice_controller_reconcile_total{controller="backup",result="success"} 1"#,
            r#"vertice_controller_reconcile_total{controller="backup",result="panic"} 1"#,
            r#"vertice_controller_reconcile_total{controller="backup",result="error"} 0"#,
            r#"vertice_controller_reconcile_panics_total{controller="backup"} 1"#,
            r#"vertice_controller_reconcile_duration_seconds_count{controller="backup"} 2"#,
            r#"vertice_controller_api_writes_total{controller="backup",verb="patch",kind="cronjobs"} 1"#,
            r#"vertice_controller_drift_corrected_total{controller="backup",kind="cronjobs"} 1"#,
            r#"vertice_controller_queue_depth{controller="backup"} 7"#,
            r#"vertice_controller_running{controller="backup"} 2"#,
            r#"vertice_controller_leader{lease="vertice-backup"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(controller.writes("cronjobs"), 2);
        assert_eq!(controller.writes("jobs"), 0);
        assert_eq!(controller.drift("cronjobs"), 1);
        assert_eq!(controller.reconciles(ReconcileResult::Success), 1);
    }

    #[derive(Debug)]
    struct Reads(Arc<AtomicI64>);

    impl Collector for Reads {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let metric =
                encoder.encode_descriptor("vertice_test_objects", "Objects", None, MetricType::Gauge)?;
            ConstGauge::new(self.0.load(Ordering::SeqCst)).encode(metric)
        }
    }

    #[test]
    fn a_collector_reads_the_state_of_the_moment() {
        let metrics = Metrics::new();
        let state = Arc::new(AtomicI64::new(3));
        metrics.register_collector(Reads(Arc::clone(&state)));
        assert!(metrics.encode().unwrap().contains("vertice_test_objects 3\n"));
        state.store(5, Ordering::SeqCst);
        assert!(metrics.encode().unwrap().contains("vertice_test_objects 5\n"));
    }
}
