//! `manifest.json`: what a backup consists of and how to read it back.
//!
//! The format is versioned. A reader takes any manifest of its own major `formatVersion`; fields that it does not know are kept
//! out of its way, so a newer minor writer stays readable. `tests/fixtures/` holds golden files that must parse for ever.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use snafu::{ResultExt, Snafu, ensure};

use crate::claim::Owner;
use crate::id::BackupId;

/// The format that this code writes.
pub const FORMAT_VERSION: u32 = 1;

/// A whole backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// The backup's id, equal to the folder's name.
    pub id: BackupId,
    /// The engine, as `spec.target.type` has it.
    pub engine: String,
    /// The server's own version text, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// The server's major version, such as 15.
    pub server_major: u32,
    /// How the backup was made.
    pub method: Method,
    /// The backup that an incremental one stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// Position in the write-ahead log (physical method).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalRange>,
    /// When the run started.
    pub started_at: Timestamp,
    /// When the last object was complete.
    pub finished_at: Timestamp,
    /// Whose backup this is.
    pub owner: Owner,
    /// `scheduled` or `manual`.
    pub trigger: Trigger,
    /// UID of the Job that made it: a later pod of the same Job takes the backup for its own result and makes no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Version of the agent that wrote it.
    pub agent_version: String,
    /// Ids of the keys that it is encrypted for; empty when it is not encrypted by the agent.
    #[serde(default)]
    pub key_ids: Vec<String>,
    /// The databases in it, with what is needed to make them again.
    #[serde(default)]
    pub databases: Vec<Database>,
    /// Its objects, in the order in which they are restored.
    pub objects: Vec<Object>,
}

/// How a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A dump of statements and rows.
    Logical,
    /// A copy of files, with the write-ahead log.
    Physical,
}

/// Why a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// By the schedule.
    Scheduled,
    /// By a person.
    Manual,
}

/// The write-ahead log that makes a physical backup consistent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WalRange {
    /// The timeline at the start.
    pub timeline: u32,
    /// First position needed, such as `0/3000028`.
    pub start: String,
    /// First position at which the copy is consistent.
    pub end: String,
}

/// A database of the server, as `pg_database` and `pg_db_role_setting` describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Name of the object that holds it.
    pub object: String,
    /// The role that owns it.
    pub owner: String,
    /// Encoding, such as `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// Locale of a provider other than libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Collation rules of the ICU provider (PostgreSQL 16 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// Statements that set its properties (connection limit, settings, privileges, comment), with `:"database"` for its name.
    #[serde(default)]
    pub properties: Vec<String>,
    /// Bytes on the server's disk when the backup began.
    pub disk_bytes: u64,
}

/// One stored object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its name below the backup's folder.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// `gzip`, `zstd` or `none`.
    pub compression: Compression,
    /// Before compression.
    pub plain: Digest,
    /// As it lies in the bucket.
    pub stored: Digest,
}

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Roles and tablespaces, as SQL.
    Globals,
    /// A database in `pg_dump`'s custom format.
    Dump,
    /// A tar of a data directory.
    Base,
}

/// How an object is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Not at all.
    None,
}

impl Compression {
    /// What is appended to an object's name: `.gz`, `.zst` or nothing.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::None => "",
        }
    }
}

/// Length and SHA-256 of a run of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// Why a manifest cannot be used.
#[derive(Debug, Snafu)]
pub enum ManifestError {
    /// Not JSON, or fields are missing.
    #[snafu(display("the manifest of backup {id} cannot be read"))]
    Malformed {
        /// The folder.
        id: BackupId,
        /// Where it breaks.
        source: serde_json::Error,
    },
    /// Written by a later major version.
    #[snafu(display(
        "the manifest of backup {id} has format version {found}, this program reads up to {FORMAT_VERSION}: use a newer vertice"
    ))]
    TooNew {
        /// The folder.
        id: BackupId,
        /// Its version.
        found: u32,
    },
    /// Copied into another folder.
    #[snafu(display("the folder {id} holds the manifest of backup {found}: it was moved or copied by hand"))]
    WrongFolder {
        /// The folder.
        id: BackupId,
        /// What the manifest calls itself.
        found: BackupId,
    },
}

impl Manifest {
    /// Reads the manifest of the backup in folder `id`.
    pub fn parse(id: &BackupId, json: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            format_version: u32,
        }
        let Version { format_version: found } =
            serde_json::from_slice(json).context(MalformedSnafu { id: id.clone() })?;
        ensure!(found <= FORMAT_VERSION, TooNewSnafu { id: id.clone(), found });
        let manifest: Self = serde_json::from_slice(json).context(MalformedSnafu { id: id.clone() })?;
        ensure!(manifest.id == *id, WrongFolderSnafu { id: id.clone(), found: manifest.id });
        Ok(manifest)
    }

    /// The manifest as it is stored: indented, for people who look into the bucket.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Bytes that it takes in the bucket, without the manifest itself.
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.stored.bytes).sum()
    }

    /// Bytes that it holds before compression.
    pub fn plain_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.plain.bytes).sum()
    }

    /// The object of a name.
    pub fn object(&self, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.name == name)
    }
}
