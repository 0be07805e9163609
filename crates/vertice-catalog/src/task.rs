//! What the operator asks an agent to do: JSON in the environment variable [`TASK_ENV`] of a run's pod.
//!
//! It holds no secret. Secrets are mounted as files below [`TARGET_SECRET_DIR`] and [`STORAGE_SECRET_DIR`], one file a key; the
//! mounts are optional, so that a missing Secret is told by the agent in words, not by a pod that never starts.

use serde::{Deserialize, Serialize};

use crate::claim::Owner;
use crate::manifest::{Compression, Trigger};

/// The environment variable with the [`Task`].
pub const TASK_ENV: &str = "VERTICE_TASK";
/// The environment variable with the name of the run's Job, from the downward API. It holds the claim, so that a second pod of the same
/// Job need not wait for the first one's claim to expire.
pub const RUN_NAME_ENV: &str = "VERTICE_RUN";
/// The environment variable with the run's namespace, from the downward API: only with it is a run's name one of a kind.
pub const NAMESPACE_ENV: &str = "VERTICE_NAMESPACE";
/// The environment variable with the UID of the run's Job, from the downward API: names may come again, UIDs do not.
pub const RUN_UID_ENV: &str = "VERTICE_RUN_UID";
/// Files `username` and `password` of the database's Secret.
pub const TARGET_SECRET_DIR: &str = "/var/run/vertice/target";
/// Files named after the provider's keys.
pub const STORAGE_SECRET_DIR: &str = "/var/run/vertice/storage";
/// A small writable folder (an in-memory emptyDir) for files that the engine's tools must read, such as a password file.
pub const WORK_DIR: &str = "/var/run/vertice/work";
/// Where the init container copies the agent to, for the engine's container to run it.
pub const AGENT_DIR: &str = "/var/run/vertice/bin";

/// One run's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub enum Task {
    /// Make a backup.
    Backup(BackupTask),
    /// Put one back.
    Restore(RestoreTask),
}

/// Make a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTask {
    /// Whose prefix it is.
    pub owner: Owner,
    /// Why it is made.
    pub trigger: Trigger,
    /// The server.
    pub server: Server,
    /// Databases to take; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<String>>,
    /// Where it goes.
    pub storage: StorageLocation,
    /// How its objects are compressed.
    pub compression: Compression,
    /// The format's level; its default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<i32>,
}

/// Put a backup back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTask {
    /// The server.
    pub server: Server,
    /// Where the backup is.
    pub storage: StorageLocation,
    /// Which; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// Databases to restore; all of the backup when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<String>>,
    /// Whether databases that hold tables may be replaced.
    pub overwrite: bool,
}

/// A database server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// `postgresql`.
    pub engine: String,
    /// DNS name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the Secret that is mounted at [`TARGET_SECRET_DIR`], for messages.
    pub secret: String,
}

/// A prefix of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageLocation {
    /// `s3`.
    pub r#type: String,
    /// The bucket.
    pub bucket: String,
    /// The folder in it, without slashes at its ends.
    pub prefix: String,
    /// URL of a store other than the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// Name of the Secret that is mounted at [`STORAGE_SECRET_DIR`], for messages.
    pub secret: String,
}

impl StorageLocation {
    /// `s3://bucket/prefix`.
    pub fn url(&self) -> String {
        format!("{}://{}/{}", self.r#type, self.bucket, self.prefix)
    }
}
