//! One restore: into databases of other names, which take their places when all of them are known to be right.

mod mark;
mod outcome;
mod scratch;
mod swap;
mod target;

use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Mutex;
use vertice_catalog::manifest::{Database, Manifest, Object, Role};

use super::error::PostgresError;
use super::globals::{self, Existing, ParameterGrant};
use super::quote::ident;
use super::session::Session;
use crate::mutant::{self, Mutant};
use crate::pipeline::fetch;
use crate::progress::Progress;
use crate::storage::Bucket;

pub(super) use mark::MARK;
pub(super) use scratch::is_scratch;

/// Where we ask from: it is never restored, and unlike `postgres` nobody renames it.
const ADMIN: &str = "template1";

/// What to restore.
pub struct Request<'a> {
    /// Where the backup lies.
    pub bucket: &'a Bucket,
    /// The backup.
    pub manifest: &'a Manifest,
    /// Only these databases of it.
    pub databases: Option<&'a [String]>,
    /// Whether databases that hold something may be replaced.
    pub overwrite: bool,
    /// Who holds the claim to the server: the run's namespace and name.
    pub holder: &'a str,
    /// When the run started.
    pub since: Timestamp,
    /// Where bytes are counted.
    pub progress: &'a Arc<Progress>,
    /// Held while the databases take their places: a run that is told to stop waits for that, and does not cut it.
    pub critical: &'a Mutex<()>,
    /// Called as soon as the databases are in their places: from then on the restore has succeeded, whatever becomes of the process.
    pub settled: &'a (dyn Fn(&Restored) + Sync),
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("backup", &self.manifest.id)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The databases.
    pub databases: Vec<String>,
    /// Bytes put into the server.
    pub plain_bytes: u64,
}

/// What has been made so far and must go when the restore does not succeed.
#[derive(Debug, Default)]
pub struct Undo(StdMutex<Made>);

#[derive(Debug, Default)]
struct Made {
    databases: Vec<String>,
    roles: Vec<String>,
    /// Statements that take privileges away again, with which a role could not be dropped.
    revokes: Vec<String>,
}

impl Undo {
    fn made(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One database and where it goes.
#[derive(Debug)]
struct Part<'a> {
    database: &'a Database,
    object: &'a Object,
    /// The name that it has while it is restored.
    scratch: String,
    /// The name that a database in its place gets, when there is one.
    old: Option<String>,
}

/// Restores. On an error (or when this is dropped) call [`undo`].
pub async fn restore(
    session: &Session,
    request: &Request<'_>,
    made: &Undo,
) -> Result<Restored, PostgresError> {
    target::check_server(session, request.manifest)?;
    let mut parts = select(request)?;
    mark::drop_leftovers(session, request.holder).await?;
    target::check_databases(session, &mut parts, request.overwrite).await?;
    if mutant::on(Mutant::OldDroppedFirst) {
        for part in &mut parts {
            scratch::drop_database(session, &part.database.name).await;
            part.old = None;
        }
    }
    let renewal = mark::renew_for_ever(session, request, made);
    let restored = Restored {
        databases: parts.iter().map(|part| part.database.name.clone()).collect(),
        plain_bytes: parts.iter().map(|part| part.object.plain.bytes).sum(),
    };
    tokio::select! {
        result = make(session, request, &parts, made, &restored) => result?,
        () = renewal => {}
    }
    Ok(restored)
}

async fn make(
    session: &Session,
    request: &Request<'_>,
    parts: &[Part<'_>],
    made: &Undo,
    restored: &Restored,
) -> Result<(), PostgresError> {
    let globals = request.manifest.objects.iter().find(|object| object.role == Role::Globals);
    let plain = |object: &Object| object.plain.bytes;
    request.progress.expect(parts.iter().map(|part| plain(part.object)).chain(globals.map(plain)).sum());
    for part in parts {
        scratch::create(session, request, part, made).await?;
    }
    // Two restores that began at once see each other now.
    mark::check_alone(session, request.holder).await?;
    if let Some(globals) = globals {
        request.progress.doing("restore", "globals");
        restore_globals(session, request, globals, made).await?;
    }
    scratch::hand_over(session, parts).await?;
    for part in parts {
        request.progress.doing("restore", &part.database.name);
        fill(session, request, part).await?;
    }
    request.progress.doing("swap", "all databases");
    if !request.overwrite {
        target::check_still_empty(session, parts).await?;
    }
    let _uncut = request.critical.lock().await;
    let swapped = swap::swap(session, request, parts).await;
    if matches!(swapped, Ok(()) | Err(PostgresError::Unknown { .. })) {
        // What is in its place, or may be, must not be taken back.
        *made.made() = Made::default();
    }
    swapped?;
    (request.settled)(restored);
    swap::drop_old(session, request, parts).await;
    Ok(())
}

/// The parts that are wanted.
fn select<'a>(request: &Request<'a>) -> Result<Vec<Part<'a>>, PostgresError> {
    let manifest = request.manifest;
    if let Some(wanted) = request.databases {
        let there: Vec<_> = manifest.databases.iter().map(|database| database.name.clone()).collect();
        let missing: Vec<_> = wanted.iter().filter(|name| !there.contains(name)).cloned().collect();
        if !missing.is_empty() {
            let place = format!("backup {}", manifest.id);
            return Err(PostgresError::NoSuchDatabase { place, wanted: missing, there });
        }
    }
    manifest
        .databases
        .iter()
        .filter(|database| request.databases.is_none_or(|wanted| wanted.contains(&database.name)))
        .map(|database| {
            let object = manifest.object(&database.object).ok_or_else(|| PostgresError::NoObject {
                id: manifest.id.to_string(),
                database: database.name.clone(),
                object: database.object.clone(),
            })?;
            Ok(Part { database, object, scratch: scratch::random_name(&database.name), old: None })
        })
        .collect()
}

