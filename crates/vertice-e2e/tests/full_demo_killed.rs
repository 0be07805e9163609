//! The demo, killed with SIGKILL in each of its phases: the next run works, and afterwards nothing is left. Minutes; part of `cargo xtask test --full`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use vertice_e2e::harness::XTASK_ENV;
use vertice_testbed::clean;
use vertice_testbed::paths::Paths;
use vertice_testbed::wait;

/// What the demo says when a phase begins.
const PHASES: [&str; 13] = [
    "… programs",
    "… images",
    "… cluster",
    "… operator",
    "… object store",
    "… database",
    "… data",
    "… fingerprint",
    "… schedule",
    "… backup",
    "… destroy",
    "… new server",
    "… restore",
];
const PHASE_DEADLINE: Duration = Duration::from_mins(5);

fn demo() -> Command {
    let mut command =
        Command::new(std::env::var(XTASK_ENV).expect("run this test through `cargo xtask test --full`"));
    command.args(["demo", "--once", "--orders", "500"]).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Starts the demo and kills it, and nothing else, as soon as it says that `phase` begins.
async fn killed_in(phase: &str) {
    let mut run = demo().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let reached = tokio::time::timeout(PHASE_DEADLINE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(&format!("{phase} ")) {
                return true;
            }
        }
        false
    });
    assert!(reached.await.unwrap_or(false), "the demo never came to {phase}");
    run.kill().await.unwrap();
}

/// Every phase, and at last `clean` after a kill in the busiest one.
#[tokio::test]
async fn the_demo_works_after_it_was_killed_in_any_phase() {
    let before = clean::Snapshot::take();
    for phase in PHASES {
        killed_in(phase).await;
        let next = demo().output().await.unwrap();
        let text = [next.stdout, next.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(next.status.success(), "after a kill in {phase}: {text}");
        assert!(text.contains("definitions, privileges and roles: equal"), "after a kill in {phase}: {text}");
    }
    killed_in("… backup").await;
    clean::clean(&Paths::locate()).unwrap();
    // The kernel takes network namespaces down in its own time.
    wait::until("nothing to be left", Duration::from_secs(30), || async {
        let left = clean::Snapshot::take().added_since(&before);
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    })
    .await
    .unwrap();
}
