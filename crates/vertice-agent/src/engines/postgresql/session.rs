//! How to reach a server, and questions to it through psql.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::process::Command;
use vertice_catalog::report::FailureReason;
use vertice_catalog::task::Server;

use super::error::{PostgresError, classify, told, warnings};
use super::exec::{Ended, Running};
use super::quote;
use super::tools::Tools;
use crate::secrets::SecretDir;

/// Seconds that libpq waits for an answer of one address.
const CONNECT_TIMEOUT: u32 = 10;
/// A server that is gone without a word (its node died) is noticed within a minute.
const KEEPALIVES: [(&str, &str); 3] =
    [("keepalives_idle", "30"), ("keepalives_interval", "10"), ("keepalives_count", "3")];
/// Milliseconds until what was sent must be acknowledged.
const USER_TIMEOUT: (&str, &str) = ("tcp_user_timeout", "60000");
/// What `pg_stat_activity` shows.
const APPLICATION: &str = "vertice-agent";

/// A server that answered, and the tools that fit it. The password lies in a file that only this user reads; it is in no
/// environment and no argument.
#[derive(Debug)]
pub struct Session {
    access: Access,
    tools: Tools,
    facts: Facts,
}

#[derive(Debug)]
struct Access {
    host: String,
    port: u16,
    user: String,
    secret: String,
    password: Redacted,
    passfile: PathBuf,
    home: PathBuf,
}

/// Does not show in debug output.
struct Redacted(String);

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What a server says of itself and of our user.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Facts {
    /// `15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) version: String,
    /// `server_version_num`, such as 150018.
    pub(super) number: u32,
    pub(super) superuser: bool,
    pub(super) create_db: bool,
    pub(super) standby: bool,
}

const FACTS: &str = "SELECT json_build_object('version', current_setting('server_version'), \
    'number', current_setting('server_version_num')::int, 'superuser', rolsuper, 'create_db', rolcreatedb, \
    'standby', pg_is_in_recovery()) FROM pg_roles WHERE rolname = current_user;";

impl Session {
    /// Reads the credentials, finds the tools, and asks the server for its version.
    pub async fn open(
        server: &Server,
        secret: &SecretDir<'_>,
        work_dir: &Path,
    ) -> Result<Self, PostgresError> {
        let access = Access::prepare(server, secret, work_dir)?;
        let found = Tools::find().await?;
        // Any psql can ask any server for its version.
        let tools = Tools::choose(found.clone(), 0)?;
        let facts =
            Facts { version: String::new(), number: 0, superuser: false, create_db: false, standby: false };
        let mut session = Self { access, tools, facts };
        session.facts = session.ask_facts().await?;
        session.tools = Tools::choose(found, session.major())?;
        Ok(session)
    }

    /// `postgres` is there unless somebody dropped it; `template1` always is.
    async fn ask_facts(&self) -> Result<Facts, PostgresError> {
        let doing = "connect";
        match self.json("postgres", doing, FACTS).await {
            Err(PostgresError::Refused {
                reason: FailureReason::DatabaseNotFound | FailureReason::PermissionDenied,
                ..
            }) => self.json("template1", doing, FACTS).await,
            answer => answer,
        }
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.facts.number / 10_000
    }

    /// `user@host:port`.
    pub fn server(&self) -> String {
        format!("{}@{}:{}", self.access.user, self.access.host, self.access.port)
    }

    pub(super) fn user(&self) -> &str {
        &self.access.user
    }

    /// Starts a tool on a database.
    pub(super) fn start(
        &self,
        tool: &'static str,
        database: &str,
        arguments: &[&str],
    ) -> Result<Running, PostgresError> {
        let mut command = Command::new(self.tools.path(tool));
        command
            .args(arguments)
            .arg("--no-password")
            .arg(format!("--dbname={}", self.access.conninfo(tool, database)))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Words as we know them, and no settings of whoever's home it is.
            .env("LC_ALL", "C")
            .env("PGCLIENTENCODING", "UTF8")
            .env("HOME", &self.access.home);
        Running::start(tool, command)
    }

