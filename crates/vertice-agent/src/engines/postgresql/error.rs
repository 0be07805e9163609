//! What PostgreSQL and its tools answer, as reasons and words.

use std::io;

use snafu::Snafu;
use vertice_catalog::report::FailureReason;

use super::tools::ToolsError;
use crate::pipeline::{FetchError, StoreError};
use crate::secrets::SecretError;

/// Lines of a tool's last words that are told.
const TOLD_LINES: usize = 6;

/// PostgreSQL, or what stands between it and us, failed.
#[derive(Debug, Snafu)]
pub enum PostgresError {
    /// The server or one of its tools refused.
    #[snafu(display("could not {doing} at PostgreSQL {server}: {words}{}", remedy(*reason, secret)))]
    Refused {
        /// What was tried.
        doing: String,
        /// `user@host:port`.
        server: String,
        /// The Secret with user and password.
        secret: String,
        /// What it amounts to.
        reason: FailureReason,
        /// The tool's last words.
        words: String,
    },
    /// No tools that fit.
    #[snafu(transparent)]
    ClientTools {
        /// Why.
        source: ToolsError,
    },
    /// The credentials cannot be had.
    #[snafu(transparent)]
    Secret {
        /// Why.
        source: SecretError,
    },
    /// The password cannot be handed to libpq.
    #[snafu(display(
        "the password in Secret {secret:?} contains a line break or a NUL, which PostgreSQL's tools cannot take"
    ))]
    UnusablePassword {
        /// The Secret.
        secret: String,
    },
    /// The work folder cannot be written.
    #[snafu(display("{path} cannot be written: {source}"))]
    WorkDir {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A tool cannot be started, or its pipes broke.
    #[snafu(display("{tool} could not be run: {source}"))]
    Run {
        /// The tool.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// psql's answer is not what was asked for.
    #[snafu(display("could not {doing}: psql's answer cannot be read: {source}"))]
    Answer {
        /// What was tried.
        doing: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A wanted database is not there.
    #[snafu(display("{place} has no database {}; it has {}", names(wanted), names(there)))]
    NoSuchDatabase {
        /// The server or backup.
        place: String,
        /// What was asked for.
        wanted: Vec<String>,
        /// What there is.
        there: Vec<String>,
    },
    /// An object could not be stored.
    #[snafu(transparent)]
    Store {
        /// Why.
        source: StoreError,
    },
    /// An object could not be read back.
    #[snafu(transparent)]
    Fetch {
        /// Why.
        source: FetchError,
    },
    /// The target holds something.
    #[snafu(display(
        "{} at {server} would be overwritten ({}): restore into another server, or set spec.overwrite to true to replace it",
        names(databases),
        "it holds tables, functions or large objects"
    ))]
    NotEmpty {
        /// The server.
        server: String,
        /// Which databases.
        databases: Vec<String>,
    },
    /// Another restore is under way.
    #[snafu(display(
        "run {holder} is restoring into {server}: wait for its end (if it was killed, its mark ends by itself within a minute)"
    ))]
    Busy {
        /// The server.
        server: String,
        /// The other run's pod.
        holder: String,
    },
    /// The answer to the last step of a restore was lost, and the server did not come back to be asked.
    #[snafu(display(
        "the connection to {server} broke while the restored databases took their places, and the server did not come back within \
         {seconds} s to tell whether they did ({words}): look into {} when it is back, and restore again if nothing has changed",
        names(databases)
    ))]
    Unknown {
        /// The server.
        server: String,
        /// Which databases.
        databases: Vec<String>,
        /// How long it was asked.
        seconds: u64,
        /// The tool's last words.
        words: String,
    },
    /// Restores need a primary.
    #[snafu(display("{server} is a standby: restore into its primary"))]
    Standby {
        /// The server.
        server: String,
    },
    /// Dumps do not go back in versions.
    #[snafu(display(
        "the backup is of PostgreSQL {backup} and {server} is PostgreSQL {found}: restore into PostgreSQL {backup} or newer"
    ))]
    OlderServer {
        /// The server.
        server: String,
        /// Of the backup.
        backup: u32,
        /// Of the server.
        found: u32,
    },
    /// The user may not create databases.
    #[snafu(display(
        "user {user:?} of {server} may not create databases, which a restore must: use a superuser, or ALTER ROLE {user:?} CREATEDB"
    ))]
    NoCreateDb {
        /// The server.
        server: String,
        /// The user.
        user: String,
    },
    /// The manifest contradicts itself.
    #[snafu(display(
        "backup {id} has no object {object:?} for its database {database:?}: its manifest was changed by hand"
    ))]
    NoObject {
        /// The backup.
        id: String,
        /// The database.
        database: String,
        /// What its manifest names.
        object: String,
    },
}

