//! A run: what one owner started, written down under `target/testbed/run/<id>` before it is relied upon.
//!
//! Names of links and cgroups derive from the run's id, so they need no record: whatever bears the id belongs to the run.
//! Namespaces and mounts live and die with marked processes. A run can therefore be ended by anybody at any time, also
//! when its owner was killed between any two steps.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use snafu::{OptionExt, ResultExt, Snafu};

use crate::clean;
use crate::paths::Paths;
use crate::process::Identity;
use crate::process::procfs::{MARK, MARK_DIR};

#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum Error {
    #[snafu(display("failed to {action} {}", path.display()))]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    #[snafu(display("failed to encode a record of the run"))]
    Encode { source: serde_json::Error },

    #[snafu(display("failed to read /proc/self/stat: is /proc mounted?"))]
    NoProc,

    #[snafu(display("failed to lock {}", path.display()))]
    Lock { path: PathBuf, source: rustix::io::Errno },
}

/// One line of a run's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// A process, by number and start time (clock ticks since boot).
    Process { name: String, pid: i32, start: u64 },
    /// Namespaces in a cluster that is not ours, all labelled with the run's id.
    External { kubeconfig: Option<PathBuf>, context: String },
}

/// A run of this process. Dropping it ends everything that bears its mark and removes its folder.
#[derive(Debug)]
pub struct Run {
    id: String,
    dir: PathBuf,
    paths: Paths,
}

impl Run {
    /// Ends runs whose owner died, then opens a new one.
    pub fn create(paths: &Paths) -> Result<Self, Error> {
        let owner = Identity::own().context(NoProcSnafu)?;
        let root = paths.run();
        make_dir(&root)?;
        {
            let _lock = lock(&root)?;
            for stale in stale(&root) {
                tracing::info!(run = %stale.display(), "ending what a killed run left behind");
                if let Err(error) = clean::end(&stale) {
                    tracing::warn!(run = %stale.display(), %error, "failed to end what a killed run left behind");
                }
            }
        }
        let _lock = lock(&root)?;
        let (id, dir) = new_dir(&root)?;
        let text = serde_json::to_vec(&owner).context(EncodeSnafu)?;
        let path = dir.join(OWNER);
        fs::write(&path, text).context(IoSnafu { action: "write", path })?;
        make_dir(&dir.join("logs"))?;
        Ok(Self { id, dir, paths: paths.clone() })
    }

    /// Six letters and digits; part of every name that the run gives to links and cgroups.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The folder of all logs of the run.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// A command that carries the run's mark.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env(MARK, &self.id).env(MARK_DIR, &self.dir);
        command
    }

    pub(crate) fn record(&self, record: &Record) -> Result<(), Error> {
        let mut line = serde_json::to_vec(record).context(EncodeSnafu)?;
        line.push(b'\n');
        let path = self.dir.join(JOURNAL);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.context(IoSnafu { action: "open", path: &path })?;
        // One write a line: a kill in between leaves whole lines.
        file.write_all(&line).context(IoSnafu { action: "append to", path })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Err(error) = clean::end(&self.dir) {
            tracing::warn!(run = %self.id, %error, "failed to end the run; `cargo xtask clean` tries again");
        }
    }
}

const OWNER: &str = "owner.json";
const JOURNAL: &str = "journal.jsonl";

/// Creates a folder and its parents, readable by its owner only.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).context(IoSnafu { action: "create", path })
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: impl AsRef<[u8]>) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    let mut file = file.context(IoSnafu { action: "open", path })?;
    file.write_all(text.as_ref()).context(IoSnafu { action: "write", path })
}

fn new_dir(root: &Path) -> Result<(String, PathBuf), Error> {
    loop {
        let id = hex::encode(&rand::random::<[u8; 3]>()[..]);
        let dir = root.join(&id);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok((id, dir)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::Io { action: "create", path: dir, source }),
        }
    }
}

/// Held while runs are opened or ended, so that a folder without an owner is one that died, not one being born.
pub(crate) fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join(".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.context(IoSnafu { action: "open", path: &path })?;
    flock(&file, FlockOperation::LockExclusive).context(LockSnafu { path })?;
    Ok(file)
}

/// Folders of all runs under `root`.
pub(crate) fn runs(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut dirs: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    dirs
}

fn stale(root: &Path) -> Vec<PathBuf> {
    runs(root).into_iter().filter(|dir| !owner(dir).is_some_and(Identity::alive)).collect()
}

pub(crate) fn owner(dir: &Path) -> Option<Identity> {
    serde_json::from_slice(&fs::read(dir.join(OWNER)).ok()?).ok()
}

/// The journal; a last line that a kill cut short is left out.
pub(crate) fn records(dir: &Path) -> Vec<Record> {
    let text = fs::read_to_string(dir.join(JOURNAL)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