    /// Judges how a tool ended; what it warned of goes into the log.
    pub(super) fn judge(&self, doing: &str, ended: &Ended) -> Result<(), PostgresError> {
        if ended.success {
            for warning in warnings(&ended.stderr, &self.access.password.0) {
                tracing::warn!(doing, "{warning}");
            }
            return Ok(());
        }
        let reason = classify(&ended.stderr);
        Err(PostgresError::Refused {
            doing: doing.to_owned(),
            server: self.server(),
            secret: self.access.secret.clone(),
            reason,
            words: told(&ended.stderr, &self.access.password.0),
        })
    }

    /// Runs a script and returns what it prints: rows, unaligned, without headers. It ends at the first error.
    pub(super) async fn sql(
        &self,
        database: &str,
        doing: &str,
        script: &str,
    ) -> Result<String, PostgresError> {
        let arguments = [
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            "--set=VERBOSITY=verbose",
            "--file=-",
        ];
        let mut running = self.start("psql", database, &arguments)?;
        let output = running.exchange(script).await?;
        self.judge(doing, &running.end().await?)?;
        Ok(output)
    }

    /// Runs a query that returns one JSON value.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        database: &str,
        doing: &str,
        query: &str,
    ) -> Result<T, PostgresError> {
        let output = self.sql(database, doing, query).await?;
        serde_json::from_str(&output)
            .map_err(|source| PostgresError::Answer { doing: doing.to_owned(), source })
    }
}

impl Access {
    fn prepare(server: &Server, secret: &SecretDir<'_>, work_dir: &Path) -> Result<Self, PostgresError> {
        let user = secret.require("username")?;
        let password = secret.require("password")?;
        if password.contains(['\n', '\r', '\0']) {
            return Err(PostgresError::UnusablePassword { secret: server.secret.clone() });
        }
        let passfile = work_dir.join("pgpass");
        write_passfile(&passfile, &password)
            .map_err(|source| PostgresError::WorkDir { path: passfile.display().to_string(), source })?;
        Ok(Self {
            host: server.host.clone(),
            port: server.port,
            user,
            secret: server.secret.clone(),
            password: Redacted(password),
            passfile,
            home: work_dir.to_owned(),
        })
    }

    /// A connection string: the only form in which a database's name cannot be taken for something else.
    fn conninfo(&self, tool: &str, database: &str) -> String {
        let (port, passfile) = (self.port.to_string(), self.passfile.to_string_lossy());
        let timeout = CONNECT_TIMEOUT.to_string();
        let mut settings = vec![
            ("dbname", database),
            ("host", &self.host),
            ("port", &port),
            ("user", &self.user),
            ("passfile", &passfile),
            ("connect_timeout", &timeout),
            ("application_name", APPLICATION),
        ];
        settings.extend(KEEPALIVES);
        // pg_restore sends more than a busy server takes at once, and Linux counts the wait for its window: a server that
        // stands still for a minute while its disk catches up must not end a restore of hours.
        if tool != "pg_restore" {
            settings.push(USER_TIMEOUT);
        }
        let words = settings.iter().map(|(key, value)| format!("{key}={}", quote::conninfo(value)));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Any host, port, database and user: the file serves one server only.
fn write_passfile(path: &Path, password: &str) -> std::io::Result<()> {
    // Anew, because the mode counts only at creation.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "*:*:*:*:{}", quote::pgpass(password))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_server_that_vanished_is_noticed_but_a_slow_one_is_waited_for() {
        let access = Access {
            host: "orders-db".into(),
            port: 5432,
            user: "shop".into(),
            secret: "orders-db".into(),
            password: Redacted(String::new()),
            passfile: "/run/work/pgpass".into(),
            home: "/run/work".into(),
        };
        insta::assert_snapshot!(
            access.conninfo("pg_dump", "orders"),
            @"dbname='orders' host='orders-db' port='5432' user='shop' passfile='/run/work/pgpass' connect_timeout='10' application_name='vertice-agent' keepalives_idle='30' keepalives_interval='10' keepalives_count='3' tcp_user_timeout='60000'"
        );
        assert!(!access.conninfo("pg_restore", "orders").contains("tcp_user_timeout"));
    }

    #[test]
    fn the_password_file_is_private_and_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        std::fs::write(&path, "older").unwrap();
        write_passfile(&path, r"pa:ss\word").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "*:*:*:*:pa\\:ss\\\\word\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
