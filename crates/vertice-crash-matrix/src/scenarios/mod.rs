//! The stories.

mod backup;
mod restore;

use futures::future::BoxFuture;
use serde_json::Value;

#[cfg(feature = "mutants")]
pub(crate) use self::restore::was_killed;
use crate::error::Result;
use crate::fault::Strike;
use crate::scenario::{Kind, Scenario};
use crate::trial::Trial;

/// A story that is a function.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) play: for<'a> fn(&'a Trial<'_>) -> BoxFuture<'a, Result<()>>,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Scenario for Story {
    fn name(&self) -> &str {
        self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn is_for(&self, strike: &Strike) -> bool {
        self.name != LARGE || strike.point.name.starts_with("s3 ")
    }

    fn play<'a>(&'a self, trial: &'a Trial<'_>) -> BoxFuture<'a, Result<()>> {
        (self.play)(trial)
    }
}

/// As a merge patch does, without deletions.
pub(crate) fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(into.entry(key).or_insert(Value::Null), change);
            }
        }
        (into, changes) => *into = changes,
    }
}

const BACKUP: Kind = Kind::VerticeBackup;
const RESTORE: Kind = Kind::VerticeRestore;

/// Differs from `backup-manual` in what the agent sends to the bucket.
const LARGE: &str = "backup-large";

static ALL: [Story; 9] = [
    Story { name: "backup-scheduled", kind: BACKUP, play: |trial| Box::pin(backup::scheduled(trial)) },
    Story { name: "backup-manual", kind: BACKUP, play: |trial| Box::pin(backup::manual(trial)) },
    Story { name: "backup-changed", kind: BACKUP, play: |trial| Box::pin(backup::changed(trial)) },
    Story { name: "backup-failing", kind: BACKUP, play: |trial| Box::pin(backup::failing(trial)) },
    Story { name: "backup-deleted", kind: BACKUP, play: |trial| Box::pin(backup::deleted(trial)) },
    Story { name: LARGE, kind: BACKUP, play: |trial| Box::pin(backup::large(trial)) },
    Story { name: "restore-lost", kind: RESTORE, play: |trial| Box::pin(restore::lost(trial)) },
    Story { name: "restore-over", kind: RESTORE, play: |trial| Box::pin(restore::over(trial)) },
    Story { name: "restore-refused", kind: RESTORE, play: |trial| Box::pin(restore::refused(trial)) },
];

/// All stories, or those of one kind.
pub fn all(kind: Option<Kind>) -> impl Iterator<Item = &'static dyn Scenario> {
    ALL.iter()
        .filter(move |story| kind.is_none_or(|kind| story.kind == kind))
        .map(|story| story as &dyn Scenario)
}

/// The story of a name.
pub fn named(name: &str) -> Option<&'static dyn Scenario> {
    all(None).find(|story| story.name() == name)
}

/// The story that makes the backup which the others restore.
pub(crate) static GOLDEN: &dyn Scenario =
    &Story { name: "golden", kind: BACKUP, play: |trial| Box::pin(backup::golden(trial)) };
