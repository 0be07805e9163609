//! The programs that the testbed runs, built from pinned Go modules under `testbed/`.
//!
//! A part is built once for each state of what it is built from (its [`key`]) into a folder of its own, and linked
//! into [`Paths::bin`]. Builds run one after another under a file lock: a second process waits and finds them done,
//! and a killed build leaves nothing that could be taken for a finished one.

mod build;
mod key;
mod recipe;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use snafu::{OptionExt, ResultExt, Snafu};

pub use self::recipe::Part;
use crate::ledger::{self, Ledger, Work};
use crate::paths::Paths;
use crate::{apt, command};

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display(
        "Go is not installed: install Go 1.26.6 or newer (https://go.dev/doc/install) and put `go` on PATH"
    ))]
    NoGo,

    #[snafu(display("failed to ask Go for its version in {}: {said}", folder.display()))]
    GoVersion { folder: PathBuf, said: String },

    #[snafu(display("{} does not pin a version of {module}", file.display()))]
    Unpinned { file: PathBuf, module: &'static str },

    #[snafu(display("failed to read the sources of {part} in {}", path.display()))]
    Sources { part: Part, path: PathBuf, source: io::Error },

    #[snafu(display("failed to lock {}", path.display()))]
    Lock { path: PathBuf, source: io::Error },

    #[snafu(display("failed to put {part} into {}", path.display()))]
    Install { part: Part, path: PathBuf, source: io::Error },

    #[snafu(display("{part} cannot be built here"))]
    Needs { part: Part, source: apt::Error },

    #[snafu(transparent)]
    Build { source: command::Error },

    #[snafu(transparent)]
    Ledger { source: ledger::Error },
}

/// Built parts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Parts {
    bin: PathBuf,
    ledger: Ledger,
}

impl Parts {
    /// Where the program `name` of an ensured part lies, such as `kubelet`.
    #[must_use]
    pub fn bin(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// One folder that has all programs, for a `PATH`.
    #[must_use]
    pub fn path_dir(&self) -> &Path {
        &self.bin
    }

    /// The ledger that the builds were written to.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// Builds those of `wanted` that are missing or out of date. Blocks, for minutes when nothing is cached: call it
/// from a thread that may.
pub fn ensure(paths: &Paths, wanted: &[Part], ledger: &Ledger) -> Result<Parts, Error> {
    // In the order of their declaration, which is the order that shares most work, whatever order is asked for.
    let wanted: BTreeSet<Part> = wanted.iter().copied().collect();
    let mut missing = Vec::new();
    for part in wanted {
        let started = Instant::now();
        let built = Built::locate(paths, part)?;
        if built.is_there() {
            ledger.record(&format!("part {part}"), started.elapsed(), Work::Cached, weigh(&built.folder))?;
        } else {
            missing.push(built);
        }
    }
    if !missing.is_empty() {
        let _lock = lock(paths, ledger)?;
        for built in &missing {
            ensure_locked(paths, built, ledger)?;
        }
    }
    Ok(Parts { bin: paths.bin(), ledger: ledger.clone() })
}

fn ensure_locked(paths: &Paths, built: &Built, ledger: &Ledger) -> Result<(), Error> {
    let part = built.part;
    let started = Instant::now();
    // Another process may have built it while this one waited for the lock.
    let work = if built.folder.is_dir() { Work::Cached } else { Work::Cold };
    if work == Work::Cold {
        ledger.reporter().say(format!("building {part}: {}", part.recipe().what));
        apt::ensure(paths, part.recipe().packages_needed, ledger.reporter()).context(NeedsSnafu { part })?;
        build::build(paths, built, ledger.reporter())?;
        ledger.reporter().say(format!("built {part} in {:.0} s", started.elapsed().as_secs_f64()));
    }
    build::link(paths, built).context(InstallSnafu { part, path: paths.bin() })?;
    build::remove_other_states(paths, built).context(InstallSnafu { part, path: paths.parts() })?;
    Ok(ledger.record(&format!("part {part}"), started.elapsed(), work, weigh(&built.folder))?)
}

/// A part in the state that the checkout asks for: where it is, once built.
#[derive(Debug)]
struct Built {
    part: Part,
    /// The version of the upstream module, such as `v1.36.3`; `None` for programs of our own.
    version: Option<String>,
    folder: PathBuf,
}

impl Built {
    fn locate(paths: &Paths, part: Part) -> Result<Self, Error> {
        let sources = paths.sources().join(part.recipe().module);
        let toolchain = key::toolchain(&sources)?;
        let key =
            key::key(&sources, &toolchain, part.recipe()).context(SourcesSnafu { part, path: &sources })?;
        let version = match part.recipe().pin {
            None => None,
            Some(module) => {
                let file = sources.join("go.mod");
                let text = fs::read_to_string(&file).context(SourcesSnafu { part, path: &file })?;
                Some(key::pinned_version(&text, module).context(UnpinnedSnafu { file, module })?)
            }
        };
        let folder = paths.parts().join(format!("{}-{key}", part.recipe().module));
        Ok(Self { part, version, folder })
    }

    /// Built, and what `bin` links to?
    fn is_there(&self) -> bool {
        self.folder.is_dir() && build::is_linked(self)
    }
}

/// Held until dropped; given up by the kernel when this process dies.
fn lock(paths: &Paths, ledger: &Ledger) -> Result<File, Error> {
    let path = paths.testbed().join("parts.lock");
    let locked = || -> io::Result<File> {
        fs::create_dir_all(paths.testbed())?;
        let file = File::create(&path)?;
        if file.try_lock().is_err() {
            ledger.reporter().say("waiting for another process that builds parts of the testbed");
            file.lock()?;
        }
        Ok(file)
    };
    locked().context(LockSnafu { path: &path })
}

fn weigh(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let files = entries.flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests;
