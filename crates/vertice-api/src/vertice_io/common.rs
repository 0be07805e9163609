//! What VerticeBackup and VerticeRestore share: where the data lives and where backups go.

use kube::KubeSchema;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Admits durations in Go's notation of at least a second; `field` names the field in the refusal.
pub(super) fn at_least_a_second(field: &str) -> Rule {
    Rule::new(r"self.matches('^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s')")
        .message(format!("{field} must be a duration of at least 1s, such as 90s, 15m or 1h30m").as_str())
}

/// The database that is backed up or restored into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.host) || !has(self.kind)")
        .message("set host or kind, not both: host names a server outside of Kubernetes' workloads, kind one inside")
)]
#[x_kube(
    validation = Rule::new("!has(self.host) || has(self.image)")
        .message("with host, image is required: it names the container image whose pg_dump and pg_restore match the server")
)]
pub struct Target {
    /// The engine.
    pub r#type: Engine,
    /// Name of the Service, StatefulSet or Deployment in this namespace that runs the database.
    /// With `host` it is only the name shown to people.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What `name` names. Without it, a Service of that name is looked for first, then a StatefulSet, then a Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TargetKind>,
    /// Name of a Secret in this namespace with the keys `username` and `password`.
    #[schemars(length(min = 1, max = 253))]
    pub credentials: String,
    /// DNS name or address of the server; found from the workload when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// TCP port; 5432 when absent and the Service or container names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Databases to take or put back; all of the server's (without templates) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    pub databases: Option<Vec<String>>,
    /// Image that has the engine's client tools in the server's version; that of the database's own pods when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
}

/// The engines that can be backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL, by logical dumps.
    Postgresql,
}

impl Engine {
    /// The word used in specs, metrics and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
        }
    }

    /// The port that the engine listens on unless told otherwise.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Postgresql => 5432,
        }
    }
}

/// What kind of object a target's `name` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// A core/v1 Service.
    Service,
    /// An apps/v1 StatefulSet; its first pod is asked.
    StatefulSet,
    /// An apps/v1 Deployment, reached through a Service that selects its pods.
    Deployment,
}

/// Where backups are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.endpoint) || self.endpoint.matches('^https?://[^/]+/?$')")
        .message("endpoint must be http://host[:port] or https://host[:port], without a path")
)]
pub struct Storage {
    /// The kind of object store.
    pub r#type: StorageType,
    /// Name of the bucket; it must exist.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// Folder in the bucket; `<namespace>/<name>` of the VerticeBackup when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("!self.startsWith('/') && !self.endsWith('/') && !self.contains('//')")
            .message("prefix must not begin or end with a slash, nor contain an empty segment")
    )]
    pub prefix: Option<String>,
    /// URL of an S3-compatible store; AWS when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub endpoint: Option<String>,
    /// Region; `us-east-1` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Name of a Secret in this namespace with the provider's own keys: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`
    /// and optionally `AWS_SESSION_TOKEN`.
    #[schemars(length(min = 1, max = 253))]
    pub credentials: String,
}

/// The kinds of object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// Amazon S3 or a store that speaks its protocol.
    S3,
}

/// How stored objects are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionType {
    /// RFC 1952, readable everywhere.
    #[default]
    Gzip,
    /// RFC 8878: smaller and several times quicker than gzip.
    Zstd,
    /// Stored as dumped.
    None,
}
