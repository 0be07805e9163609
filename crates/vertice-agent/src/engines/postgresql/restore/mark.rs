//! The marks on databases that a restore must drop if it does not end well, or when it has: comments that say by whom and until
//! when, those of a restore under way renewed like the claim in a bucket. A database whose mark ran out was left by a restore that
//! was killed.

use jiff::Timestamp;
use serde::Deserialize;
use vertice_catalog::claim::{CLAIM_LIFETIME, CLAIM_RENEWAL, Claim, ClaimDecision, decide};

use super::super::error::PostgresError;
use super::super::quote::{ident, literal};
use super::super::session::Session;
use super::{ADMIN, Request, Undo, scratch, target};

/// How the comment begins on one that goes with all that it holds.
pub(in super::super) const MARK: &str = "vertice restore under way: ";
/// How it begins on one that was empty when another took its place: what was written into it at the last moment must be kept.
const EMPTY: &str = "vertice restore replaced this empty database: ";

/// When a database goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    /// With all that it holds.
    Always,
    /// Only if it holds nothing.
    Empty,
}

const MARKED: &str = "SELECT coalesce(json_agg(json_build_object('name', datname, 'comment', comment)), '[]') FROM \
    (SELECT datname, shobj_description(oid, 'pg_database') AS comment FROM pg_database) d WHERE comment IS NOT NULL;";

#[derive(Debug, Deserialize)]
struct Commented {
    name: String,
    comment: String,
}

#[derive(Clone, Debug)]
struct Marked {
    name: String,
    goes: Goes,
    claim: Claim,
}

/// The statement that marks a database.
pub(super) fn statement(request: &Request<'_>, database: &str, goes: Goes) -> String {
    let claim = Claim {
        holder: request.holder.to_owned(),
        since: request.since,
        expires: Timestamp::now() + CLAIM_LIFETIME,
    };
    // A string and two instants always serialize.
    let json = serde_json::to_string(&claim).unwrap_or_default();
    let begin = match goes {
        Goes::Always => MARK,
        Goes::Empty => EMPTY,
    };
    format!("COMMENT ON DATABASE {} IS {};", ident(database), literal(&format!("{begin}{json}")))
}

/// The statement that takes the mark away.
pub(super) fn none(database: &str) -> String {
    format!("COMMENT ON DATABASE {} IS NULL;", ident(database))
}

fn parse(comment: &str) -> Option<(Goes, Claim)> {
    let marks = [(MARK, Goes::Always), (EMPTY, Goes::Empty)];
    let (json, goes) = marks.iter().find_map(|(begin, goes)| Some((comment.strip_prefix(begin)?, *goes)))?;
    Some((goes, serde_json::from_str(json).ok()?))
}

async fn marked(session: &Session) -> Result<Vec<Marked>, PostgresError> {
    let commented: Vec<Commented> = session.json(ADMIN, "look for other restores", MARKED).await?;
    // A mark that cannot be read is left alone: it may be a person's.
    let parsed = commented.into_iter().filter_map(|database| {
        let (goes, claim) = parse(&database.comment)?;
        Some(Marked { name: database.name, goes, claim })
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
    for Marked { name, goes, claim } in found {
        tracing::warn!(
            database = name,
            run = claim.holder,
            "dropping what a restore that was killed has left"
        );
        match goes {
            Goes::Always => scratch::drop_database(session, &name).await,
            Goes::Empty => drop_empty(session, &name).await,
        }
    }
    scratch::drop_unmarked(session).await
}

/// Drops a database that was replaced, unless somebody wrote into it after the last look; then it is an ordinary one again.
pub(super) async fn drop_empty(session: &Session, name: &str) {
    let error = match target::holds_something(session, name).await {
        Ok(false) => return scratch::drop_database(session, name).await,
        Ok(true) => {
            tracing::warn!(
                database = name,
                "somebody wrote into the database while it was restored: what it held is kept under this name, look into it and \
                 drop it"
            );
            session.sql(ADMIN, "take the mark off a database", &none(name)).await.err()
        }
        Err(error) => Some(error),
    };
    if let Some(error) = error {
        tracing::warn!(%error, "a database that was replaced is left with its mark; the next restore looks into it again");
    }
}

/// Refuses when another restore runs. What a killed one left and could not be dropped stops nobody.
pub(super) async fn check_alone(session: &Session, holder: &str) -> Result<(), PostgresError> {
    match live(&marked(session).await?, holder, Timestamp::now()) {
        Some(other) => Err(busy(session, other)),
        None => Ok(()),
    }
}

/// The mark of another restore that has not run out.
fn live(found: &[Marked], holder: &str, now: Timestamp) -> Option<Claim> {
    found.iter().find_map(|marked| match decide(Some(marked.claim.clone()), holder, now) {
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
            let mark = statement(request, &database, Goes::Always);
            let renewed = session.sql(ADMIN, "renew the mark", &mark).await;
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
            Marked { name: "orders_vertice_3f9a1c".to_owned(), goes: Goes::Always, claim }
        };
        let found = [mark("ours", now + CLAIM_LIFETIME), mark("killed", now)];
        assert_eq!(live(&found, "ours", now), None);
        let other = mark("other", now + CLAIM_RENEWAL);
        assert_eq!(
            live(&[found.as_slice(), std::slice::from_ref(&other)].concat(), "ours", now),
            Some(other.claim)
        );
    }
}
