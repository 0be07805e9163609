//! A part of the crash matrix for every continuous integration run: each kind's first story at points spread over all faults, and two
//! seeded faults, so that it is known that it can find something. `cargo xtask crash-matrix` tries everything.

// Clippy knows test functions only, not what they call; and their futures may be as large as they like.
#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vertice_crash_matrix::audit::Account;
use vertice_crash_matrix::matrix::{self, Choice, Plan};
use vertice_crash_matrix::{Fault, Ground, Options, golden, report, scenarios};

/// Of each story, as many as two processors are done with in time, besides one for each fault that these leave out.
const POINTS: usize = 8;
const PARALLEL: usize = 4;

fn variable(name: &str) -> PathBuf {
    let told = || panic!("{name} is not set: run these tests by `cargo xtask test api`, which sets it");
    std::env::var_os(name).map_or_else(told, PathBuf::from)
}

/// The agent that was built together with this test.
fn agent() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let programs = test.parent().and_then(Path::parent).unwrap();
    let agent = programs.join("vertice-agent");
    assert!(agent.exists(), "{} is missing: run `cargo xtask test api`, which builds it", agent.display());
    agent
}

async fn ground() -> Ground {
    let options = Options {
        kubeconfig: variable("VERTICE_TEST_KUBECONFIG"),
        audit_log: Some(variable("VERTICE_TEST_AUDIT_LOG")),
        versitygw: variable("VERTICE_TEST_BIN").join("versitygw"),
        agent: agent(),
        parallel: PARALLEL,
    };
    Ground::start(options).await.unwrap()
}

/// Tries a spread of points of two stories.
async fn spread(ground: &Ground) {
    let mut account = Account::default();
    let mut told = String::new();
    let mut tried = BTreeMap::new();
    for story in ["backup-scheduled", "restore-lost"] {
        let story = scenarios::named(story).unwrap();
        let plan = Plan { parallel: PARALLEL, choice: Choice::Some(POINTS, tried.clone()) };
        let played = matrix::play(ground, story, &plan, &mut account, |_, _| {}).await.unwrap();
        for (fault, (count, _)) in &played.faults {
            *tried.entry(*fault).or_default() += count;
        }
        let diverged = played.diverged.iter().map(|outcome| report::diverged(&played.story, outcome, true));
        told.extend(diverged);
    }
    assert!(told.is_empty(), "{told}");
    let untried: Vec<_> = Fault::all().into_iter().filter(|fault| !tried.contains_key(fault)).collect();
    assert!(untried.is_empty(), "never tried: {untried:?}");
    let reconciled = account.reconcile(&variable("VERTICE_TEST_AUDIT_LOG")).await.unwrap();
    assert_eq!(reconciled.count(), 0, "{:?}", reconciled.unmatched);
    assert!(reconciled.matched > 0);
}

/// Looks for one fault that shows in peace and one that only a kill shows.
#[cfg(feature = "mutants")]
async fn seeded(ground: &Ground) {
    use vertice_crash_matrix::mutants::{self, Mutant};
    let chosen = ["cron-job-without-owner", "counted-in-memory"];
    let faults: Vec<_> = Mutant::all().filter(|mutant| chosen.contains(&mutant.name().as_str())).collect();
    assert_eq!(faults.len(), chosen.len());
    let found = mutants::run(ground, faults, PARALLEL, |_| {}).await.unwrap();
    assert_eq!(found.caught(), chosen.len(), "{:?}", found.verdicts);
    assert_eq!(found.needed_a_strike(), 1, "{:?}", found.verdicts);
}

#[tokio::test(flavor = "multi_thread")]
async fn points_and_seeded_faults() {
    let ground = ground().await;
    golden(&ground).await.unwrap();
    spread(&ground).await;
    #[cfg(feature = "mutants")]
    seeded(&ground).await;
}
