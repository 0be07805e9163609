//! From the spec to a type that cannot hold an invalid value, or to the reason why it cannot.

use snafu::Snafu;
use vertice_api::vertice_io::{CompressionType, VerticeBackup};
use vertice_catalog::claim::Owner;
use vertice_catalog::manifest::Compression;
use vertice_catalog::task::{Server, StorageLocation};
use vertice_controller::cron::{CronError, Schedule};

use super::observe::Observed;
use crate::fields::{self, InvalidDuration};
use crate::target::{self, TargetError};

/// The CronJob controller would else take the node's local zone.
const DEFAULT_ZONE: &str = "Etc/UTC";

/// A VerticeBackup that can be put in force.
#[derive(Debug)]
pub(super) struct ValidatedBackup {
    /// The expression, as the user wrote it.
    pub(super) schedule_text: String,
    /// IANA name.
    pub(super) zone: String,
    /// Both, parsed.
    pub(super) schedule: Schedule,
    pub(super) suspend: bool,
    /// Seconds.
    pub(super) starting_deadline: Option<i64>,
    /// Seconds.
    pub(super) timeout: i64,
    pub(super) owner: Owner,
    pub(super) server: Server,
    pub(super) engine_image: String,
    pub(super) pull_secrets: Vec<String>,
    pub(super) databases: Option<Vec<String>>,
    pub(super) storage: StorageLocation,
    pub(super) compression: Compression,
    pub(super) compression_level: Option<i32>,
}

/// Why a spec cannot be put in force. The text names the field and what to do.
#[derive(Debug, Snafu)]
pub(super) enum Invalid {
    #[snafu(display("spec.schedule: {source}"))]
    Schedule { source: CronError },
    #[snafu(display("spec.timeZone: {source}"))]
    TimeZone { source: CronError },
    #[snafu(display(
        "spec.schedule: {expression:?} never fires within five years; correct the day or the month"
    ))]
    NeverFires { expression: String },
    #[snafu(transparent)]
    Timeout { source: InvalidDuration },
    #[snafu(display("{source}"))]
    StartingDeadline { source: InvalidDuration },
    #[snafu(transparent)]
    Target { source: TargetError },
}

impl Invalid {
    /// The reason of the Ready condition.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Schedule { .. } | Self::NeverFires { .. } => "InvalidSchedule",
            Self::TimeZone { .. } => "InvalidTimeZone",
            Self::Timeout { .. } => "InvalidTimeout",
            Self::StartingDeadline { .. } => "InvalidStartingDeadline",
            Self::Target { source } => source.reason(),
        }
    }
}

/// Checks everything that can be checked without asking the database or the store.
pub(super) fn validate(observed: &Observed, now: jiff::Timestamp) -> Result<ValidatedBackup, Invalid> {
    let VerticeBackup { metadata, spec, .. } = &*observed.backup;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let zone = spec.time_zone.as_deref().unwrap_or(DEFAULT_ZONE);
    let schedule = Schedule::parse(&spec.schedule, zone).map_err(|source| {
        if source.is_time_zone() { Invalid::TimeZone { source } } else { Invalid::Schedule { source } }
    })?;
    if schedule.next_after(now).is_none() {
        return NeverFiresSnafu { expression: &spec.schedule }.fail();
    }
    let starting_deadline = fields::seconds("spec.startingDeadline", spec.starting_deadline.as_deref())
        .map_err(|source| Invalid::StartingDeadline { source })?;
    let timeout = fields::timeout(spec.timeout.as_deref())?;
    let target = target::resolve(&spec.target, namespace, "spec.target", &observed.candidates)?;
    let compression =
        spec.options.as_ref().and_then(|options| options.compression.clone()).unwrap_or_default();
    Ok(ValidatedBackup {
        schedule_text: spec.schedule.clone(),
        zone: zone.to_owned(),
        schedule,
        suspend: spec.suspend,
        starting_deadline,
        timeout,
        owner: Owner {
            cluster: observed.cluster.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        server: Server {
            engine: spec.target.r#type.as_str().to_owned(),
            host: target.host,
            port: target.port,
            secret: spec.target.credentials.clone(),
        },
        engine_image: target.image,
        pull_secrets: target.pull_secrets,
        databases: spec.target.databases.clone(),
        storage: fields::location(&spec.storage, namespace, name),
        compression: match compression.r#type {
            CompressionType::Gzip => Compression::Gzip,
            CompressionType::Zstd => Compression::Zstd,
            CompressionType::None => Compression::None,
        },
        compression_level: compression.level,
    })
}
