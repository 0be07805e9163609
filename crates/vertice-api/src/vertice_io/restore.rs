//! `VerticeRestore`: puts one backup back into a server, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Storage, Target, at_least_a_second};

/// Restores a backup into a database server.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vertice.io",
    version = "v1alpha1",
    kind = "VerticeRestore",
    plural = "verticerestores",
    shortname = "vr",
    category = "vertice",
    namespaced,
    status = "VerticeRestoreStatus",
    derive = "PartialEq",
    doc = "Restores a backup into a database server, once.",
    validation = Rule::new("size(self.metadata.name) <= 52")
        .message("metadata.name must have at most 52 characters: the name of its Job is made from it"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.backupId"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Restored", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate"),
    printcolumn(name = "Took", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf")
        .message("the spec of a VerticeRestore cannot be changed: a restore happens once; make a new VerticeRestore")
)]
#[x_kube(
    validation = Rule::new("has(self.target) || has(self.source.backupName)")
        .message("set target: with source.storage there is no VerticeBackup whose target could be taken")
)]
#[x_kube(
    validation = Rule::new("!(has(self.source.backupId) && has(self.recoverTo) && has(self.recoverTo.backupId))")
        .message("set source.backupId or recoverTo.backupId, not both")
)]
#[x_kube(
    validation = Rule::new("!(has(self.source.backupId) && has(self.recoverTo) && has(self.recoverTo.latest))")
        .message("set source.backupId or recoverTo.latest, not both")
)]
pub struct VerticeRestoreSpec {
    /// Which backups to take from.
    pub source: RestoreSource,
    /// Which of them; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_to: Option<RecoverTo>,
    /// Where to; the VerticeBackup's own target when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Databases to restore; all of the backup when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    pub databases: Option<Vec<String>>,
    /// Replace databases of the same name that hold tables. Without it such a restore is refused and changes nothing.
    #[serde(default)]
    pub overwrite: bool,
    /// How long the restore may take, such as `2h`; then it is ended and counts as failed. `24h` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = at_least_a_second("timeout"))]
    pub timeout: Option<String>,
}

/// Which backups a restore takes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.backupName) != has(self.storage)")
        .message("set exactly one of backupName and storage")
)]
#[x_kube(
    validation = Rule::new("!has(self.storage) || has(self.storage.prefix)")
        .message("set storage.prefix: without a VerticeBackup there is no default")
)]
pub struct RestoreSource {
    /// Name of a VerticeBackup in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub backup_name: Option<String>,
    /// A bucket, for when the VerticeBackup is gone or lives in another cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Id of one backup, as `status.history[].backupId` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub backup_id: Option<String>,
}

/// Which backup a restore takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.latest) != has(self.backupId)").message("set exactly one of latest and backupId")
)]
#[x_kube(
    validation = Rule::new("!has(self.latest) || self.latest").message("latest can only be true: leave it out instead")
)]
pub struct RecoverTo {
    /// The newest backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
    /// The backup of this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub backup_id: Option<String>,
}

/// How far the restore is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerticeRestoreStatus {
    /// One word for people; decisions belong on the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the restore could be started. `Complete`: it ended well, or why it did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Id of the backup that is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// The server, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Databases that were restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Name of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// UID of the Job: no other Job ever runs for this restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_uid: Option<String>,
    /// When the Job started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How long it took, such as `5m32s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Bytes put into the server, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Bytes put into the server (the dump's, uncompressed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Mean rate for people, such as `48.1MB/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
}

/// One word for the state of a VerticeRestore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// Not yet started: see the Ready condition.
    Pending,
    /// Under way.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly: see the Complete condition. No database was replaced; only with the reason `NoReport` is that not known.
    Failed,
}

impl RestorePhase {
    /// All phases, for one-hot gauges.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed];

    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}
