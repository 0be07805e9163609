//! A `PostgreSQL` 15 of Debian with the sample shop in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, geteuid};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use vertice_e2e::shop;

use super::daemon::{Daemon, bound, free_port};
use super::measure::measure;

/// Name of the superuser.
pub const USER: &str = "postgres";
/// Its password; it guards nothing but throw-away data on the loopback.
pub const PASSWORD: &str = "not-a-secret-bench-only";
/// Where Debian keeps the programs.
const BIN: &str = "/usr/lib/postgresql/15/bin";
/// The server refuses to run as root.
const UNPRIVILEGED: &[&str] = &["--reuid=postgres", "--regid=postgres", "--clear-groups"];
/// Room for the data in memory, and nothing that works in the background at times of its own.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "fsync=off",
    "full_page_writes=off",
    "autovacuum=off",
];

/// A running server.
pub struct Postgres {
    /// Its port of the loopback.
    pub port: u16,
    _daemon: Daemon,
}

/// The path of one of the server's programs.
pub fn program(name: &str) -> PathBuf {
    Path::new(BIN).join(name)
}

/// What drops root's privileges, when we have them.
fn privileges() -> &'static [&'static str] {
    if geteuid().is_root() { UNPRIVILEGED } else { &[] }
}

impl Postgres {
    /// Makes a fresh server below `folder` and waits until it answers.
    pub async fn start(folder: &Path) -> Result<Self> {
        // Temporary folders are their maker's alone, and the server is another user.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let (data, password) = (folder.join("data"), folder.join("password"));
        fs::create_dir(&data)?;
        fs::write(&password, PASSWORD)?;
        if geteuid().is_root() {
            checked("chown", Command::new("chown").args(["postgres:postgres"]).arg(&data).output().await?)?;
        }
        let mut initdb = bound(program("initdb"), "KILL", privileges());
        initdb.current_dir(folder).env("LC_ALL", "C").args(["--username", USER, "--encoding=UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync"]);
        initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(&data);
        initdb.stdin(Stdio::null()).stdout(Stdio::null());
        measure(vec![initdb.into()], &folder.join("initdb.log")).await.context("initdb failed")?;

        let port = free_port()?;
        let mut command = bound(program("postgres"), "QUIT", privileges());
        command.current_dir(folder).env("LC_ALL", "C").arg("-D").arg(&data).args(["-p", &port.to_string()]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        // SIGQUIT: at once, with all its processes.
        let mut daemon = Daemon::start("PostgreSQL", command, folder.join("postgres.log"), Signal::QUIT)?;
        daemon.ready(|| async move { sql(port, "postgres", "SELECT 1").await.map(drop) }).await?;
        Ok(Self { port, _daemon: daemon })
    }

    /// Fills it with a shop, and leaves nothing for the first reader to tidy up. Returns the database's bytes on disk.
    pub async fn fill(&self, orders: u32) -> Result<u64> {
        sql(self.port, "postgres", &shop::sql(orders)).await.context("cannot fill the sample shop")?;
        sql(self.port, shop::DATABASE, "VACUUM (ANALYZE)").await?;
        sql(self.port, shop::DATABASE, "CHECKPOINT").await?;
        let size = format!("SELECT pg_database_size('{}')", shop::DATABASE);
        sql(self.port, shop::DATABASE, &size).await?.parse().context("psql did not tell the database's size")
    }
}

/// Runs SQL as the superuser, stopping at the first error; rows as lines.
async fn sql(port: u16, database: &str, sql: &str) -> Result<String> {
    let mut psql = Command::new(program("psql"));
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER])
        .args(["-p", &port.to_string(), "-d", database])
        .env("PGPASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = psql.spawn().context("cannot start psql")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A psql that ends without reading says why by its exit status.
        let _ = stdin.write_all(sql.as_bytes()).await;
    }
    Ok(checked("psql", child.wait_with_output().await?)?.trim().to_owned())
}

/// What a program printed, when it succeeded.
pub fn checked(program: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no text"))
}
