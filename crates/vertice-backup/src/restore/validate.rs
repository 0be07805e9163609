//! From the spec to a type that cannot hold an invalid value, or to the reason why it cannot.

use kube::ResourceExt as _;
use snafu::{OptionExt as _, ResultExt as _, Snafu};
use vertice_api::vertice_io::{Target, VerticeBackup};
use vertice_catalog::id::{BackupId, InvalidId};
use vertice_catalog::task::{RestoreTask, Server, StorageLocation};

use super::observe::Observed;
use crate::fields::{self, InvalidDuration};
use crate::target::{self, TargetError};

/// A VerticeRestore that can be started.
#[derive(Debug)]
pub(super) struct ValidatedRestore {
    pub(super) task: RestoreTask,
    pub(super) engine_image: String,
    pub(super) pull_secrets: Vec<String>,
    /// Seconds.
    pub(super) timeout: i64,
}

/// Why a restore cannot be started. The text names the field and what to do; the spec of a VerticeRestore cannot be changed.
#[derive(Debug, Snafu)]
pub(super) enum Invalid {
    #[snafu(display(
        "spec.source.backupName: there is no VerticeBackup {name:?} in namespace {namespace}; create it (it is noticed by itself), \
         or make a new VerticeRestore, with spec.source.storage and spec.target if the VerticeBackup is gone"
    ))]
    SourceNotFound { name: String, namespace: String },
    #[snafu(display("spec.source: set exactly one of backupName and storage"))]
    NoSource,
    #[snafu(display(
        "spec.target: is needed with spec.source.storage, as there is no VerticeBackup whose target could be taken"
    ))]
    NoTarget,
    #[snafu(display("{field}: {source}"))]
    BackupId { field: &'static str, source: InvalidId },
    #[snafu(transparent)]
    Timeout { source: InvalidDuration },
    #[snafu(transparent)]
    Target { source: TargetError },
}

impl Invalid {
    /// The reason of the Ready condition.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::SourceNotFound { .. } => "SourceNotFound",
            Self::NoSource => "InvalidSource",
            Self::NoTarget => "TargetNotFound",
            Self::BackupId { .. } => "InvalidBackupId",
            Self::Timeout { .. } => "InvalidTimeout",
            Self::Target { source } => source.reason(),
        }
    }
}

/// Checks everything that can be checked without asking the database or the store.
pub(super) fn validate(observed: &Observed) -> Result<ValidatedRestore, Invalid> {
    let restore = &observed.restore;
    let namespace = restore.namespace().unwrap_or_default();
    let spec = &restore.spec;
    let timeout = fields::timeout(spec.timeout.as_deref())?;
    let backup_id = backup_id(observed)?;
    let (storage, target, field) = source(observed, &namespace)?;
    let resolved = target::resolve(target, &namespace, &field, &observed.candidates)?;
    Ok(ValidatedRestore {
        task: RestoreTask {
            server: Server {
                engine: target.r#type.as_str().to_owned(),
                host: resolved.host,
                port: resolved.port,
                secret: target.credentials.clone(),
            },
            storage,
            backup_id,
            databases: spec.databases.clone(),
            overwrite: spec.overwrite,
        },
        engine_image: resolved.image,
        pull_secrets: resolved.pull_secrets,
        timeout,
    })
}

/// Where the backups are, where they go to, and the path at which that target stands.
fn source<'a>(
    observed: &'a Observed,
    namespace: &str,
) -> Result<(StorageLocation, &'a Target, String), Invalid> {
    let spec = &observed.restore.spec;
    let own = spec.target.as_ref().map(|target| (target, "spec.target".to_owned()));
    match (&spec.source.backup_name, &spec.source.storage) {
        (Some(name), None) => {
            let missing = SourceNotFoundSnafu { name, namespace };
            let backup: &VerticeBackup = observed.backup.as_deref().context(missing)?;
            let storage = fields::location(&backup.spec.storage, namespace, name);
            let theirs = || (&backup.spec.target, format!("spec.target of VerticeBackup {name}"));
            let (target, field) = own.unwrap_or_else(theirs);
            Ok((storage, target, field))
        }
        (None, Some(storage)) => {
            let (target, field) = own.context(NoTargetSnafu)?;
            Ok((fields::location(storage, namespace, &observed.restore.name_any()), target, field))
        }
        _ => NoSourceSnafu.fail(),
    }
}

/// The wanted backup's id; none is the newest.
fn backup_id(observed: &Observed) -> Result<Option<String>, Invalid> {
    let spec = &observed.restore.spec;
    let by_source = spec.source.backup_id.as_ref().map(|id| ("spec.source.backupId", id));
    let recover_to = spec.recover_to.as_ref().and_then(|recover_to| recover_to.backup_id.as_ref());
    let Some((field, id)) = by_source.or(recover_to.map(|id| ("spec.recoverTo.backupId", id))) else {
        return Ok(None);
    };
    id.parse::<BackupId>().context(BackupIdSnafu { field })?;
    Ok(Some(id.clone()))
}
