//! Why a run failed: any step's error, with the one word for conditions and metrics.

use snafu::Snafu;
use vertice_catalog::report::FailureReason;

use crate::engines::postgresql::PostgresError;
use crate::secrets::SecretError;
use crate::storage::{CatalogueError, ClaimError, OwnerError, StorageError};

/// A run failed.
#[derive(Debug, Snafu)]
pub enum Failure {
    /// The task cannot be understood.
    #[snafu(display(
        "the task in VERTICE_TASK cannot be done: {detail}; operator and agent should have the same version"
    ))]
    Task {
        /// Why.
        detail: String,
    },
    /// A secret cannot be had.
    #[snafu(transparent)]
    Secrets {
        /// Why.
        source: SecretError,
    },
    /// The store failed.
    #[snafu(transparent)]
    Store {
        /// Why.
        source: StorageError,
    },
    /// The claim cannot be had, or was lost.
    #[snafu(transparent)]
    Claim {
        /// Why.
        source: ClaimError,
    },
    /// The prefix is not ours.
    #[snafu(transparent)]
    Owner {
        /// Why.
        source: OwnerError,
    },
    /// The backup cannot be had.
    #[snafu(transparent)]
    Catalogue {
        /// Why.
        source: CatalogueError,
    },
    /// PostgreSQL failed.
    #[snafu(transparent)]
    Postgres {
        /// Why.
        #[snafu(source(from(PostgresError, Box::new)))]
        source: Box<PostgresError>,
    },
    /// The manifest cannot be written as JSON.
    #[snafu(display("the manifest cannot be written as JSON: {source}"))]
    Manifest {
        /// Why.
        source: serde_json::Error,
    },
    /// The pod is to end.
    #[snafu(display(
        "the run was told to stop before it was done (its pod was deleted, its node drained, or its deadline passed); what it had \
         made was removed"
    ))]
    Interrupted,
}

impl Failure {
    /// The reason for conditions and metrics.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Task { .. } => FailureReason::InvalidTask,
            Self::Secrets { .. } => FailureReason::SecretNotFound,
            Self::Store { source }
            | Self::Claim { source: ClaimError::ClaimStorage { source } }
            | Self::Owner { source: OwnerError::OwnerStorage { source } } => source.reason(),
            Self::Claim { source: ClaimError::Busy { .. } } => FailureReason::AlreadyRunning,
            Self::Claim { source: ClaimError::Lost { .. } } => FailureReason::StorageUnreachable,
            Self::Owner { source: OwnerError::NotOurs { .. } } => FailureReason::PrefixNotOurs,
            Self::Catalogue { source } => source.reason(),
            Self::Postgres { source } => source.reason(),
            Self::Manifest { .. } => FailureReason::EngineFailed,
            Self::Interrupted => FailureReason::Interrupted,
        }
    }
}
