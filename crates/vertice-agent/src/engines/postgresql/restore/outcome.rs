//! What became of the swap when its answer was lost: the server may have done it all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::error::PostgresError;
use super::super::quote::literal;
use super::super::session::Session;
use super::{ADMIN, Part};

/// How long a server that went away is asked.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

const DATABASES: &str = "SELECT json_object_agg(datname, oid::int8) FROM pg_database;";

/// What is known before the swap: a database keeps its number when its name changes.
#[derive(Debug)]
pub(super) struct Before {
    numbers: BTreeMap<String, i64>,
    /// What the swap's connection calls itself.
    application: String,
}

impl Before {
    pub(super) async fn of(session: &Session) -> Result<Self, PostgresError> {
        let numbers = session.json(ADMIN, "list the databases", DATABASES).await?;
        let application = format!("vertice-agent swap {}", hex::encode(rand::random::<[u8; 8]>()));
        Ok(Self { numbers, application })
    }

    /// The statement by which the swap's connection is known.
    pub(super) fn statement(&self) -> String {
        format!("SET application_name = {};", literal(&self.application))
    }

    /// Finds out whether the databases took their places; `lost` is the error if they did not.
    pub(super) async fn compare(
        &self,
        session: &Session,
        parts: &[Part<'_>],
        lost: PostgresError,
    ) -> Result<(), PostgresError> {
        tracing::warn!(error = %lost, "the answer of the last step was lost, looking whether it was done");
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match self.done(session, parts).await {
                Ok(Some(true)) => return Ok(()),
                Ok(Some(false)) => return Err(lost),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the server cannot be asked, trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(PostgresError::Unknown {
            server: session.server(),
            databases: parts.iter().map(|part| part.database.name.clone()).collect(),
            seconds: LIMIT.as_secs(),
            words: match lost {
                PostgresError::Refused { words, .. } => words,
                other => other.to_string(),
            },
        })
    }

    /// Whether the swap was done; none while it may still be.
    async fn done(&self, session: &Session, parts: &[Part<'_>]) -> Result<Option<bool>, PostgresError> {
        let running = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = {};",
            literal(&self.application)
        );
        let running: u32 = session.json(ADMIN, "end the connection that was lost", &running).await?;
        if running > 0 {
            return Ok(None);
        }
        let now: BTreeMap<String, i64> = session.json(ADMIN, "list the databases", DATABASES).await?;
        let in_place = |part: &Part<'_>| {
            let number = self.numbers.get(&part.scratch);
            number.is_some() && now.get(&part.database.name) == number
        };
        Ok(Some(parts.iter().all(in_place)))
    }
}
