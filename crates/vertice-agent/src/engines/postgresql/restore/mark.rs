//! The mark on a database that is being restored: a comment that says by whom and until when, renewed like the claim in a
//! bucket. A database whose mark ran out was left by a restore that was killed.

use jiff::Timestamp;
use serde::Deserialize;
use vertice_catalog::claim::{CLAIM_LIFETIME, CLAIM_RENEWAL, Claim, ClaimDecision, decide};

use super::super::error::PostgresError;
use super::super::quote::{ident, literal};
use super::super::session::Session;
use super::{ADMIN, Request, Undo, scratch};

/// How the comment begins.
pub(in super::super) const MARK: &str = "vertice restore under way: ";

const MARKED: &str = "SELECT coalesce(json_agg(json_build_object('name', datname, 'comment', comment)), '[]') FROM \
    (SELECT datname, shobj_description(oid, 'pg_database') AS comment FROM pg_database) d WHERE comment IS NOT NULL;";

#[derive(Debug, Deserialize)]
struct Commented {
    name: String,
    comment: String,
}

/// The statement that marks a database.
pub(super) fn statement(request: &Request<'_>, database: &str) -> String {
    let claim = Claim {
        holder: request.holder.to_owned(),
        since: request.since,
        expires: Timestamp::now() + CLAIM_LIFETIME,
    };
    // A string and two instants always serialize.
    let json = serde_json::to_string(&claim).unwrap_or_default();
    format!("COMMENT ON DATABASE {} IS {};", ident(database), literal(&format!("{MARK}{json}")))
}

async fn marked(session: &Session) -> Result<Vec<(String, Claim)>, PostgresError> {
    let commented: Vec<Commented> = session.json(ADMIN, "look for other restores", MARKED).await?;
    // A mark that cannot be read is left alone: it may be a person's.
    let parsed = commented.into_iter().filter_map(|database| {
        let claim = serde_json::from_str(database.comment.strip_prefix(MARK)?).ok()?;
        Some((database.name, claim))
    });
    Ok(parsed.collect())
}

fn busy(session: &Session, claim: Claim) -> PostgresError {
    PostgresError::Busy { server: session.server(), holder: claim.holder }
}

/// Drops what killed restores have left; refuses while another one runs.
pub(super) async fn drop_leftovers(session: &Session, holder: &str) -> Result<(), PostgresError> {
    let found = marked(session).await?;
    if let Some(other) = live(&found, holder, Timestamp::now()) {
        return Err(busy(session, other));
    }
    for (name, claim) in found {
        tracing::warn!(
            database = name,
            run = claim.holder,
            "dropping what a restore that was killed has left"
        );
        scratch::drop_database(session, &name).await;
    }
    scratch::drop_unmarked(session).await
}

/// Refuses when another restore runs. What a killed one left and could not be dropped stops nobody.
pub(super) async fn check_alone(session: &Session, holder: &str) -> Result<(), PostgresError> {
    match live(&marked(session).await?, holder, Timestamp::now()) {
        Some(other) => Err(busy(session, other)),
        None => Ok(()),
    }
}

/// The mark of another restore that has not run out.
fn live(found: &[(String, Claim)], holder: &str, now: Timestamp) -> Option<Claim> {
    found.iter().find_map(|(_, claim)| match decide(Some(claim.clone()), holder, now) {
        ClaimDecision::Busy(other) => Some(other),
        ClaimDecision::Take(_) => None,
    })
}

/// Renews the marks of all databases that were made, until dropped.
pub(super) async fn renew_for_ever(session: &Session, request: &Request<'_>, made: &Undo) {
    loop {
        tokio::time::sleep(CLAIM_RENEWAL.unsigned_abs()).await;
        let databases = made.made().databases.clone();
        for database in databases {
            let renewed = session.sql(ADMIN, "renew the mark", &statement(request, &database)).await;
            if let Err(error) = renewed {
                // Nothing is lost yet: the next renewal may succeed, and the restore itself notices a server that is gone.
                tracing::warn!(%error, "the mark of a database under restore could not be renewed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_live_mark_of_another_restore_stops_one() {
        let now = Timestamp::UNIX_EPOCH + CLAIM_LIFETIME;
        let mark = |holder: &str, expires| {
            let claim = Claim { holder: holder.into(), since: Timestamp::UNIX_EPOCH, expires };
            ("orders_vertice_3f9a1c".to_owned(), claim)
        };
        let found = [mark("ours", now + CLAIM_LIFETIME), mark("killed", now)];
        assert_eq!(live(&found, "ours", now), None);
        let other = mark("other", now + CLAIM_RENEWAL);
        assert_eq!(
            live(&[found.as_slice(), std::slice::from_ref(&other)].concat(), "ours", now),
            Some(other.1)
        );
    }
}
