//! Stories that a trial plays: what people do with one kind, step by step, each until what they wait for is there.

use std::fmt;

use futures::future::BoxFuture;

use crate::error::Result;
use crate::fault::Strike;
use crate::trial::Trial;

/// The kinds whose controllers are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum Kind {
    /// A schedule.
    VerticeBackup,
    /// One restore.
    VerticeRestore,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VerticeBackup => "verticebackup",
            Self::VerticeRestore => "verticerestore",
        })
    }
}

/// A story.
pub trait Scenario: fmt::Debug + Send + Sync {
    /// Its name, for points: letters and dashes.
    fn name(&self) -> &str;

    /// Whose controller it tries.
    fn kind(&self) -> Kind;

    /// Whether it is there for this strike, too; what it has in common with other stories is struck there.
    fn is_for(&self, strike: &Strike) -> bool {
        let _ = strike;
        true
    }

    /// Plays it. What it waits for and does not get is a finding.
    fn play<'a>(&'a self, trial: &'a Trial<'_>) -> BoxFuture<'a, Result<()>>;
}
