use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use super::*;
use crate::report::Reporter;

/// A checkout with the part `pause` alone, whose program prints `greeting`.
fn checkout(greeting: &str) -> (tempfile::TempDir, Paths) {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path(), "target");
    let sources = paths.sources().join("pause");
    fs::create_dir_all(&sources).unwrap();
    fs::write(sources.join("go.mod"), "module testbed/pause\n\ngo 1.24\n").unwrap();
    write_program(&paths, greeting);
    (folder, paths)
}

fn write_program(paths: &Paths, greeting: &str) {
    let program = format!("package main\n\nfunc main() {{ println(\"{greeting}\") }}\n");
    fs::write(paths.sources().join("pause/main.go"), program).unwrap();
}

fn silent(paths: &Paths) -> Ledger {
    Ledger::open(paths, Reporter::new(|_| {}))
}

fn said(parts: &Parts) -> String {
    let output = std::process::Command::new(parts.bin("pause")).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_part_is_built_once_and_again_when_its_source_changes() {
    let (_folder, paths) = checkout("first");
    let ledger = silent(&paths);
    let parts = ensure(&paths, &[Part::Pause], &ledger).unwrap();
    assert_eq!(said(&parts), "first\n");
    ensure(&paths, &[Part::Pause], &ledger).unwrap();

    write_program(&paths, "second");
    assert_eq!(said(&ensure(&paths, &[Part::Pause], &ledger).unwrap()), "second\n");
    let work: Vec<_> = ledger.entries().unwrap().into_iter().map(|entry| entry.work).collect();
    assert_eq!(work, [Work::Cold, Work::Cached, Work::Cold]);
    let kept = fs::read_dir(paths.parts()).unwrap().count();
    assert_eq!(kept, 1, "the state built first was not removed");
}

#[test]
fn what_a_killed_build_left_is_not_taken_for_a_part() {
    let (_folder, paths) = checkout("whole");
    let scratch = paths.parts().join(".building-pause");
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("pause"), "half").unwrap();
    fs::write(scratch.join("leftover"), "").unwrap();
    let parts = ensure(&paths, &[Part::Pause], &silent(&paths)).unwrap();
    assert_eq!(said(&parts), "whole\n");
    assert!(!scratch.exists());
}

#[test]
fn a_program_that_lost_its_link_gets_it_back_without_a_build() {
    let (_folder, paths) = checkout("linked");
    let ledger = silent(&paths);
    fs::remove_file(ensure(&paths, &[Part::Pause], &ledger).unwrap().bin("pause")).unwrap();
    assert_eq!(said(&ensure(&paths, &[Part::Pause], &ledger).unwrap()), "linked\n");
    assert_eq!(ledger.entries().unwrap()[1].work, Work::Cached);
}

#[test]
fn two_at_once_build_once_and_the_second_says_that_it_waits() {
    let (_folder, paths) = checkout("one");
    let held = lock(&paths, &silent(&paths)).unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (waits, waiting) = std::sync::mpsc::channel();
    let heard = Arc::clone(&lines);
    let reporter = Reporter::new(move |line| {
        heard.lock().unwrap().push(line.to_owned());
        let _ = waits.send(());
    });
    let second = std::thread::spawn({
        let (paths, ledger) = (paths.clone(), Ledger::open(&paths, reporter));
        move || ensure(&paths, &[Part::Pause], &ledger).map(|parts| (said(&parts), ledger))
    });
    waiting.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    // What the first process does while it holds the lock.
    ensure_locked(&paths, &Built::locate(&paths, Part::Pause).unwrap(), &silent(&paths)).unwrap();
    drop(held);

    let (greeting, ledger) = second.join().unwrap().unwrap();
    assert_eq!(greeting, "one\n");
    assert_eq!(ledger.entries().unwrap().last().map(|entry| entry.work), Some(Work::Cached));
    assert_eq!(*lines.lock().unwrap(), ["waiting for another process that builds parts of the testbed"]);
}

#[test]
fn a_failed_build_says_what_the_compiler_said() {
    let (_folder, paths) = checkout("x");
    fs::write(paths.sources().join("pause/main.go"), "package main\n\nfunc main() { nonsense() }\n").unwrap();
    let error = ensure(&paths, &[Part::Pause], &silent(&paths)).unwrap_err().to_string();
    assert!(error.contains("failed to build pause") && error.contains("undefined: nonsense"), "{error}");
    assert!(!paths.bin().join("pause").exists());
}

#[test]
fn the_key_follows_checksums_toolchain_and_recipe_but_not_tests() {
    let (_folder, paths) = checkout("x");
    let sources = paths.sources().join("pause");
    let key = |toolchain: &str, part: Part| key::key(&sources, toolchain, part.recipe()).unwrap();
    let first = key("go1.26.8 linux amd64", Part::Pause);
    assert_eq!(first, key("go1.26.8 linux amd64", Part::Pause));
    assert_ne!(first, key("go1.26.9 linux amd64", Part::Pause));
    assert_ne!(first, key("go1.26.8 linux amd64", Part::CronOracle));
    fs::write(sources.join("main_test.go"), "package main").unwrap();
    assert_eq!(first, key("go1.26.8 linux amd64", Part::Pause));
    fs::write(sources.join("go.sum"), "example.com/x v1.0.0 h1:x=\n").unwrap();
    assert_ne!(first, key("go1.26.8 linux amd64", Part::Pause));
}

#[test]
fn every_part_has_its_module_and_its_pin() {
    let paths = Paths::locate();
    for part in Part::ALL {
        let built = Built::locate(&paths, part).unwrap();
        let version = built.version.unwrap_or_default();
        for (_, template) in part.recipe().variables {
            assert!(!key::expand(template, &version).is_empty(), "{part}: {template} of {version:?}");
        }
    }
    assert_eq!(key::expand("{version} {major} {minor}", "v1.36.3"), "v1.36.3 1 36");
}

#[test]
fn programs_are_executable_by_everyone() {
    // Containers run them as other users.
    let (_folder, paths) = checkout("x");
    let parts = ensure(&paths, &[Part::Pause], &silent(&paths)).unwrap();
    assert_eq!(fs::metadata(parts.bin("pause")).unwrap().permissions().mode() & 0o555, 0o555);
}
