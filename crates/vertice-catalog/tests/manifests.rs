//! Golden manifests: every `v1-*.json` must parse for ever, because backups live longer than programs.

// clippy.toml allows it in test functions; here the helpers are tests as well.
#![allow(clippy::unwrap_used)]

use vertice_catalog::id::BackupId;
use vertice_catalog::manifest::Manifest;

const MINIMAL: &str = include_str!("fixtures/v1-minimal.json");
const FULL: &str = include_str!("fixtures/v1-full.json");

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

fn minimal() -> BackupId {
    id("20261121T020000Z-3f9a1c")
}

/// The error with its causes, as a person reads it.
fn told(result: Result<Manifest, vertice_catalog::manifest::ManifestError>) -> String {
    let error = result.unwrap_err();
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

#[test]
fn minimal_v1_parses() {
    insta::assert_debug_snapshot!(Manifest::parse(&minimal(), MINIMAL.as_bytes()).unwrap());
}

#[test]
fn full_v1_parses() {
    insta::assert_debug_snapshot!(Manifest::parse(&id("20261122T031500Z-00ff42"), FULL.as_bytes()).unwrap());
}

#[test]
fn what_is_written_reads_back_the_same() {
    for (json, folder) in [(MINIMAL, "20261121T020000Z-3f9a1c"), (FULL, "20261122T031500Z-00ff42")] {
        let manifest = Manifest::parse(&id(folder), json.as_bytes()).unwrap();
        let written = manifest.to_json().unwrap();
        assert_eq!(Manifest::parse(&id(folder), &written).unwrap(), manifest);
        assert!(written.ends_with(b"}\n"));
    }
}

#[test]
fn the_written_form_is_stable() {
    let manifest = Manifest::parse(&id("20261122T031500Z-00ff42"), FULL.as_bytes()).unwrap();
    insta::assert_snapshot!(String::from_utf8(manifest.to_json().unwrap()).unwrap());
}

#[test]
fn sums_and_look_ups() {
    let manifest = Manifest::parse(&minimal(), MINIMAL.as_bytes()).unwrap();
    assert_eq!((manifest.plain_bytes(), manifest.stored_bytes()), (1201, 417));
    assert!(manifest.object("globals.sql.gz").is_some() && manifest.object("globals.sql").is_none());
}

#[test]
fn refusals_read_well() {
    let parse = |json: &str| told(Manifest::parse(&minimal(), json.as_bytes()));
    let refusals = [
        parse(include_str!("fixtures/v2-too-new.json")),
        parse(include_str!("fixtures/malformed-no-engine.json")),
        parse(include_str!("fixtures/malformed-cut-off.json")),
        parse(FULL),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}
