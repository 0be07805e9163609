//! Ending runs: processes, links, cgroups, mounts, namespaces in other people's clusters, folders.
//!
//! It works from what bears the run's id, not from what the owner remembers, so that it does as well for a run whose owner
//! was killed at any moment.

pub mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use snafu::{ResultExt, Snafu};

pub use self::snapshot::Snapshot;
use crate::paths::Paths;
use crate::process::{Identity, procfs};
use crate::state::{self, Record};
use crate::{cgroups, tool, wait};

/// How long killed processes may take to go: a kernel that writes back a lot needs seconds.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

/// Label on every namespace that a run makes in a cluster that is not ours; its value is the run's id.
pub const RUN_LABEL: &str = "testbed.vertice.io/run";

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("processes of run {run} did not end"))]
    Kill { run: String, source: wait::Deadline },

    #[snafu(display("failed to remove what run {run} made"))]
    Tool { run: String, source: tool::Error },

    #[snafu(display("failed to read or remove {}", path.display()))]
    Folder { path: PathBuf, source: std::io::Error },

    #[snafu(display("a control group of run {run} is still in use"))]
    Cgroup { run: String, source: wait::Deadline },

    #[snafu(display(
        "failed to remove the namespaces of run {run} from the cluster of context {context}; \
         once it answers, run `cargo xtask clean` again"
    ))]
    External { run: String, context: String, source: tool::Error },

    #[snafu(transparent)]
    State { source: state::Error },
}

/// What [`clean`] ended, for a person to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Ids of ended runs.
    pub runs: Vec<String>,
    /// Of these, the ones whose owner was alive.
    pub live: Vec<String>,
}

/// Ends every run of this target folder, also those whose owner lives; the owner itself is left alone.
pub fn clean(paths: &Paths) -> Result<Cleaned, Error> {
    let root = paths.run();
    if !root.exists() && procfs::marked().is_empty() {
        return Ok(Cleaned::default());
    }
    state::make_dir(&root)?;
    let lock = state::lock(&root)?;
    let mut dirs: BTreeSet<PathBuf> = state::runs(&root).into_iter().collect();
    // Somebody may have removed the folder of a run under its processes.
    dirs.extend(
        procfs::marked()
            .into_iter()
            .map(|mark| PathBuf::from(mark.dir))
            .filter(|dir| dir.parent() == Some(&root)),
    );
    let mut cleaned = Cleaned::default();
    for dir in dirs {
        let id = id_of(&dir);
        if state::owner(&dir).is_some_and(Identity::alive) {
            cleaned.live.push(id.clone());
        }
        end(&dir)?;
        cleaned.runs.push(id);
    }
    drop(lock);
    remove_dir(&root)?;
    Ok(cleaned)
}

/// Ends the run of one folder. What is gone already is no error.
pub(crate) fn end(dir: &Path) -> Result<(), Error> {
    let run = id_of(dir);
    let records = state::records(dir);
    kill(&run, &records)?;
    remove_links(&run)?;
    cgroups::remove(&cgroups::name_of(&run)).context(CgroupSnafu { run: &run })?;
    unmount(&run, dir)?;
    for record in &records {
        if let Record::External { kubeconfig, context } = record {
            remove_external(&run, dir, kubeconfig.as_deref(), context)?;
        }
    }
    remove_dir(dir)
}

fn id_of(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the names of a run's network links start with. Linux allows 15 bytes in all.
pub(crate) fn link_prefix(run: &str) -> String {
    format!("vt-{run}")
}

fn kill(run: &str, records: &[Record]) -> Result<(), Error> {
    let recorded: Vec<Identity> = records
        .iter()
        .filter_map(|record| match record {
            Record::Process { pid, start, .. } => Some(Identity { pid: *pid, start: *start }),
            Record::External { .. } => None,
        })
        .collect();
    wait::until_blocking(format!("the processes of run {run} to end"), KILL_DEADLINE, || {
        let mut left: BTreeMap<i32, Identity> = recorded
            .iter()
            .filter(|identity| identity.alive())
            .map(|identity| (identity.pid, *identity))
            .collect();
        let marked = procfs::marked().into_iter().filter(|mark| mark.run == run).map(|mark| mark.identity);
        left.extend(marked.map(|identity| (identity.pid, identity)));
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<String> =
            left.keys().map(|pid| format!("{pid} {}", procfs::command_line(*pid))).collect();
        for identity in left.values() {
            identity.signal(Signal::KILL);
        }
        Err(names.join("; "))
    })
    .context(KillSnafu { run })
}

/// A bridge or the host's end of a pair; the other end went with its machine.
fn remove_links(run: &str) -> Result<(), Error> {
    let prefix = link_prefix(run);
    for name in dir_names(Path::new("/sys/class/net")).into_iter().filter(|name| name.starts_with(&prefix)) {
        let deleted = tool::run(Command::new("ip").args(["link", "delete", &name]));
        if Path::new("/sys/class/net").join(&name).exists() {
            deleted.context(ToolSnafu { run })?;
        }
    }
    Ok(())
}

/// A machine's mounts go with it; this is for what somebody mounted below the run's folder from outside.
fn unmount(run: &str, dir: &Path) -> Result<(), Error> {
    let mut below: Vec<PathBuf> =
        snapshot::mount_points().into_iter().filter(|point| point.starts_with(dir)).collect();
    below.reverse();
    for point in below {
        tool::run(Command::new("umount").arg("--lazy").arg(&point)).context(ToolSnafu { run })?;
    }
    Ok(())
}

fn remove_external(run: &str, dir: &Path, kubeconfig: Option<&Path>, context: &str) -> Result<(), Error> {
    // <target>/testbed/run/<id>
    let bin = dir.ancestors().nth(2).map(|testbed| testbed.join("bin")).unwrap_or_default();
    let mut command = Command::new(tool::kubectl(&bin));
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    command.args(["--context", context, "delete", "namespace", "--selector", &format!("{RUN_LABEL}={run}")]);
    command.args(["--ignore-not-found", "--timeout=120s"]);
    tool::run(&mut command).context(ExternalSnafu { run, context })?;
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(source).context(FolderSnafu { path: dir })
        }
        _ => Ok(()),
    }
}

fn dir_names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