impl PostgresError {
    /// The reason for conditions and metrics.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Refused { reason, .. } => *reason,
            Self::ClientTools { .. } => FailureReason::ClientToolsMismatch,
            Self::Secret { .. } => FailureReason::SecretNotFound,
            Self::NoSuchDatabase { .. } => FailureReason::DatabaseNotFound,
            Self::Store { source } => match source {
                StoreError::StoreStorage { source } => source.reason(),
                StoreError::Compress { .. } => FailureReason::EngineFailed,
            },
            Self::Fetch { source } => source.reason(),
            Self::NotEmpty { .. } => FailureReason::TargetNotEmpty,
            Self::Busy { .. } => FailureReason::AlreadyRunning,
            Self::NoCreateDb { .. } => FailureReason::PermissionDenied,
            Self::NoObject { .. } => FailureReason::ChecksumMismatch,
            Self::Unknown { .. } => FailureReason::HostUnreachable,
            Self::UnusablePassword { .. }
            | Self::WorkDir { .. }
            | Self::Run { .. }
            | Self::Answer { .. }
            | Self::Standby { .. }
            | Self::OlderServer { .. } => FailureReason::EngineFailed,
        }
    }

    /// Whether a database could not be renamed because somebody is connected to it (`object_in_use`) or holds a lock on it
    /// (`lock_not_available`).
    pub(super) fn is_in_use(&self) -> bool {
        let states = [" 55006: ", " 55P03: "];
        matches!(self, Self::Refused { words, .. } if states.iter().any(|state| words.contains(state)))
    }

    /// Whether psql said that the server refused a statement, or that it never reached the server. Otherwise the connection broke,
    /// and what was sent last may have been done.
    pub(super) fn is_definite(&self) -> bool {
        let never_reached =
            ["psql: error: connection to server at ", "psql: error: could not translate host name "];
        matches!(self, Self::Refused { words, .. }
            if words.contains("ERROR:  ") || never_reached.iter().any(|begin| words.starts_with(begin)))
    }
}