const EXISTING: &str = "SELECT json_build_object('roles', coalesce(json_agg(rolname), '[]')) FROM pg_roles;";

async fn restore_globals(
    session: &Session,
    request: &Request<'_>,
    object: &Object,
    made: &Undo,
) -> Result<(), PostgresError> {
    let (bucket, id) = (request.bucket, &request.manifest.id);
    let dump = fetch(bucket, id, object, request.progress, async |mut pieces| {
        let mut dump = Vec::new();
        while let Some(piece) = pieces.recv().await {
            request.progress.add_plain(piece.len() as u64);
            dump.extend_from_slice(&piece);
        }
        Ok::<_, PostgresError>(String::from_utf8_lossy(&dump).into_owned())
    })
    .await?;
    let existing: Existing = session.json(ADMIN, "list the roles", EXISTING).await?;
    let plan = globals::plan(&dump, &existing);
    if !plan.left.is_empty() {
        tracing::warn!(
            statements = ?plan.left,
            "privileges on parameters of roles that were there before, and of everybody, are left as they are: grant by hand what is \
             missing"
        );
    }
    if plan.statements.is_empty() {
        return Ok(());
    }
    tracing::info!(roles = ?plan.creates, "creating roles that do not exist");
    made.made().roles.extend(plan.creates);
    let script = format!("BEGIN;\n{}\nCOMMIT;\n", plan.statements.join("\n"));
    session.sql(ADMIN, "create the roles of the backup", &script).await?;
    grant_parameters(session, plan.parameters, made).await
}

/// Grants privileges on parameters. One that the server refuses (it may not know a parameter of an older version) fails nothing.
async fn grant_parameters(
    session: &Session,
    grants: Vec<ParameterGrant>,
    made: &Undo,
) -> Result<(), PostgresError> {
    for ParameterGrant { grant, revoke } in grants {
        made.made().revokes.push(revoke);
        match session.sql(ADMIN, "grant a privilege on a parameter", &grant).await {
            Err(error) if error.is_definite() => {
                made.made().revokes.pop();
                tracing::warn!(statement = grant, %error, "a privilege on a parameter is not restored: grant it by hand");
            }
            granted => drop(granted?),
        }
    }
    Ok(())
}

/// Fills a scratch database from its object.
async fn fill(session: &Session, request: &Request<'_>, part: &Part<'_>) -> Result<(), PostgresError> {
    let arguments = ["--format=custom", "--exit-on-error", "--no-tablespaces"];
    let doing = format!("restore database {:?}", part.database.name);
    fetch(request.bucket, &request.manifest.id, part.object, request.progress, async |mut pieces| {
        let mut running = session.start("pg_restore", &part.scratch, &arguments)?;
        running.receive_input(&mut pieces, request.progress).await;
        let ended = running.end().await?;
        session.judge(&doing, &ended)
    })
    .await
}

/// Takes back what a restore that did not succeed has made. Tells in the log what it cannot take back.
pub async fn undo(session: &Session, made: &Undo) {
    let Made { databases, roles, revokes } = std::mem::take(&mut *made.made());
    for database in databases {
        scratch::drop_database(session, &database).await;
    }
    if roles.is_empty() {
        return;
    }
    let list = roles.iter().map(|role| ident(role)).collect::<Vec<_>>().join(", ");
    let script = format!("{}\nDROP ROLE IF EXISTS {list};", revokes.join("\n"));
    let dropped = session.sql(ADMIN, "drop the roles that were made", &script).await;
    if let Err(error) = dropped {
        tracing::warn!(%error, "roles of a restore that failed are left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request borrows.
    pub(super) struct Fixture {
        bucket: Bucket,
        manifest: Manifest,
        progress: Arc<Progress>,
        critical: Mutex<()>,
    }

    impl Fixture {
        /// A backup of databases of these names.
        pub(super) fn of(names: &[&str]) -> Self {
            let json = include_str!("../../../../../vertice-catalog/tests/fixtures/v1-full.json");
            let mut manifest: Manifest = serde_json::from_str(json).unwrap();
            let first = manifest.databases[0].clone();
            let with_name = |name: &&str| Database { name: (*name).to_owned(), ..first.clone() };
            manifest.databases = names.iter().map(with_name).collect();
            let bucket = crate::storage::tests::bucket();
            Self { bucket, manifest, progress: Arc::default(), critical: Mutex::default() }
        }

        pub(super) fn request(&self) -> Request<'_> {
            Request {
                bucket: &self.bucket,
                manifest: &self.manifest,
                databases: None,
                overwrite: false,
                holder: "pod-a",
                since: Timestamp::UNIX_EPOCH,
                progress: &self.progress,
                critical: &self.critical,
                settled: &|_| {},
            }
        }
    }

    #[test]
    fn long_names_that_begin_alike_are_kept_apart() {
        let begin = "a".repeat(60);
        let fixture = Fixture::of(&[&format!("{begin}1"), &format!("{begin}2")]);
        let request = fixture.request();
        let parts = select(&request).unwrap();
        assert_ne!(parts[0].scratch, parts[1].scratch);
    }
}
