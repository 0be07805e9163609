//! What is measured, its medians and its ratios.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;
use vertice_testbed::ledger::human_bytes;

/// One run, or the medians of several. Of each figure less is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Wall-clock time.
    pub seconds: f64,
    /// Time on processors, user and system, of the programs and all they started; the servers' is not in it.
    pub cpu_seconds: f64,
    /// The most that resided in memory at once, summed over the same processes; pages they share count for each.
    pub peak_memory_bytes: u64,
    /// What lies in the store, or in the file, afterwards.
    pub stored_bytes: u64,
}

/// All runs of one program.
#[derive(Clone, Debug)]
pub struct Series {
    /// The key in the report.
    pub name: &'static str,
    /// How it is called, for a person.
    pub settings: String,
    pub runs: Vec<Figures>,
}

/// Figures of one program, to be compared.
pub trait Comparable {
    /// Each figure with its name in the report.
    fn by_name(&self) -> Vec<(String, f64)>;
}

/// The machine-readable result.
#[derive(Debug, Serialize)]
pub struct Report<F = Figures> {
    bench: String,
    ours: F,
    peers: BTreeMap<&'static str, F>,
    /// `<peer>.<figure>`: ours divided by the peer's; absent where the peer's is 0.
    ratio: BTreeMap<String, f64>,
}

impl Figures {
    /// Of each figure its own median; `None` of no runs.
    fn median(runs: &[Self]) -> Option<Self> {
        Some(Self {
            seconds: median(runs.iter().map(|run| run.seconds), f64::midpoint).map(thousandths)?,
            cpu_seconds: median(runs.iter().map(|run| run.cpu_seconds), f64::midpoint).map(thousandths)?,
            peak_memory_bytes: median(runs.iter().map(|run| run.peak_memory_bytes), u64::midpoint)?,
            stored_bytes: median(runs.iter().map(|run| run.stored_bytes), u64::midpoint)?,
        })
    }
}

impl Comparable for Figures {
    #[expect(clippy::cast_precision_loss, reason = "three digits of the ratio are kept")]
    fn by_name(&self) -> Vec<(String, f64)> {
        let Self { seconds, cpu_seconds, peak_memory_bytes, stored_bytes } = *self;
        let figures = [
            ("seconds", seconds),
            ("cpu_seconds", cpu_seconds),
            ("peak_memory_bytes", peak_memory_bytes as f64),
            ("stored_bytes", stored_bytes as f64),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl Report {
    /// The first of `series` is ours, the others are its peers.
    pub fn new(bench: &str, series: &[Series]) -> Result<Self> {
        let medians = series.iter().map(|one| {
            Figures::median(&one.runs)
                .map(|figures| (one.name, figures))
                .with_context(|| format!("{} was not run", one.name))
        });
        Self::of(bench, medians.collect::<Result<Vec<_>>>()?)
    }
}

impl<F: Comparable> Report<F> {
    /// The first of `programs` is ours, the others are its peers.
    pub fn of(bench: &str, programs: Vec<(&'static str, F)>) -> Result<Self> {
        let mut programs = programs.into_iter();
        let (_, ours) = programs.next().context("nothing was run")?;
        let peers: BTreeMap<_, _> = programs.collect();
        let ratio = peers.iter().flat_map(|(peer, figures)| ratios(&ours, peer, figures)).collect();
        Ok(Self { bench: bench.to_owned(), ours, peers, ratio })
    }
}

fn ratios<F: Comparable>(ours: &F, peer: &str, theirs: &F) -> Vec<(String, f64)> {
    let pairs = ours.by_name().into_iter().zip(theirs.by_name());
    pairs
        .filter_map(|((name, ours), (_, theirs))| Some((format!("{peer}.{name}"), ratio(ours, theirs)?)))
        .collect()
}

/// Ours divided by theirs, with three decimals.
fn ratio(ours: f64, theirs: f64) -> Option<f64> {
    (theirs > 0.0).then(|| thousandths(ours / theirs))
}

pub fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The middle one; of an even number what lies halfway `between` the two in the middle.
pub fn median<T: Copy + PartialOrd>(values: impl Iterator<Item = T>, between: fn(T, T) -> T) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(between(values[values.len() / 2 - 1], upper))
}

/// The medians as a table for a person; of the seconds also the fastest and the slowest run, which tell whether the machine
/// was quiet.
pub fn table(series: &[Series]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header([
        "program",
        "seconds",
        "fastest–slowest",
        "CPU seconds",
        "peak memory",
        "stored",
    ]);
    for one in series {
        let Some(figures) = Figures::median(&one.runs) else { continue };
        let seconds = one.runs.iter().map(|run| run.seconds);
        table.add_row([
            one.name.to_owned(),
            format!("{:.2}", figures.seconds),
            format!(
                "{:.2}–{:.2}",
                seconds.clone().fold(f64::INFINITY, f64::min),
                seconds.fold(0.0, f64::max)
            ),
            format!("{:.2}", figures.cpu_seconds),
            human_bytes(figures.peak_memory_bytes),
            human_bytes(figures.stored_bytes),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: f64, stored_bytes: u64) -> Figures {
        Figures { seconds, cpu_seconds: seconds * 1.5, peak_memory_bytes: 40_000_000, stored_bytes }
    }

    fn series(name: &'static str, runs: Vec<Figures>) -> Series {
        Series { name, settings: String::new(), runs }
    }

    fn sample() -> [Series; 3] {
        [
            series("vertice", vec![run(9.0, 30), run(2.0, 10), run(3.0, 20)]),
            series("restic", vec![run(4.0, 25); 3]),
            // Nothing stored: a ratio to it would be infinite, which JSON cannot say.
            series("pg_dump", vec![run(1.0, 0), run(2.0, 0)]),
        ]
    }

    #[test]
    fn the_median_is_the_middle_or_halfway_between_the_two_in_the_middle() {
        let of = |values: &[f64]| median(values.iter().copied(), f64::midpoint);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7.0]), Some(7.0));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[9.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([u64::MAX, u64::MAX - 2].into_iter(), u64::midpoint), Some(u64::MAX - 1));
    }

    #[test]
    fn a_ratio_below_one_says_that_ours_takes_less() {
        assert_eq!(ratio(1.0, 3.0), Some(0.333));
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
    }

    #[test]
    fn the_report_has_the_shape_that_readers_of_json_rely_on() {
        insta::assert_json_snapshot!(Report::new("backup", &sample()).unwrap());
        let line = serde_json::to_string(&Report::new("backup", &sample()).unwrap()).unwrap();
        assert!(!line.contains('\n'), "{line}");
    }

    #[test]
    fn a_series_without_runs_is_an_error_and_no_figure() {
        let error = Report::new("backup", &[series("vertice", vec![])]).unwrap_err();
        assert_eq!(error.to_string(), "vertice was not run");
    }

    #[test]
    fn the_table_shows_medians_and_the_spread() {
        insta::assert_snapshot!(table(&sample()));
    }
}
