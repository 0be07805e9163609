//! `VerticeBackup`: a schedule, a database and a place to keep its backups.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{CompressionType, Storage, Target, at_least_a_second};

/// Backs up a database on a schedule.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vertice.io",
    version = "v1alpha1",
    kind = "VerticeBackup",
    plural = "verticebackups",
    shortname = "vb",
    category = "vertice",
    namespaced,
    status = "VerticeBackupStatus",
    derive = "PartialEq",
    doc = "Backs up a database on a schedule.",
    validation = Rule::new("size(self.metadata.name) <= 45")
        .message("metadata.name must have at most 45 characters: the names of its CronJob and of the pods of its runs are made from it"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.target.type"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Last", type_ = "string", json_path = ".status.lastBackup.status"),
    printcolumn(name = "Age of last", type_ = "date", json_path = ".status.lastSuccess.timestamp"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.lastSuccess.size"),
    printcolumn(name = "Took", type_ = "string", json_path = ".status.lastSuccess.duration"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextBackup"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", priority = "1"),
    printcolumn(name = "Location", type_ = "string", json_path = ".status.location", priority = "1")
)]
#[serde(rename_all = "camelCase")]
pub struct VerticeBackupSpec {
    /// The database.
    pub target: Target,
    /// When to run: Kubernetes' cron grammar (five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`).
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(
        validation = Rule::new("!self.startsWith('TZ=') && !self.startsWith('CRON_TZ=')")
            .message("schedule must not contain a time zone: set timeZone instead")
    )]
    pub schedule: String,
    /// IANA time zone of the schedule, such as `Europe/Zurich`; `Etc/UTC` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// No scheduled run starts while true; running ones finish, manual ones still work.
    #[serde(default)]
    pub suspend: bool,
    /// How late a missed run may still start, such as `10m`; without it the CronJob controller's own rule holds
    /// (it catches up unless more than 100 runs were missed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = at_least_a_second("startingDeadline"))]
    pub starting_deadline: Option<String>,
    /// How long one run may take, such as `2h`; then it is ended and counts as failed. `24h` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = at_least_a_second("timeout"))]
    pub timeout: Option<String>,
    /// Where backups go.
    pub storage: Storage,
    /// How backups are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<BackupOptions>,
}

/// How backups are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupOptions {
    /// Compression of the stored objects; gzip when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// Compression of the stored objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.level) || self.type != 'none'")
        .message("level has no meaning with type none: remove it")
)]
#[x_kube(
    validation = Rule::new("!has(self.level) || self.type != 'gzip' || self.level <= 9")
        .message("gzip has the levels 1 to 9")
)]
pub struct Compression {
    /// The format.
    #[serde(default)]
    pub r#type: CompressionType,
    /// 1 (quickest) to 9 for gzip, to 19 for zstd; the format's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 19))]
    pub level: Option<i32>,
}

/// What the operator knows of the schedule and its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerticeBackupStatus {
    /// One word for people; decisions belong on the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the schedule is in force. `BackupHealthy`: the last run succeeded, and none that was due did not start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The run that is under way, or else the most recent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<BackupRun>,
    /// The most recent run that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<BackupRun>,
    /// The last instant at which a run was due and did not start, as was told in an event. Whether that still matters says
    /// `BackupHealthy`, with the reason `RunMissed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_missed: Option<Time>,
    /// The instant at which the CronJob fires next; absent while suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_backup: Option<Time>,
    /// The last ended runs, newest first, 20 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub history: Vec<BackupRun>,
    /// Monotonic totals over all runs that ever ended. Runs that end while the operator is down are counted as long as their Jobs are
    /// there: the CronJob keeps the last ten that succeeded and the last ten that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<BackupTotals>,
    /// Where the backups are, as a URL that `vertice backup ls` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// One word for the state of a VerticeBackup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// Not yet in force: see the Ready condition.
    Pending,
    /// Waiting for the next run.
    Scheduled,
    /// A run is under way.
    Running,
    /// `spec.suspend` is true.
    Suspended,
    /// The last run failed, or did not start when it was due.
    Failing,
}

impl BackupPhase {
    /// All phases, for one-hot gauges.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Scheduled, Self::Running, Self::Suspended, Self::Failing];

    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Suspended => "Suspended",
            Self::Failing => "Failing",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRun {
    /// When it started.
    pub timestamp: Time,
    /// How it ended, or that it has not.
    pub status: RunStatus,
    /// How long it took, such as `5m32s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Stored bytes for people, such as `1.2GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Stored bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Id of the backup in the bucket; only a run that succeeded has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// Name of the Job.
    pub job: String,
    /// UID of the Job: a run is counted once by it.
    pub job_uid: String,
    /// True for a run that a person started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
    /// Why it failed, as one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it failed, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunStatus {
    /// The manifest is in the bucket.
    Success,
    /// There is no backup from this run.
    Failed,
    /// Not ended yet.
    Running,
}

/// Totals that only ever grow, so that counters made from them survive restarts of the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupTotals {
    /// Runs that ended.
    pub runs: i64,
    /// Runs that succeeded.
    pub succeeded: i64,
    /// Runs that failed.
    pub failed: i64,
    /// Times that a run was due and did not start within a minute; several while the operator is down count as one.
    #[serde(default)]
    pub missed: i64,
    /// Seconds that all ended runs took together.
    pub duration_seconds: f64,
    /// Ended runs by duration: entry i counts those of at most `DURATION_BUCKETS[i]` seconds and more than the entry
    /// before; the last entry counts the longer ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub duration_buckets: Vec<i64>,
}

/// Upper bounds in seconds of `vertice_backup_duration_seconds`, without the infinite one.
pub const DURATION_BUCKETS: [f64; 13] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0];
