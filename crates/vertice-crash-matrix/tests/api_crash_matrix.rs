//! A part of the crash matrix for every continuous integration run: each kind's first story at points spread over all faults, and two
//! seeded faults, so that it is known that it can find something. `cargo xtask crash-matrix` tries everything.

use std::path::{Path, PathBuf};

use vertice_crash_matrix::audit::Account;
use vertice_crash_matrix::matrix::{self, Choice, Plan};
use vertice_crash_matrix::{Ground, Options, golden, report, scenarios};

/// As many as two processors are done with in time.
const POINTS: usize = 14;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_spread_of_points_comes_to_the_same_end() {
    let ground = ground().await;
    golden(&ground).await.unwrap();
    let plan = Plan { parallel: PARALLEL, choice: Choice::Some(POINTS) };
    let mut account = Account::default();
    let mut told = String::new();
    let mut points = 0;
    for story in ["backup-scheduled", "restore-lost"] {
        let story = scenarios::named(story).unwrap();
        let played = matrix::play(&ground, story, &plan, &mut account, |_, _| {}).await.unwrap();
        points += played.points();
        let diverged = played.diverged.iter().map(|outcome| report::diverged(&played.story, outcome, true));
        told.extend(diverged);
    }
    assert!(told.is_empty(), "{told}");
    assert!(points >= POINTS, "only {points} points were met");
    let reconciled = account.reconcile(&variable("VERTICE_TEST_AUDIT_LOG")).await.unwrap();
    assert_eq!(reconciled.count(), 0, "{:?}", reconciled.unmatched);
    assert!(reconciled.matched > 0);
}
