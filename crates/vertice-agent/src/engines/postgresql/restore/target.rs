//! Whether a backup may go into a server.

use serde::Deserialize;
use vertice_catalog::manifest::Manifest;

use super::super::error::PostgresError;
use super::super::session::Session;
use super::{ADMIN, Part, scratch};

const DATABASES: &str = "SELECT coalesce(json_agg(json_build_object('name', datname, 'open', datallowconn)), '[]') FROM pg_database;";

/// Tables, views, sequences, functions and the like of users (an extension's own do not count), and large objects.
const USED: &str = "SELECT to_json(EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') \
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')) \
    OR EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')) \
    OR EXISTS (SELECT FROM pg_largeobject_metadata));";

#[derive(Debug, Deserialize)]
struct Found {
    name: String,
    open: bool,
}

/// The server must be a primary, not older than the backup, and let our user create databases.
pub(super) fn check_server(session: &Session, manifest: &Manifest) -> Result<(), PostgresError> {
    let server = session.server();
    let facts = session.facts();
    if facts.standby {
        return Err(PostgresError::Standby { server });
    }
    if session.major() < manifest.server_major {
        let (backup, found) = (manifest.server_major, session.major());
        return Err(PostgresError::OlderServer { server, backup, found });
    }
    if !facts.superuser && !facts.create_db {
        return Err(PostgresError::NoCreateDb { server, user: session.user().to_owned() });
    }
    Ok(())
}

/// Finds the databases in whose places the parts go, and refuses to replace one that holds something unless told to.
pub(super) async fn check_databases(
    session: &Session,
    parts: &mut [Part<'_>],
    overwrite: bool,
) -> Result<(), PostgresError> {
    let found: Vec<Found> = session.json(ADMIN, "list the databases", DATABASES).await?;
    let mut used = Vec::new();
    for part in parts {
        let name = &part.database.name;
        let Some(found) = found.iter().find(|found| found.name == *name) else { continue };
        part.old = Some(scratch::random_name(name));
        if !overwrite && (!found.open || holds_something(session, name).await?) {
            used.push(name.clone());
        }
    }
    if used.is_empty() {
        return Ok(());
    }
    Err(PostgresError::NotEmpty { server: session.server(), databases: used })
}

/// Whether the databases that are about to be replaced still hold nothing: a restore takes long, and somebody may have begun
/// to use them meanwhile.
pub(super) async fn check_still_empty(session: &Session, parts: &[Part<'_>]) -> Result<(), PostgresError> {
    let mut used = Vec::new();
    for part in parts.iter().filter(|part| part.old.is_some()) {
        let name = &part.database.name;
        if holds_something(session, name).await? {
            used.push(name.clone());
        }
    }
    if used.is_empty() {
        return Ok(());
    }
    Err(PostgresError::NotEmpty { server: session.server(), databases: used })
}

/// Whether a database holds what a person would miss.
pub(super) async fn holds_something(session: &Session, database: &str) -> Result<bool, PostgresError> {
    session.json(database, &format!("look into database {database:?}"), USED).await
}
