//! What each build and each tier took, cold or cached, and what the caches weigh.
//!
//! Several processes of one run (xtask, test binaries) add to one file: a record is one line, appended in one write.
//! They find the run they belong to by the environment variable [`RUN_VARIABLE`].

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use snafu::{ResultExt, Snafu};

use crate::paths::Paths;
use crate::report::Reporter;

/// Names the run that a process's records belong to; a parent sets it for the processes it starts.
pub const RUN_VARIABLE: &str = "VERTICE_LEDGER_RUN";

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("failed to write the time ledger {}", path.display()))]
    Write { path: PathBuf, source: io::Error },

    #[snafu(display("failed to read the time ledger {}", path.display()))]
    Read { path: PathBuf, source: io::Error },
}

/// Was the work done, or found done?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// It was done now.
    Cold,
    /// An earlier result was used.
    Cached,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The run it belongs to.
    pub run: String,
    /// What was built or run, such as `part kubernetes` or `tier e2e`.
    pub name: String,
    /// Wall-clock time.
    pub seconds: f64,
    /// Done, or found done.
    pub work: Work,
    /// The size of the result; 0 where that means nothing.
    pub bytes: u64,
}

/// The ledger of one run, and the place where its progress is reported.
#[derive(Debug, Clone)]
pub struct Ledger {
    file: PathBuf,
    run: String,
    reporter: Reporter,
}

impl Ledger {
    /// Joins the run that the environment names, or begins one of its own.
    #[must_use]
    pub fn open(paths: &Paths, reporter: Reporter) -> Self {
        let run = env::var(RUN_VARIABLE).unwrap_or_else(|_| new_run());
        Self { file: paths.testbed().join("ledger.jsonl"), run, reporter }
    }

    /// The value that child processes need in [`RUN_VARIABLE`].
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Where this run's progress goes.
    #[must_use]
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Adds one record.
    pub fn record(&self, name: &str, took: Duration, work: Work, bytes: u64) -> Result<(), Error> {
        let entry =
            Entry { run: self.run.clone(), name: name.to_owned(), seconds: took.as_secs_f64(), work, bytes };
        self.append(&entry).context(WriteSnafu { path: &self.file })
    }

    fn append(&self, entry: &Entry) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // One write to a file opened for appending: lines of several processes never mix.
        OpenOptions::new().create(true).append(true).open(&self.file)?.write_all(&line)
    }

    /// This run's records, oldest first. Lines that do not parse (a process was killed in the middle) are passed over.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        match File::open(&self.file) {
            Ok(file) => self.parse(BufReader::new(file)).context(ReadSnafu { path: &self.file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(Error::Read { path: self.file.clone(), source }),
        }
    }

    fn parse(&self, lines: impl BufRead) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for line in lines.lines() {
            if let Ok(entry) = serde_json::from_str::<Entry>(&line?)
                && entry.run == self.run
            {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// The run's records as a table for a person.
    pub fn table(&self) -> Result<String, Error> {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY)
            .set_header(["what", "took", "work", "size"]);
        let mut shown = BTreeSet::new();
        for entry in self.entries()? {
            // Every process of a run asks for its parts; that they were there already is told once.
            if entry.work == Work::Cached && shown.contains(&entry.name) {
                continue;
            }
            shown.insert(entry.name.clone());
            let work = match entry.work {
                Work::Cold => "cold",
                Work::Cached => "cached",
            };
            let size = if entry.bytes == 0 { String::new() } else { human_bytes(entry.bytes) };
            table.add_row([entry.name, format!("{:.1} s", entry.seconds), work.to_owned(), size]);
        }
        Ok(table.to_string())
    }
}

fn new_run() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", since.as_millis(), std::process::id())
}

/// What the testbed keeps between runs, as (name, bytes).
#[must_use]
pub fn cache_weights(paths: &Paths) -> Vec<(&'static str, u64)> {
    vec![
        ("testbed parts", weigh(&paths.parts())),
        ("testbed images", weigh(&paths.images())),
        ("target directory", weigh(paths.target())),
    ]
}

/// The bytes of all files under `folder`; what cannot be read counts as nothing.
fn weigh(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            // `DirEntry::metadata` does not follow links, so nothing is counted twice and no loop is entered.
            Ok(metadata) if metadata.is_dir() => weigh(&entry.path()),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}

/// A size for a person: powers of 1000, as disks are sold.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let bytes = bytes as f64;
    match bytes {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(folder: &Path, run: &str) -> Ledger {
        Ledger { file: folder.join("ledger.jsonl"), run: run.to_owned(), reporter: Reporter::new(|_| {}) }
    }

    #[test]
    fn a_run_sees_its_own_records_of_all_processes_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, sibling) = (ledger(folder.path(), "a"), ledger(folder.path(), "a"));
        mine.record("part kubernetes", Duration::from_millis(1500), Work::Cold, 142_000_000).unwrap();
        ledger(folder.path(), "b").record("other run", Duration::ZERO, Work::Cached, 0).unwrap();
        sibling.record("tier api", Duration::from_secs(2), Work::Cached, 0).unwrap();

        let names: Vec<_> = mine.entries().unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["part kubernetes", "tier api"]);
        let table = mine.table().unwrap();
        for shown in ["part kubernetes", "1.5 s", "cold", "142.0 MB", "tier api", "cached"] {
            assert!(table.contains(shown), "{shown} is not in\n{table}");
        }
    }

    #[test]
    fn a_line_cut_short_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), "a");
        fs::write(&ledger.file, "{\"run\":\"a\",\"na\n").unwrap();
        ledger.record("part runc", Duration::ZERO, Work::Cold, 1).unwrap();
        assert_eq!(ledger.entries().unwrap().len(), 1);
    }

    #[test]
    fn weights_count_files_below_and_skip_links() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/file"), [0; 100]).unwrap();
        fs::write(folder.path().join("file"), [0; 10]).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        assert_eq!(weigh(folder.path()), 110);
    }
}
