//! What the matrix prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::matrix::Played;
use crate::normalise::{LOSSES, Loss, RULES};
use crate::run::Outcome;

/// Lines of a difference that are shown without being asked for.
const LINES: usize = 12;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.to_vec());
    table
}

/// By fault: tried and diverged.
#[must_use]
pub fn faults(played: &[Played]) -> String {
    let mut sums: BTreeMap<Fault, (usize, usize)> = BTreeMap::new();
    for (fault, (tried, diverged)) in played.iter().flat_map(|played| &played.faults) {
        let sum = sums.entry(*fault).or_default();
        *sum = (sum.0 + tried, sum.1 + diverged);
    }
    let mut table = table(&["fault", "points", "diverged"]);
    for (fault, (tried, diverged)) in sums {
        table.add_row([fault.to_string(), tried.to_string(), diverged.to_string()]);
    }
    table.to_string()
}

/// By story: points, diverged, time.
#[must_use]
pub fn stories(played: &[Played]) -> String {
    let mut table = table(&["story", "points", "diverged", "not met", "seconds", "a point", "longest"]);
    for one in played {
        let points = one.points();
        let seconds = one.took.as_secs_f64();
        let each =
            one.took.checked_div(u32::try_from(points).unwrap_or(u32::MAX).max(1)).unwrap_or(Duration::ZERO);
        table.add_row([
            one.story.clone(),
            points.to_string(),
            one.diverged.len().to_string(),
            one.missed.len().to_string(),
            format!("{seconds:.0}"),
            format!("{:.1} s", each.as_secs_f64()),
            format!("{:.1} s", one.longest.as_secs_f64()),
        ]);
    }
    table.to_string()
}

/// What may differ, and why.
#[must_use]
pub fn rules() -> String {
    let mut table = table(&["where", "what is done", "why"]);
    for rule in RULES {
        table.add_row([rule.path.join("."), rule.how.told().to_owned(), rule.why.to_owned()]);
    }
    table.to_string()
}

/// What more may differ when a person deleted an object, and why.
#[must_use]
pub fn losses() -> String {
    let mut table = table(&["deleted", "by", "where", "what is done", "why"]);
    for Loss { kind, faults, cut, rule } in &LOSSES {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let kind = if *cut { format!("{kind} with a run under way") } else { (*kind).to_owned() };
        table.add_row([kind.as_str(), &faults.join(", "), &rule.path.join("."), rule.how.told(), rule.why]);
    }
    table.to_string()
}

/// How a point is named so that it can be tried alone.
#[must_use]
pub fn name(story: &str, outcome: &Outcome) -> String {
    match &outcome.strike {
        Some(strike) => format!("{story}/{strike}"),
        None => format!("{story}, in peace"),
    }
}

/// A trial that diverged, and how to run just it.
#[must_use]
pub fn diverged(story: &str, outcome: &Outcome, all: bool) -> String {
    let name = name(story, outcome);
    let mut text = format!("diverged: {name}\n");
    for finding in &outcome.findings {
        let shown = if all { finding.lines.len() } else { LINES };
        for line in finding.lines.iter().take(shown) {
            let _ = writeln!(text, "  {}: {line}", finding.oracle);
        }
        if let Some(more) = finding.lines.len().checked_sub(shown).filter(|more| *more > 0) {
            let _ = writeln!(text, "  {}: {more} more, --verbose shows them", finding.oracle);
        }
    }
    if outcome.strike.is_some() {
        let _ = writeln!(text, "  again: cargo xtask crash-matrix --point '{name}'");
    }
    text
}

/// The seeded faults: what showed each of them, and where.
#[cfg(feature = "mutants")]
#[must_use]
pub fn mutants(found: &crate::mutants::Report) -> String {
    let mut table = table(&["seeded fault", "shown by", "at"]);
    for verdict in &found.verdicts {
        let (oracle, place) = if let Some(caught) = &verdict.caught {
            (caught.oracle.to_string(), caught.place.to_string())
        } else {
            let tried: Vec<_> = verdict.tried.iter().map(|(place, _)| place.to_string()).collect();
            ("NOT CAUGHT".to_owned(), tried.join(", "))
        };
        table.add_row([verdict.mutant.to_string(), oracle, place]);
    }
    table.to_string()
}

/// Figures of the stories, for the last line.
#[must_use]
pub fn figures(played: &[Played]) -> Value {
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for one in played {
        let sum = kinds.entry(one.kind.to_string()).or_default();
        *sum = (sum.0 + one.points(), sum.1 + one.diverged.len());
    }
    let kinds: BTreeMap<_, _> = kinds
        .into_iter()
        .map(|(kind, (points, diverged))| (kind, json!({"points": points, "diverged": diverged})))
        .collect();
    json!({
        "points": played.iter().map(Played::points).sum::<usize>(),
        "diverged": played.iter().map(|one| one.diverged.len()).sum::<usize>(),
        "not_met": played.iter().map(|one| one.missed.len()).sum::<usize>(),
        "kinds": kinds,
    })
}
