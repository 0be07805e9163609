//! Databases under restore, beside those whose places they take.

use serde::Deserialize;
use vertice_catalog::manifest::Database;

use super::super::error::PostgresError;
use super::super::quote::{ident, literal};
use super::super::session::Session;
use super::mark::Goes;
use super::{ADMIN, Part, Request, Undo, mark, target};

/// PostgreSQL cuts longer names off (NAMEDATALEN - 1).
const MAX_NAME: usize = 63;
/// What our suffix begins with; six hexadecimal digits follow.
const INFIX: &str = "_vertice_";
/// The connection limit of a database until it takes its place: more than any server can have, and what nobody chooses. It comes
/// with the database in one step, which a comment cannot: so one is known whose maker was killed before it could mark it.
const CONNECTIONS: i32 = 1_986_359_924;
/// The advisory lock that is shared by who makes a database and has not marked it yet.
const MAKING: i64 = 0x0076_6572_7469_6365;

/// A name beside a database's own. Random for each: two long names may be the same when they are cut.
pub(super) fn random_name(database: &str) -> String {
    name(database, &hex::encode(rand::random::<[u8; 3]>()))
}

/// `orders_vertice_3f9a1c`; the database's own name is cut when both do not fit.
fn name(database: &str, tag: &str) -> String {
    let suffix = format!("{INFIX}{tag}");
    let mut keep = database.len().min(MAX_NAME - suffix.len());
    while !database.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}{suffix}", &database[..keep])
}

/// Whether a database was made by a restore and has not taken its place.
pub(in super::super) fn is_scratch(name: &str, connection_limit: i64) -> bool {
    let tag = name.rsplit_once(INFIX).map_or("", |(_, tag)| tag);
    let ours = tag.len() == 6 && tag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ours && connection_limit == i64::from(CONNECTIONS)
}

/// The statement that ends a connection limit of ours.
pub(super) fn unlimited(name: &str) -> String {
    format!("ALTER DATABASE {} CONNECTION LIMIT -1;", ident(name))
}

/// Makes an empty, marked database with the encoding and locale of the original.
pub(super) async fn create(
    session: &Session,
    request: &Request<'_>,
    part: &Part<'_>,
    made: &Undo,
) -> Result<(), PostgresError> {
    let script = format!(
        "SELECT pg_advisory_lock_shared({MAKING});\nCREATE DATABASE {} {} CONNECTION LIMIT {CONNECTIONS};\n{}\n",
        ident(&part.scratch),
        options(part.database, session.major()),
        mark::statement(request, &part.scratch, Goes::Always)
    );
    // Before it is there: a run that is cut off in between must drop it, too.
    made.made().databases.push(part.scratch.clone());
    let doing = format!("create database {:?} to restore {:?} into", part.scratch, part.database.name);
    session.sql(ADMIN, &doing, &script).await?;
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Unmarked {
    name: String,
    limit: i64,
}

/// Drops what was made by a restore that was killed before it could mark it.
pub(super) async fn drop_unmarked(session: &Session) -> Result<(), PostgresError> {
    // While somebody is between making and marking, the lock is not to be had, and there is nothing to be seen. Both in one message:
    // a lock of ours ends with it, whatever becomes of us.
    let script = format!(
        "DO $$ BEGIN PERFORM pg_try_advisory_xact_lock({MAKING}); END $$ \\; \
         SELECT coalesce(json_agg(json_build_object('name', datname, 'limit', datconnlimit)), '[]') FROM pg_database \
         WHERE datconnlimit = {CONNECTIONS} AND shobj_description(oid, 'pg_database') IS NULL AND EXISTS (SELECT FROM pg_locks \
         WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted AND pid = pg_backend_pid());"
    );
    let found: Vec<Unmarked> =
        session.json(ADMIN, "look for what killed restores have left", &script).await?;
    for Unmarked { name, .. } in found.into_iter().filter(|found| is_scratch(&found.name, found.limit)) {
        // One in which there is something is not as it was made.
        if matches!(target::holds_something(session, &name).await, Ok(false)) {
            tracing::warn!(database = name, "dropping what a restore that was killed has left");
            drop_database(session, &name).await;
        } else {
            tracing::warn!(
                database = name,
                "a restore may have left this database: look into it and drop it"
            );
        }
    }
    Ok(())
}

/// `template0` alone takes any encoding and locale. `major` is the server's version.
fn options(database: &Database, major: u32) -> String {
    let locale = literal(database.locale.as_deref().unwrap_or_default());
    let rules = database.icu_rules.as_deref().map(|rules| format!(" ICU_RULES {}", literal(rules)));
    let provider = match database.locale_provider.as_str() {
        "icu" => format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}{}", rules.unwrap_or_default()),
        "builtin" => format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
        // Servers before 15 know no other, and not the word. Later ones may have another in template0.
        _ if major < 15 => String::new(),
        _ => " LOCALE_PROVIDER libc".to_owned(),
    };
    format!(
        "TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}{provider}",
        literal(&database.encoding),
        literal(&database.collate),
        literal(&database.ctype)
    )
}

