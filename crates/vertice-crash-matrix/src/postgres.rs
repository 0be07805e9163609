//! PostgreSQL servers, one a trial at a time: a restore looks at all databases of its server, so trials cannot share one.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use snafu::{ResultExt as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::error::{IoSnafu, ProgramSnafu, Result};
use crate::server::{Server, bound, free_port};

/// Of the superuser `postgres`; looked for in everything that people can read.
pub(crate) const PASSWORD: &str = "hush-database-4711";
/// The database that every trial has.
pub(crate) const DATABASE: &str = "shop";
/// Where Debian keeps the programs.
pub(crate) const BIN: &str = "/usr/lib/postgresql/15/bin";
/// What the trials' databases are copied from.
const TEMPLATE: &str = "shop_template";
/// The server refuses to run as root.
const NOBODY: u32 = 65534;
const READY: Duration = Duration::from_secs(30);

/// Small, and nothing that works in the background at times of its own.
const SETTINGS: [&str; 10] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=16MB",
    "max_connections=20",
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "jit=off",
];

/// Tables with a foreign key, an identity, a view and a large object: one of each thing that is easily lost.
const CONTENT: &str = "
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customers, cents bigint, note text);
CREATE VIEW spent AS SELECT customer, sum(cents) AS cents FROM orders GROUP BY customer;
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 20) n;
INSERT INTO orders (customer, cents, note) SELECT n % 20 + 1, n * 37, repeat('ü', n % 7) FROM generate_series(1, 60) n;
SELECT lo_from_bytea(4711, 'a large object');
";

/// Every row of every table, sequences and large objects, as one SHA-256.
const HASH: &str = "SELECT encode(sha256(convert_to(coalesce(string_agg(part, '|' ORDER BY part), ''), 'UTF8')), 'hex') FROM ( \
    SELECT format('%I.%I', schemaname, tablename) || query_to_xml(format('SELECT * FROM %I.%I ORDER BY 1', schemaname, tablename), true, false, '')::text AS part \
    FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') \
    UNION ALL SELECT format('%s=%s', sequencename, last_value) FROM pg_sequences \
    UNION ALL SELECT oid || encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata \
    UNION ALL SELECT viewname || definition FROM pg_views WHERE schemaname = 'public') parts";

/// A server with the template of the trials' database.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// Its port of the loopback.
    pub(crate) port: u16,
    _server: Server,
}

fn unprivileged() -> Vec<String> {
    if geteuid().is_root() {
        vec![format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]
    } else {
        Vec::new()
    }
}

/// Makes a data directory that servers are copied from.
pub(crate) async fn prepare(folder: &Path) -> Result<PathBuf> {
    let (data, password) = (folder.join("template"), folder.join("password"));
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, open).context(IoSnafu { action: "open", path: folder })?;
    std::fs::create_dir(&data).context(IoSnafu { action: "make", path: &data })?;
    std::fs::write(&password, PASSWORD).context(IoSnafu { action: "write", path: &password })?;
    if geteuid().is_root() {
        chown(&data, Some(NOBODY), Some(NOBODY)).context(IoSnafu { action: "hand over", path: &data })?;
    }
    let mut initdb = bound(Path::new(BIN).join("initdb"), &unprivileged());
    initdb.current_dir(folder).env("LC_ALL", "C");
    initdb.args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync"]);
    initdb.arg("-D").arg(&data).arg("--pwfile").arg(&password);
    output("initdb", &mut initdb, "").await?;
    Ok(data)
}

impl Postgres {
    /// A server of its own, from a copy of what [`prepare`] made.
    pub(crate) async fn start(folder: &Path, template: &Path, name: &str) -> Result<Self> {
        let data = folder.join(name);
        output("cp", Command::new("cp").arg("-a").arg(template).arg(&data), "").await?;
        let port = free_port()?;
        let mut command = bound(Path::new(BIN).join("postgres"), &unprivileged());
        command.current_dir(folder).env("LC_ALL", "C").arg("-D").arg(&data).args(["-p", &port.to_string()]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        // SIGQUIT: at once, with all its processes.
        let server = Server::start("PostgreSQL", command, folder.join(format!("{name}.log")), Signal::QUIT)?;
        let postgres = Self { port, _server: server };
        postgres.ready().await?;
        postgres.sql("postgres", &format!("CREATE DATABASE {TEMPLATE} IS_TEMPLATE true;")).await?;
        postgres.sql(TEMPLATE, CONTENT).await?;
        Ok(postgres)
    }

    async fn ready(&self) -> Result<()> {
        let began = std::time::Instant::now();
        loop {
            match self.sql("postgres", "SELECT 1").await {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > READY => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Runs SQL as the superuser; rows as lines.
    pub(crate) async fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new(Path::new(BIN).join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        psql.args(["-p", &self.port.to_string(), "-d", database]).env("PGPASSWORD", PASSWORD);
        output("psql", &mut psql, sql).await
    }

    /// Drops all that a trial left and gives the next one a fresh database.
    pub(crate) async fn reset(&self) -> Result<()> {
        let left = "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database \
                    WHERE NOT datistemplate AND datname <> 'postgres' \\gexec\n";
        self.sql("postgres", &format!("{left}CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE};")).await?;
        Ok(())
    }

    /// One SHA-256 over all that a database holds.
    pub(crate) async fn hash(&self, database: &str) -> Result<String> {
        self.sql(database, HASH).await
    }

    /// Names of all databases that are no templates.
    pub(crate) async fn databases(&self) -> Result<Vec<String>> {
        let names =
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1";
        Ok(self.sql("postgres", names).await?.lines().map(str::to_owned).collect())
    }

    /// Puts a dump in `pg_dump`'s custom format into a new database.
    pub(crate) async fn load(&self, database: &str, dump: &[u8]) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0")).await?;
        let mut restore = Command::new(Path::new(BIN).join("pg_restore"));
        restore.args(["--exit-on-error", "-h", "127.0.0.1", "-U", "postgres", "-d", database]);
        restore.args(["-p", &self.port.to_string()]).env("PGPASSWORD", PASSWORD);
        input("pg_restore", &mut restore, dump).await.map(drop)
    }
}

async fn output(program: &str, command: &mut Command, stdin: &str) -> Result<String> {
    input(program, command, stdin.as_bytes()).await
}

/// Runs a program to its end and returns what it printed.
async fn input(program: &str, command: &mut Command, stdin: &[u8]) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed = |source: std::io::Error| ProgramSnafu { program, message: source.to_string() }.build();
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends without reading says why by its exit status.
        let _ = pipe.write_all(stdin).await;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), ProgramSnafu { program, message: message.trim() });
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
