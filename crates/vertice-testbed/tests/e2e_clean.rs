//! A run that is killed at any moment: the next one works, and after a clean nothing is left on the machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vertice_testbed::clean::{self, Snapshot};
use vertice_testbed::cluster::{Cluster, ClusterOptions};
use vertice_testbed::paths::Paths;
use vertice_testbed::wait;

/// A target folder of the test's own, with the programs and images of the shared one: a clean here ends no other test's run.
fn own_target(dir: &Path) -> Paths {
    let shared = Paths::locate();
    let paths = Paths::new(shared.workspace(), dir);
    std::fs::create_dir_all(paths.testbed()).unwrap();
    for (from, to) in
        [(shared.bin(), paths.bin()), (shared.parts(), paths.parts()), (shared.images(), paths.images())]
    {
        symlink(from, to).unwrap();
    }
    paths
}

fn start_owner(target: &Path, progress: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_testbed-owner"))
        .args([target, progress])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Has the owner come so far?
type Reached = fn(&Paths, &str) -> bool;

fn exists_in_run(paths: &Paths, file: &str) -> bool {
    let runs = std::fs::read_dir(paths.run()).into_iter().flatten().flatten();
    runs.map(|run| run.path().join(file)).any(|path| path.exists())
}

/// Starts an owner, kills it with `kill -9` when `reached`, and returns what it left.
async fn kill_when(paths: &Paths, scratch: &Path, what: &str, reached: Reached) -> Vec<PathBuf> {
    let progress = scratch.join(what.replace(' ', "-"));
    let mut owner = start_owner(paths.target(), &progress);
    let seen = wait::until(what, Duration::from_mins(2), || async {
        let lines = std::fs::read_to_string(&progress).unwrap_or_default();
        if reached(paths, &lines) { Ok(()) } else { Err(lines) }
    });
    let seen = seen.await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    seen.unwrap();
    let runs = std::fs::read_dir(paths.run()).unwrap().flatten().map(|run| run.path());
    runs.filter(|path| path.is_dir()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_killed_run_left_is_swept_by_the_next_and_by_clean() {
    let scratch = tempfile::tempdir().unwrap();
    let paths = own_target(&scratch.path().join("target"));
    let before = Snapshot::take();
    let phases: [(&str, Reached); 4] = [
        ("the run is opened", |paths, _| exists_in_run(paths, "owner.json")),
        ("etcd runs", |paths, _| exists_in_run(paths, "etcd.sock")),
        ("the control plane is ready", |_, lines| lines.contains("control plane ready")),
        ("the cluster is ready", |_, lines| lines.contains("DNS ready")),
    ];
    for (what, reached) in phases {
        let left = kill_when(&paths, scratch.path(), what, reached).await;
        // Each owner sweeps its predecessor's run, so that one is left, its own.
        assert_eq!(left.len(), 1, "killed when {what}: {left:?}");
    }
    let options = ClusterOptions { paths: paths.clone(), ..ClusterOptions::new("next", 1) };
    let cluster =
        Cluster::start(options).await.unwrap_or_else(|error| panic!("{}", snafu::Report::from_error(error)));
    assert_eq!(cluster.ended(), Vec::<String>::new());

    // A clean ends runs whose owner lives as well, and says so.
    let id = cluster.run().id().to_owned();
    let cleaned = tokio::task::block_in_place(|| clean::clean(&paths)).unwrap();
    assert_eq!((cleaned.runs, cleaned.live), (vec![id.clone()], vec![id]));
    drop(cluster);
    assert!(!paths.run().exists());
    // The kernel takes network namespaces down in its own time.
    wait::until("nothing to be left", Duration::from_secs(30), || async {
        let added = Snapshot::take().added_since(&before);
        if added.is_empty() { Ok(()) } else { Err(added.join("\n")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_stand_beside_each_other() {
    let (one, two) = tokio::try_join!(
        Cluster::start(ClusterOptions { dns: false, ..ClusterOptions::new("one", 1) }),
        Cluster::start(ClusterOptions { dns: false, ..ClusterOptions::new("two", 1) }),
    )
    .unwrap_or_else(|error| panic!("{}", snafu::Report::from_error(error)));
    assert_ne!(one.node("node1").unwrap().address(), two.node("node1").unwrap().address());
    one.shutdown().await.unwrap();
    // The other is none the worse for it.
    assert_eq!(two.ended(), Vec::<String>::new());
    two.wait_node("node1", true, Duration::from_secs(10)).await.unwrap();
    let (dir, links) = (two.run().dir().to_owned(), two.run().id().to_owned());
    drop(two);
    assert!(!dir.exists());
    assert!(Snapshot::take().links.iter().all(|link| !link.contains(&links)));
}