/// Gives the databases to their owners, who exist by now.
pub(super) async fn hand_over(session: &Session, parts: &[Part<'_>]) -> Result<(), PostgresError> {
    let mut statements = Vec::new();
    for part in parts {
        let (scratch, owner) = (ident(&part.scratch), ident(&part.database.owner));
        statements.push(format!("ALTER DATABASE {scratch} OWNER TO {owner};"));
    }
    let script = statements.join("\n");
    session.sql(ADMIN, "give the databases to their owners", &script).await?;
    Ok(())
}

/// Drops a database and whoever is connected to it; a failure is only logged, the next restore tries again.
pub(super) async fn drop_database(session: &Session, name: &str) {
    let script = format!("DROP DATABASE IF EXISTS {} WITH (FORCE);", ident(name));
    if let Err(error) = session.sql(ADMIN, &format!("drop database {name:?}"), &script).await {
        tracing::warn!(%error, "a database under restore is left; the next restore drops it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_cut_at_a_character() {
        assert_eq!(name("orders", "3f9a1c"), "orders_vertice_3f9a1c");
        let long = name(&"ü".repeat(31), "3f9a1c");
        assert_eq!(long, format!("{}_vertice_3f9a1c", "ü".repeat(24)));
        assert!(long.len() <= MAX_NAME);
    }

    #[test]
    fn only_what_a_restore_made_is_known_as_such() {
        let limit = i64::from(CONNECTIONS);
        assert!(is_scratch(&random_name("orders"), limit));
        assert!(is_scratch(&random_name(&"x".repeat(63)), limit));
        for (name, limit) in [
            ("orders_vertice_3f9a1c", -1),
            ("orders_vertice_3f9a1", limit),
            ("orders_vertice_3F9A1C", limit),
            ("orders_vertice_backup", limit),
            ("orders", limit),
        ] {
            assert!(!is_scratch(name, limit), "{name} {limit}");
        }
    }

    #[test]
    fn every_provider_has_its_words() {
        let database = |provider: &str, locale: Option<&str>, rules: Option<&str>| Database {
            name: "orders".into(),
            object: "databases/0.dump".into(),
            owner: "shop".into(),
            encoding: "UTF8".into(),
            collate: "C.UTF-8".into(),
            ctype: "de_CH.UTF-8".into(),
            locale_provider: provider.into(),
            locale: locale.map(str::to_owned),
            icu_rules: rules.map(str::to_owned),
            properties: vec![],
            disk_bytes: 0,
        };
        let all = [
            (database("libc", None, None), 14),
            (database("libc", None, None), 15),
            (database("icu", Some("de-CH"), Some("&V << w")), 16),
            (database("builtin", Some("C.UTF-8"), None), 17),
        ];
        insta::assert_snapshot!(all.map(|(database, major)| options(&database, major)).join("\n"));
    }
}
