//! What an operator at rest costs, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use vertice_testbed::ledger::human_bytes;

use super::operator::Program;
use crate::bench::figures::{Comparable, Report, thousandths};

/// What one operator costs with one number of objects. Of each figure less is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Memory that resides, in the middle of all looks.
    pub rss_bytes: u64,
    /// Time on processors, user and system.
    pub cpu_seconds_per_minute: f64,
    /// Requests to the API server, without those for the Lease; opening a watch is one.
    pub requests_per_minute: f64,
    /// Those that may change something, events included.
    pub writes_per_minute: f64,
    /// From the start of the process until it is ready and has gone through all objects.
    pub startup_seconds: f64,
}

/// The costs of all programs, by the number of objects.
#[derive(Debug)]
pub struct Costs {
    /// What the peer is built with.
    pub peer: String,
    /// How long the operators were watched.
    pub window: Duration,
    pub programs: BTreeMap<Program, BTreeMap<u32, Cost>>,
}

/// A program's figures by their names, such as `rss_bytes_1000`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, serde_json::Number>);

impl Figures {
    fn new(costs: &BTreeMap<u32, Cost>) -> Result<Self> {
        let mut figures = BTreeMap::new();
        for (size, cost) in costs {
            let Cost { rss_bytes, .. } = *cost;
            figures.insert(format!("rss_bytes_{size}"), rss_bytes.into());
            for (name, value) in [
                ("cpu_seconds_per_minute", cost.cpu_seconds_per_minute),
                ("requests_per_minute", cost.requests_per_minute),
                ("writes_per_minute", cost.writes_per_minute),
                ("startup_seconds", cost.startup_seconds),
            ] {
                let value = serde_json::Number::from_f64(thousandths(value));
                figures
                    .insert(format!("{name}_{size}"), value.with_context(|| format!("{name} is no number"))?);
            }
        }
        Ok(Self(figures))
    }
}

impl Comparable for Figures {
    fn by_name(&self) -> Vec<(String, f64)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.as_f64().unwrap_or_default())).collect()
    }
}

/// The machine-readable result.
pub fn report(bench: &str, costs: &Costs) -> Result<Report<Figures>> {
    let programs = costs.programs.iter().map(|(program, costs)| Ok((program.name(), Figures::new(costs)?)));
    Report::of(bench, programs.collect::<Result<_>>()?)
}

/// A table for a person, and what was compared.
pub fn table(costs: &Costs) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header([
        "objects",
        "program",
        "memory",
        "CPU s/min",
        "requests/min",
        "writes/min",
        "start",
    ]);
    let sizes = costs.programs.values().next().into_iter().flat_map(BTreeMap::keys);
    for size in sizes {
        for (program, of_program) in &costs.programs {
            let Some(cost) = of_program.get(size) else { continue };
            table.add_row([
                size.to_string(),
                program.name().to_owned(),
                human_bytes(cost.rss_bytes),
                format!("{:.3}", cost.cpu_seconds_per_minute),
                format!("{:.2}", cost.requests_per_minute),
                format!("{:.2}", cost.writes_per_minute),
                format!("{:.2} s", cost.startup_seconds),
            ]);
        }
    }
    format!(
        "{table}\nvertice: vertice operator backup, with the flags and rights of the chart\n\
         controller-runtime: testbed/idle-operator, which does the same for objects at rest; {}\n\
         At rest for {} s. Requests are those that the API server counted for each operator's account, without those for its Lease.",
        costs.peer,
        costs.window.as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Costs {
        let cost = |scale: f64| Cost {
            rss_bytes: 40_000_000,
            cpu_seconds_per_minute: 0.06 * scale,
            requests_per_minute: 1.5 * scale,
            writes_per_minute: 0.0,
            startup_seconds: 0.4 * scale,
        };
        let of = |scale: f64| BTreeMap::from([(0, cost(scale)), (10_000, cost(scale * 2.0))]);
        Costs {
            peer: "controller-runtime v0.0.1".into(),
            window: Duration::from_mins(1),
            programs: [(Program::Vertice, of(1.0)), (Program::ControllerRuntime, of(3.0))].into(),
        }
    }

    #[test]
    fn the_report_has_the_shape_that_readers_of_json_rely_on() {
        insta::assert_json_snapshot!(report("idle", &costs()).unwrap());
    }

    #[test]
    fn the_table_tells_each_program_with_each_number_of_objects() {
        insta::assert_snapshot!(table(&costs()));
    }
}