fn names(databases: &[String]) -> String {
    databases.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

fn remedy(reason: FailureReason, secret: &str) -> String {
    match reason {
        FailureReason::AuthenticationFailed => {
            format!("; check the keys username and password of Secret {secret:?}, and the server's pg_hba.conf")
        }
        FailureReason::HostNotFound => "; check the target's name or host, and the cluster's DNS".to_owned(),
        FailureReason::HostUnreachable => {
            "; check that the server runs, its port, and network policies".to_owned()
        }
        FailureReason::PermissionDenied => {
            "; grant the user what is missing: a backup reads everything (pg_read_all_data or superuser), a restore needs a superuser"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// Finds out what a tool's last words mean.
pub(super) fn classify(words: &str) -> FailureReason {
    if let Some(state) = sqlstate(words) {
        return match state {
            "28P01" | "28000" => FailureReason::AuthenticationFailed,
            "42501" => FailureReason::PermissionDenied,
            "3D000" => FailureReason::DatabaseNotFound,
            "57P01" | "57P02" | "57P03" => FailureReason::HostUnreachable,
            _ if state.starts_with("08") => FailureReason::HostUnreachable,
            _ => FailureReason::EngineFailed,
        };
    }
    let has = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    let connecting = has(&["connection to server"]);
    if has(&["could not translate host name"]) {
        FailureReason::HostNotFound
    } else if has(&["password authentication failed", "no password supplied", "no pg_hba.conf entry"])
        || (connecting && has(&["authentication failed", "is not permitted to log in"]))
        || (connecting && words.contains("role \"") && words.contains("does not exist"))
    {
        FailureReason::AuthenticationFailed
    } else if connecting && words.contains("database \"") && words.contains("does not exist") {
        FailureReason::DatabaseNotFound
    } else if has(&[
        "permission denied",
        "must be owner of",
        "must be superuser",
        "must be member of",
        "must be able to",
    ]) {
        FailureReason::PermissionDenied
    } else if connecting || has(&["server closed the connection unexpectedly", "terminating connection"]) {
        FailureReason::HostUnreachable
    } else {
        FailureReason::EngineFailed
    }
}

/// `42501` of `ERROR:  42501: permission denied for table t`, as psql writes it with `VERBOSITY=verbose`.
fn sqlstate(words: &str) -> Option<&str> {
    words.lines().find_map(|line| {
        let (_, rest) = line.split_once(":  ")?;
        let (state, _) = rest.split_once(": ")?;
        let valid = state.len() == 5 && state.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        valid.then_some(state)
    })
}

/// The last lines of a tool's standard error that help a person: without rows of the user's tables (CONTEXT, failing rows),
/// places in PostgreSQL's source, and passwords.
pub(super) fn told(stderr: &str, password: &str) -> String {
    let kept: Vec<_> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .filter(|line| {
            ![
                "CONTEXT:",
                "DETAIL:  Failing row",
                "DETAIL:  Key (",
                "LOCATION:",
                "password retrieved from file",
                "LINE ",
            ]
            .iter()
            .any(|noise| line.starts_with(noise))
                && !line.starts_with('^')
        })
        .collect();
    // What happened first is the cause; the rest of a statement's text helps least.
    let start = kept.iter().position(|line| is_complaint(line)).unwrap_or_default();
    let end = kept.len().min(start + TOLD_LINES);
    redact(&kept[start..end].join("; "), password)
}

/// What a tool that succeeded warned of.
pub(super) fn warnings(stderr: &str, password: &str) -> Vec<String> {
    let lines = stderr.lines().map(str::trim).filter(|line| line.contains(": warning: "));
    lines.map(|line| redact(line, password)).collect()
}

fn is_complaint(line: &str) -> bool {
    ["error:", "ERROR:", "FATAL:", "PANIC:"].iter().any(|word| line.contains(word))
}

/// Takes the password out, and whatever stands after `PASSWORD '` in a statement.
fn redact(text: &str, password: &str) -> String {
    let mut clean = if password.is_empty() { text.to_owned() } else { text.replace(password, "***") };
    let mut from = 0;
    while let Some(found) = clean[from..].find("PASSWORD '") {
        let begin = from + found + "PASSWORD '".len();
        let end = clean[begin..].find('\'').map_or(clean.len(), |end| begin + end);
        clean.replace_range(begin..end, "***");
        from = begin;
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from PostgreSQL 15.18 and its tools.
    const RECORDED: [(&str, FailureReason); 13] = [
        (
            "psql: error: connection to server at \"127.0.0.1\", port 5999 failed: FATAL:  database \"nope\" does not exist\n",
            FailureReason::DatabaseNotFound,
        ),
        (
            "psql: error: connection to server at \"127.0.0.1\", port 5998 failed: Connection refused\n\tIs the server running on \
             that host and accepting TCP/IP connections?\n",
            FailureReason::HostUnreachable,
        ),
        (
            "psql: error: could not translate host name \"no.such.host.invalid\" to address: Name or service not known\n",
            FailureReason::HostNotFound,
        ),
        (
            "psql: error: connection to server at \"127.0.0.1\", port 5999 failed: FATAL:  password authentication failed for user \
             \"postgres\"\npassword retrieved from file \"/var/run/vertice/work/pgpass\"\n",
            FailureReason::AuthenticationFailed,
        ),
        (
            "psql: error: connection to server at \"127.0.0.1\", port 5999 failed: fe_sendauth: no password supplied\n",
            FailureReason::AuthenticationFailed,
        ),
        (
            "ERROR:  42501: permission denied for table secret\nLOCATION:  aclcheck_error, aclchk.c:3655\n",
            FailureReason::PermissionDenied,
        ),
        (
            "psql: error: connection to server at \"127.0.0.1\", port 5999 failed: FATAL:  permission denied for database \"closed\"\n\
             DETAIL:  User does not have CONNECT privilege.\n",
            FailureReason::PermissionDenied,
        ),
        (
            "ERROR:  42501: permission denied to create database\nLOCATION:  createdb, dbcommands.c:939\n",
            FailureReason::PermissionDenied,
        ),
        (
            "pg_dump: error: query failed: ERROR:  permission denied for table secret\npg_dump: detail: Query was: LOCK TABLE \
             public.secret IN ACCESS SHARE MODE\n",
            FailureReason::PermissionDenied,
        ),
        (
            "pg_dump: error: connection to server at \"127.0.0.1\", port 5999 failed: FATAL:  database \"nope\" does not exist\n",
            FailureReason::DatabaseNotFound,
        ),
        (
            "pg_dumpall: error: query failed: ERROR:  permission denied for table pg_authid\npg_dumpall: detail: Query was: SELECT oid\n",
            FailureReason::PermissionDenied,
        ),
        (
            "pg_restore: error: input file does not appear to be a valid archive (too short?)\n",
            FailureReason::EngineFailed,
        ),
        (
            "pg_restore: error: could not execute query: ERROR:  relation \"t\" already exists\nCommand was: CREATE TABLE public.t (\n    \
             a integer NOT NULL\n);\n\n\n",
            FailureReason::EngineFailed,
        ),
    ];

    #[test]
    fn recorded_answers_have_their_reasons() {
        for (words, reason) in RECORDED {
            assert_eq!(classify(words), reason, "{words}");
        }
    }

    #[test]
    fn recorded_answers_read_well() {
        let messages: Vec<_> = RECORDED
            .iter()
            .map(|(words, reason)| {
                let server = "shop@orders-db:5432".to_owned();
                let (doing, secret) = ("back up database \"orders\"".to_owned(), "orders-db".to_owned());
                PostgresError::Refused { doing, server, secret, reason: *reason, words: told(words, "") }
                    .to_string()
            })
            .collect();
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn warnings_are_told_without_the_password() {
        let stderr = "pg_dump: warning: there are circular foreign-key constraints on this table:\n\
             pg_dump: detail: nodes\npg_dump: warning: hunter2\n";
        assert_eq!(
            warnings(stderr, "hunter2"),
            [
                "pg_dump: warning: there are circular foreign-key constraints on this table:",
                "pg_dump: warning: ***"
            ]
        );
    }

    #[test]
    fn a_database_that_is_used_or_locked_is_tried_again() {
        let refused = |words: &str| PostgresError::Refused {
            doing: "swap".into(),
            server: "shop@orders-db:5432".into(),
            secret: "orders-db".into(),
            reason: FailureReason::EngineFailed,
            words: words.to_owned(),
        };
        assert!(refused("ERROR:  55006: database \"orders\" is being accessed by other users").is_in_use());
        assert!(refused("ERROR:  55P03: canceling statement due to lock timeout").is_in_use());
        assert!(!refused("ERROR:  42501: must be owner of database orders").is_in_use());
    }

    #[test]
    fn what_was_sent_may_have_been_done_only_when_the_connection_broke() {
        // Recorded from psql 15.18.
        let refused = |stderr: &str| PostgresError::Refused {
            doing: "swap".into(),
            server: "shop@orders-db:5432".into(),
            secret: "orders-db".into(),
            reason: classify(stderr),
            words: told(stderr, ""),
        };
        assert!(refused("psql:<stdin>:7: ERROR:  42501: must be owner of database orders\n").is_definite());
        assert!(
            refused(
                "psql: error: connection to server at \"127.0.0.1\", port 5998 failed: Connection refused\n"
            )
            .is_definite()
        );
        for broken in [
            "psql:<stdin>:9: server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\
             \tbefore or while processing the request.\npsql:<stdin>:9: error: connection to server was lost\n",
            "psql:<stdin>:9: FATAL:  57P01: terminating connection due to administrator command\n",
            "psql: error: ended by signal: 9 (SIGKILL) without a word",
        ] {
            assert!(!refused(broken).is_definite(), "{broken}");
        }
    }

    #[test]
    fn rows_and_passwords_are_not_told() {
        let stderr = "psql:<stdin>:7: ERROR:  42601: syntax error at or near \"x\"\n\
             LINE 1: ALTER ROLE a PASSWORD 'SCRAM-SHA-256$4096:abc' x\n        ^\n\
             STATEMENT:  ALTER ROLE a PASSWORD 'SCRAM-SHA-256$4096:abc' x\n\
             CONTEXT:  COPY customers, line 7: \"7\tJane Doe\"\n\
             HINT:  do not send hunter2\n";
        assert_eq!(
            told(stderr, "hunter2"),
            "psql:<stdin>:7: ERROR:  42601: syntax error at or near \"x\"; STATEMENT:  ALTER ROLE a PASSWORD '***' x; \
             HINT:  do not send ***"
        );
    }
}
