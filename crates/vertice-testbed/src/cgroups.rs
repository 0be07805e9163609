//! Control groups of a run, in both versions of the kernel's interface: version 1 has a hierarchy a controller below the root,
//! version 2 is the root itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait;

const ROOT: &str = "/sys/fs/cgroup";
/// Every hierarchy has this file.
const MEMBERS: &str = "cgroup.procs";
/// The kernel lets go of a killed process' group in its own time.
const EMPTY_DEADLINE: Duration = Duration::from_secs(30);

/// The name of a run's control group, below which lies one a node.
pub(crate) fn name_of(run: &str) -> String {
    format!("{PREFIX}{run}")
}

const PREFIX: &str = "vertice-";

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let mut found: Vec<PathBuf> =
        folders(root).into_iter().filter(|path| path.join(MEMBERS).is_file()).collect();
    if root.join("cgroup.controllers").is_file() {
        found = vec![root.to_owned()];
    }
    found
}

/// Makes a group in each hierarchy. kubelet watches only for groups below one that is there when it starts.
pub(crate) fn make(name: &str) -> io::Result<()> {
    hierarchies().into_iter().try_for_each(|hierarchy| fs::create_dir_all(hierarchy.join(name)))
}

/// Removes a group and all below it; their processes have been killed.
pub(crate) fn remove(name: &str) -> Result<(), wait::Deadline> {
    for path in hierarchies().into_iter().map(|hierarchy| hierarchy.join(name)).filter(|path| path.is_dir()) {
        let what = format!("control group {} to be empty", path.display());
        wait::until_blocking(what, EMPTY_DEADLINE, || remove_tree(&path).map_err(|error| error.to_string()))?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    folders(path).iter().try_for_each(|child| remove_tree(child))?;
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// All groups that any run made.
pub(crate) fn of_all_runs() -> Vec<PathBuf> {
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    hierarchies().iter().flat_map(|hierarchy| folders(hierarchy)).filter(named).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
