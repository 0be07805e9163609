//! One backup: globals, then every database, one after the other.

use vertice_catalog::manifest::{Database, Object, Role};

use super::databases;
use super::error::PostgresError;
use super::session::Session;
use crate::pipeline::{Destination, store};

/// What a backup consists of.
#[derive(Debug)]
pub struct Contents {
    /// The server's version text.
    pub server_version: String,
    /// Its major version.
    pub server_major: u32,
    /// The databases, with the objects that hold them.
    pub databases: Vec<Database>,
    /// All objects, globals first.
    pub objects: Vec<Object>,
}

/// Dumps the server, or the `wanted` databases of it.
pub async fn back_up(
    session: &Session,
    to: &Destination<'_>,
    wanted: Option<&[String]>,
) -> Result<Contents, PostgresError> {
    let mut databases = databases::select(session, wanted).await?;
    to.progress.expect(databases.iter().map(|database| database.disk_bytes).sum());
    to.progress.doing("dump", "globals");
    let mut objects = vec![dump_globals(session, to).await?];
    for database in &mut databases {
        to.progress.doing("dump", &database.name);
        let object = dump(session, to, database).await?;
        database.object.clone_from(&object.name);
        objects.push(object);
    }
    Ok(Contents {
        server_version: session.facts().version.clone(),
        server_major: session.major(),
        databases,
        objects,
    })
}

/// Roles, their memberships and settings, and tablespaces. Only a superuser may read passwords.
async fn dump_globals(session: &Session, to: &Destination<'_>) -> Result<Object, PostgresError> {
    let mut arguments = vec!["--globals-only"];
    if !session.facts().superuser {
        tracing::warn!(
            user = session.user(),
            "the backup holds no passwords of roles, which only a superuser may read: roles that a restore makes cannot log in by \
             password until they are given new ones"
        );
        arguments.push("--no-role-passwords");
    }
    run(
        session,
        to,
        ("globals.sql", Role::Globals),
        ("pg_dumpall", "template1", &arguments),
        "dump the roles",
    )
    .await
}

async fn dump(session: &Session, to: &Destination<'_>, database: &Database) -> Result<Object, PostgresError> {
    // Byte for byte as the server has them: PGCLIENTENCODING would convert, and what SQL_ASCII holds may be in no encoding.
    let encoding = format!("--encoding={}", database.encoding);
    let arguments = ["--format=custom", "--compress=0", &encoding];
    let doing = format!("dump database {:?}", database.name);
    run(session, to, (&database.object, Role::Dump), ("pg_dump", &database.name, &arguments), &doing).await
}

async fn run(
    session: &Session,
    to: &Destination<'_>,
    (name, role): (&str, Role),
    (tool, database, arguments): (&'static str, &str, &[&str]),
    doing: &str,
) -> Result<Object, PostgresError> {
    store(to, name, role, async |pieces| {
        let mut running = session.start(tool, database, arguments)?;
        running.send_output(&pieces).await?;
        // The sender lives until the exit status is known: half a dump must not become an object.
        let judged = session.judge(doing, &running.end().await?);
        drop(pieces);
        judged
    })
    .await
}
