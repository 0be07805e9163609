//! A PostgreSQL server of a test's own.

use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{free_port, wait_for};

/// Of the superuser `postgres`, with the characters that a password file must escape.
pub(crate) const PASSWORD: &str = r"pa:ss\wo'rd ü";
const BIN: &str = "/usr/lib/postgresql/15/bin";
/// PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

pub(crate) struct Postgres {
    pub(crate) port: u16,
    child: Child,
    _dir: TempDir,
}

fn command(program: &str, dir: &Path) -> Command {
    let path = PathBuf::from(BIN).join(program);
    assert!(path.exists(), "{} is missing: apt-get install postgresql-15", path.display());
    let mut command = Command::new(path);
    command.current_dir(dir).env("LC_ALL", "C");
    command
}

fn unprivileged(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

impl Postgres {
    /// A fresh server; users come in by password only.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        let password = dir.path().join("password");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(&password, PASSWORD).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut initdb = command("initdb", dir.path());
        initdb.args([
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--auth=scram-sha-256",
            "--no-sync",
        ]);
        initdb.arg("-D").arg(&data).arg("--pwfile").arg(&password);
        let made = unprivileged(&mut initdb).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut server = command("postgres", dir.path());
        server.arg("-D").arg(&data).args(["-p", &port.to_string()]).args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
        ]);
        let child =
            unprivileged(&mut server).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Self { port, child, _dir: dir };
        wait_for("PostgreSQL", || TcpStream::connect(("127.0.0.1", port)).ok());
        wait_for("PostgreSQL to let people in", || server.try_sql("postgres", "SELECT 1").ok());
        server
    }

    pub(crate) fn psql(&self, user: &str, password: &str, database: &str) -> Command {
        let mut psql = command("psql", Path::new("/"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]);
        psql.args(["-p", &self.port.to_string(), "-U", user, "-d", database]).env("PGPASSWORD", password);
        psql
    }

    pub(crate) fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = self.psql("postgres", PASSWORD, database).args(["-c", sql]).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Runs SQL as the superuser; rows as lines.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// One SHA-256 over every column of every row of every table, and over sequences and large objects, by PostgreSQL itself.
    pub(crate) fn hash(&self, database: &str) -> String {
        let tables = self.sql(
            database,
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
        );
        let mut parts: Vec<_> = tables
            .lines()
            .map(|table| {
                format!("SELECT '{table}' AS what, count(*) AS rows, string_agg(md5(t::text), '' ORDER BY md5(t::text)) AS hash FROM {table} t")
            })
            .collect();
        parts.push("SELECT 'sequences', count(*), string_agg(format('%s.%s=%s', schemaname, sequencename, last_value), ' ' ORDER BY schemaname, sequencename) FROM pg_sequences".into());
        parts.push("SELECT 'large objects', count(*), string_agg(oid || md5(lo_get(oid)) || lomowner::regrole, '' ORDER BY oid) FROM pg_largeobject_metadata".into());
        let all = parts.join(" UNION ALL ");
        self.sql(
            database,
            &format!(
                "SELECT sum(rows) || ' rows ' || encode(sha256(convert_to(string_agg(what || rows || coalesce(hash, ''), '|' ORDER BY what), 'UTF8')), 'hex') FROM ({all}) x"
            ),
        )
    }

    /// All databases, with what the catalog says of them.
    pub(crate) fn databases(&self) -> String {
        self.sql(
            "postgres",
            "SELECT datname, datdba::regrole, pg_encoding_to_char(encoding), datcollate, datctype, datconnlimit, \
             (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(datacl) a), shobj_description(oid, 'pg_database'), \
             (SELECT string_agg(setrole::regrole || ':' || array_to_string(setconfig, ';'), ' ' ORDER BY setrole::regrole::text) FROM pg_db_role_setting WHERE setdatabase = d.oid) \
             FROM pg_database d ORDER BY datname",
        )
    }

    /// All roles with their attributes and password hashes, their own settings, and memberships.
    pub(crate) fn roles(&self) -> String {
        self.sql(
            "postgres",
            "SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolconnlimit, rolpassword, \
             rolvaliduntil, shobj_description(oid, 'pg_authid') FROM pg_authid \
             WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY 1; \
             SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members ORDER BY 1, 2; \
             SELECT setrole::regrole, setconfig FROM pg_db_role_setting WHERE setdatabase = 0 ORDER BY 1",
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) else { return };
        // SIGQUIT: end at once, children included.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}
