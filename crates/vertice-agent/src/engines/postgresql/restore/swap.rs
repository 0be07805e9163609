//! All databases take their places in one transaction: a reader sees all old ones or all new ones.

use std::time::Duration;

use super::super::error::PostgresError;
use super::super::quote::{ident, literal};
use super::super::session::Session;
use super::mark::Goes;
use super::outcome::Before;
use super::{ADMIN, Part, Request, mark, scratch};

/// Clients that reconnect at once can hold a database for a while; each attempt of the server's takes 5 s or
/// [`LOCK_TIMEOUT`].
const ATTEMPTS: usize = 6;
/// Of each lock on a database: whoever holds one must not hold the swap up for ever.
const LOCK_TIMEOUT: &str = "10s";
const PAUSE: Duration = Duration::from_millis(200);

/// Gives every database its properties and its name.
pub(super) async fn swap(
    session: &Session,
    request: &Request<'_>,
    parts: &[Part<'_>],
) -> Result<(), PostgresError> {
    let doing = "put the restored databases into their places";
    let before = Before::of(session).await?;
    let mut attempt = 1;
    loop {
        let script = format!("{}\n{}", before.statement(), script(request, parts));
        match session.sql(ADMIN, doing, &script).await {
            Err(error) if error.is_in_use() && attempt < ATTEMPTS => {
                tracing::warn!(%error, attempt, "somebody is connected, trying again");
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if !error.is_definite() => return before.compare(session, parts, error).await,
            done => return done.map(|_| ()),
        }
    }
}

fn script(request: &Request<'_>, parts: &[Part<'_>]) -> String {
    let replaced = parts.iter().filter(|part| part.old.is_some()).map(|part| literal(&part.database.name));
    let scratch = parts.iter().map(|part| literal(&part.scratch));
    let names = replaced.chain(scratch).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN ({names}) AND pid <> pg_backend_pid();"
        ),
        format!("SET lock_timeout = '{LOCK_TIMEOUT}';"),
        "BEGIN;".to_owned(),
    ];
    for part in parts {
        let (scratch, name) = (ident(&part.scratch), ident(&part.database.name));
        // The mark goes; the original's comment, if it has one, is among its properties.
        lines.push(mark::none(&part.scratch));
        lines.push(scratch::unlimited(&part.scratch));
        lines.push(format!("\\set database {}", psql_value(&part.scratch)));
        lines.extend(part.database.properties.iter().cloned());
        if let Some(old) = &part.old {
            lines.push(format!("ALTER DATABASE {name} RENAME TO {};", ident(old)));
            // Marked, so that it is dropped later if this run is killed before it can.
            lines.push(mark::statement(request, old, goes(request)));
        }
        lines.push(format!("ALTER DATABASE {scratch} RENAME TO {name};"));
    }
    lines.push("COMMIT;".to_owned());
    lines.join("\n")
}

/// An argument of psql's `\set`.
fn psql_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

/// Without leave to overwrite only what holds nothing goes: somebody may have written between the last look and the swap.
fn goes(request: &Request<'_>) -> Goes {
    if request.overwrite { Goes::Always } else { Goes::Empty }
}

/// Drops the databases that were replaced.
pub(super) async fn drop_old(session: &Session, request: &Request<'_>, parts: &[Part<'_>]) {
    for old in parts.iter().filter_map(|part| part.old.as_ref()) {
        match goes(request) {
            Goes::Always => scratch::drop_database(session, old).await,
            Goes::Empty => mark::drop_empty(session, old).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fixture;
    use super::*;

    #[test]
    fn only_a_database_that_may_be_overwritten_is_marked_to_go_with_what_it_holds() {
        let fixture = Fixture::of(&["orders"]);
        for (overwrite, goes) in [(true, Goes::Always), (false, Goes::Empty)] {
            let request = Request { overwrite, ..fixture.request() };
            let mut parts = super::super::select(&request).unwrap();
            parts[0].old = Some("orders_vertice_3f9a1c".to_owned());
            let script = script(&request, &parts);
            let renamed = r#"ALTER DATABASE "orders" RENAME TO "orders_vertice_3f9a1c";"#;
            let mark = mark::statement(&request, "orders_vertice_3f9a1c", goes);
            let (mark, _) = mark.split_once('{').unwrap();
            assert!(script.contains(&format!("{renamed}\n{mark}")), "{script}");
        }
    }
}
