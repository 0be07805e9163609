//! What an agent answers: one [`Report`] as its container's termination message, and [`Progress`] lines in its log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::BackupId;

/// The kubelet keeps at most this many bytes of a termination message
/// (<https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>).
pub const MAX_REPORT_BYTES: usize = 4096;
/// Exit code of an agent whose run failed for a reason that another try would meet again.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of an agent that was told to stop (its pod was deleted, its node drained): as of a shell's child that SIGTERM ended. Another
/// pod may try again.
pub const EXIT_INTERRUPTED: u8 = 143;
/// What cut-off texts end with.
const ELLIPSIS: &str = "…";

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Report {
    /// A backup is in the bucket.
    #[serde(rename_all = "camelCase")]
    BackedUp {
        /// Its id.
        backup_id: BackupId,
        /// When the run started.
        started_at: Timestamp,
        /// When it was complete.
        finished_at: Timestamp,
        /// Bytes in the bucket.
        stored_bytes: u64,
        /// Bytes before compression.
        plain_bytes: u64,
        /// How many databases.
        databases: u32,
        /// The server's version.
        server_version: String,
    },
    /// A backup is in the server.
    #[serde(rename_all = "camelCase")]
    Restored {
        /// Which.
        backup_id: BackupId,
        /// When the run started.
        started_at: Timestamp,
        /// When it was complete.
        finished_at: Timestamp,
        /// Bytes put into the server, uncompressed.
        plain_bytes: u64,
        /// Which databases; cut off when there are too many to report.
        databases: Vec<String>,
    },
    /// Nothing was made or changed.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// One CamelCase word for conditions and metrics.
        reason: FailureReason,
        /// What failed on which object and what to do.
        message: String,
        /// When the run started.
        started_at: Timestamp,
        /// When it gave up.
        finished_at: Timestamp,
    },
}

/// Why a run failed: the reason of the condition, one CamelCase word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureReason {
    /// A Secret that the spec names does not exist or lacks a key.
    SecretNotFound,
    /// The server refused user name or password.
    AuthenticationFailed,
    /// The host's name does not resolve.
    HostNotFound,
    /// The server does not answer, or refuses connections.
    HostUnreachable,
    /// The database user may not read or write what it must.
    PermissionDenied,
    /// A database that the spec names does not exist.
    DatabaseNotFound,
    /// The server is newer than the image's client tools, or the image has none.
    ClientToolsMismatch,
    /// The engine's tool failed in another way.
    EngineFailed,
    /// The bucket does not exist.
    BucketNotFound,
    /// The store refused the key.
    StorageAccessDenied,
    /// The store does not answer.
    StorageUnreachable,
    /// The store answered with another error.
    StorageFailed,
    /// Another run is writing to the prefix.
    AlreadyRunning,
    /// The prefix belongs to another VerticeBackup or another cluster.
    PrefixNotOurs,
    /// There is no such backup.
    BackupNotFound,
    /// What lies in the bucket is not what was written.
    ChecksumMismatch,
    /// A database of that name holds tables and `overwrite` is false.
    TargetNotEmpty,
    /// The run was told to stop (its pod was deleted, its node drained or its deadline passed).
    Interrupted,
    /// The task itself makes no sense to this agent: operator and agent differ in version.
    InvalidTask,
    /// The run's container vanished without a report.
    NoReport,
    /// The Job ran into `timeout`.
    DeadlineExceeded,
    /// The pod could not start: its image cannot be pulled, or nothing schedules it.
    PodNotStarted,
}

impl FailureReason {
    /// The word.
    pub fn as_str(self) -> String {
        // The derive is the one place where the words are written; a unit variant always serializes to a string.
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl Report {
    /// The termination message: JSON of at most [`MAX_REPORT_BYTES`] bytes; long texts and lists are cut.
    pub fn to_termination_message(&self) -> Result<String, serde_json::Error> {
        let mut report = self.clone();
        loop {
            let json = serde_json::to_string(&report)?;
            if json.len() <= MAX_REPORT_BYTES || !report.shorten(json.len() - MAX_REPORT_BYTES) {
                return Ok(json);
            }
        }
    }

    /// Takes at least some of `excess` bytes away; false when nothing is left to take.
    fn shorten(&mut self, excess: usize) -> bool {
        match self {
            Self::Failed { message, .. } if message.len() > ELLIPSIS.len() => {
                // One byte of text is at most six of JSON (`\u0000`): cutting a sixth of the excess never cuts too much.
                let mut keep = message.len().saturating_sub((excess / 6).max(1) + ELLIPSIS.len());
                while !message.is_char_boundary(keep) {
                    keep -= 1;
                }
                message.truncate(keep);
                message.push_str(ELLIPSIS);
                true
            }
            Self::Restored { databases, .. } => databases.pop().is_some(),
            Self::BackedUp { .. } | Self::Failed { .. } => false,
        }
    }

    /// Reads a termination message.
    pub fn parse(message: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(message)
    }
}

/// One line of a run's log that tells how far it is. Lines that do not parse so are ordinary log lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Always `progress`: tells these lines from log lines.
    pub kind: ProgressKind,
    /// What is being done, such as `dump` or `restore`.
    pub step: String,
    /// The object or database that it is done to.
    pub object: String,
    /// Plain bytes so far, over all objects.
    pub plain_bytes: u64,
    /// Stored bytes so far, over all objects.
    pub stored_bytes: u64,
    /// Plain bytes to expect, where known: exact for a restore, the databases' size on disk for a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_bytes: Option<u64>,
    /// Seconds since the run started.
    pub seconds: f64,
}

/// Marks a progress line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgressKind {
    /// The only one.
    #[default]
    #[serde(rename = "progress")]
    Progress,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: String) -> Report {
        let now = Timestamp::UNIX_EPOCH;
        Report::Failed { reason: FailureReason::EngineFailed, message, started_at: now, finished_at: now }
    }

    #[test]
    fn a_long_message_is_cut_to_the_kubelets_limit_at_a_character() {
        // Quotes and newlines grow when escaped, umlauts have two bytes.
        let long = failed("pg_dump: \"Fehler\" ü\n".repeat(1000));
        let json = long.to_termination_message().unwrap();
        assert!(json.len() <= MAX_REPORT_BYTES, "{}", json.len());
        assert!(json.len() > MAX_REPORT_BYTES / 2, "cut too much: {}", json.len());
        let Report::Failed { message, .. } = Report::parse(&json).unwrap() else { panic!("{json}") };
        assert!(message.starts_with("pg_dump: \"Fehler\" ü") && message.ends_with('…'));
    }

    #[test]
    fn a_short_one_is_kept() {
        let short = failed("no".into());
        assert_eq!(Report::parse(&short.to_termination_message().unwrap()).unwrap(), short);
    }

    #[test]
    fn too_many_databases_are_cut() {
        let now = Timestamp::UNIX_EPOCH;
        let report = Report::Restored {
            backup_id: BackupId::new(now, [1, 2, 3]),
            started_at: now,
            finished_at: now,
            plain_bytes: 7,
            databases: (0..2000).map(|n| format!("database_{n}")).collect(),
        };
        assert!(report.to_termination_message().unwrap().len() <= MAX_REPORT_BYTES);
    }

    #[test]
    fn reasons_are_one_camel_case_word() {
        assert_eq!(FailureReason::HostUnreachable.as_str(), "HostUnreachable");
    }
}
