//! The backups of one prefix.

use snafu::Snafu;

use crate::id::BackupId;
use crate::manifest::Manifest;

/// All complete backups of a prefix, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    backups: Vec<Manifest>,
}

/// There is nothing to restore.
#[derive(Debug, PartialEq, Eq, Snafu)]
pub enum NotFound {
    /// No complete backup at all.
    #[snafu(display(
        "there is no complete backup at {location}: check bucket and prefix, or run a backup first"
    ))]
    Empty {
        /// Where was looked.
        location: String,
    },
    /// Not this one.
    #[snafu(display("there is no backup {id} at {location}; the newest is {newest}"))]
    Unknown {
        /// The wanted one.
        id: String,
        /// Where was looked.
        location: String,
        /// What is there.
        newest: BackupId,
    },
}

impl Catalogue {
    /// A catalogue of these backups.
    pub fn new(mut backups: Vec<Manifest>) -> Self {
        backups.sort_by(|a, b| a.id.cmp(&b.id));
        Self { backups }
    }

    /// Oldest first.
    pub fn backups(&self) -> &[Manifest] {
        &self.backups
    }

    /// The backup of this id, or the newest without one. `location` is for the error's text.
    pub fn pick(&self, id: Option<&str>, location: &str) -> Result<&Manifest, NotFound> {
        let newest = self.backups.last().ok_or_else(|| NotFound::Empty { location: location.to_owned() })?;
        let Some(id) = id else { return Ok(newest) };
        self.backups.iter().find(|backup| backup.id.as_str() == id).ok_or_else(|| NotFound::Unknown {
            id: id.to_owned(),
            location: location.to_owned(),
            newest: newest.id.clone(),
        })
    }
}
