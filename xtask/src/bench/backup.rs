//! One database into S3: the agent, restic, and `pg_dump` into a file as the floor.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;
use vertice_api::vertice_io::CompressionType;
use vertice_catalog::claim::Owner;
use vertice_catalog::manifest::{Compression, Trigger};
use vertice_catalog::report::Report;
use vertice_catalog::task::{BackupTask, RUN_NAME_ENV, Server, StorageLocation, TASK_ENV, Task};
use vertice_e2e::s3::{ACCESS_KEY, SECRET_KEY};
use vertice_e2e::shop;
use vertice_testbed::images::{self, Triple};
use vertice_testbed::ledger::{Ledger, human_bytes};
use vertice_testbed::parts::{self, Part};
use vertice_testbed::paths::Paths;
use vertice_testbed::{apt, report::Reporter};

use super::daemon::bound;
use super::figures::{Figures, Series};
use super::gateway::{BUCKET, Gateway, REGION};
use super::measure::measure;
use super::postgres::{PASSWORD, Postgres, USER, checked, program};
use crate::shell::progress;

const RESTIC_PASSWORD: &str = "not-a-secret-bench-only";

/// The programs of ours that the bench runs.
pub struct Programs {
    agent: PathBuf,
    versitygw: PathBuf,
}

/// Installs and builds what is missing.
pub fn prepare() -> Result<Programs> {
    let paths = Paths::locate();
    let ledger = Ledger::open(&paths, progress());
    apt::ensure(&paths, apt::BACKUP_BENCH, ledger.reporter())?;
    let versitygw = parts::ensure(&paths, &[Part::VersityGw], &ledger)?.bin("versitygw");
    images::agent(&paths, &ledger, &Triple::host())?;
    let release = format!("{}-unknown-linux-gnu/release", std::env::consts::ARCH);
    Ok(Programs { agent: paths.target().join(release).join("vertice-agent"), versitygw })
}

/// What is compared; the first is ours.
#[derive(Clone, Copy)]
enum Entry {
    Agent(Compression),
    Restic,
    PgDump,
}

const ENTRIES: [Entry; 4] =
    [Entry::Agent(Compression::Zstd), Entry::Agent(Compression::Gzip), Entry::Restic, Entry::PgDump];

impl Entry {
    fn name(self) -> &'static str {
        match self {
            Self::Agent(Compression::Gzip) => "vertice-gzip",
            Self::Agent(_) => "vertice",
            Self::Restic => "restic",
            Self::PgDump => "pg_dump",
        }
    }

    fn settings(self, versions: &Versions) -> String {
        match self {
            Self::Agent(compression) => format!(
                "vertice-agent run, {}, to S3; beside the database it stores the roles and a manifest with checksums",
                told(compression)
            ),
            Self::Restic => format!(
                "pg_dump -Fc -Z0 | restic backup --stdin --compression auto, to S3, into a new repository (version 2) each time, whose making is not measured; {}",
                versions.restic
            ),
            Self::PgDump => format!("pg_dump -Fc -Z6 > file, no S3; {}", versions.pg_dump),
        }
    }
}

/// The level that is measured: the format's own default, said aloud.
fn level(compression: Compression) -> Option<i32> {
    match compression {
        Compression::Gzip => Some(6),
        Compression::Zstd => Some(3),
        Compression::None => None,
    }
}

/// The agent's compression for a person, who must see whether users get it without asking.
fn told(compression: Compression) -> String {
    let (format, default) = match compression {
        Compression::Gzip => ("gzip", CompressionType::Gzip),
        Compression::Zstd => ("zstd", CompressionType::Zstd),
        Compression::None => ("no compression", CompressionType::None),
    };
    let level = level(compression).map_or(String::new(), |level| format!(" at level {level}"));
    let standing = if default == CompressionType::default() { "the default" } else { "not the default" };
    format!("{format}{level} ({standing} of a VerticeBackup)")
}

/// What the peers say of themselves.
struct Versions {
    restic: String,
    pg_dump: String,
}

/// Everything that the runs share.
struct Stage<'a> {
    programs: &'a Programs,
    // Servers end before their folder goes.
    postgres: Postgres,
    gateway: Gateway,
    folder: TempDir,
}

/// Every program `repeats` times, one after the other.
pub async fn run(programs: &Programs, orders: u32, repeats: u32) -> Result<Vec<Series>> {
    let reporter = progress();
    let versions = Versions::ask().await?;
    let stage = Stage::build(programs, orders, &reporter).await?;
    let mut series: Vec<Series> = Vec::new();
    for entry in ENTRIES {
        series.push(Series { name: entry.name(), settings: entry.settings(&versions), runs: Vec::new() });
    }
    for round in 0..repeats as usize {
        for turn in 0..ENTRIES.len() {
            // Each round begins with another one, so that none always follows the same.
            let index = (round + turn) % ENTRIES.len();
            let name = ENTRIES[index].name();
            let figures =
                stage.run(ENTRIES[index]).await.with_context(|| format!("the run of {name} failed"))?;
            reporter.say(format!(
                "round {} of {repeats}: {name} {:.2} s, {}",
                round + 1,
                figures.seconds,
                human_bytes(figures.stored_bytes)
            ));
            series[index].runs.push(figures);
        }
    }
    Ok(series)
}

impl Versions {
    async fn ask() -> Result<Self> {
        let restic = checked("restic", Command::new("restic").arg("version").output().await?)?;
        let pg_dump = checked("pg_dump", Command::new(program("pg_dump")).arg("--version").output().await?)?;
        Ok(Self { restic: restic.trim().to_owned(), pg_dump: pg_dump.trim().to_owned() })
    }
}

impl<'a> Stage<'a> {
    async fn build(programs: &'a Programs, orders: u32, reporter: &Reporter) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("vertice-bench-").tempdir()?;
        reporter.say(format!("starting PostgreSQL and an S3 gateway in {}", folder.path().display()));
        let postgres = Postgres::start(folder.path()).await?;
        let gateway = Gateway::start(&programs.versitygw, folder.path()).await?;
        reporter.say(format!("filling the sample shop with {orders} orders"));
        let bytes = postgres.fill(orders).await?;
        let stage = Self { programs, postgres, gateway, folder };
        // The first reader would wait for the disk.
        let mut dump = stage.pg_dump(&["-Z0"]);
        dump.stdout(Stdio::null());
        let warm = measure(vec![dump], &stage.path("log")).await.context("pg_dump failed")?;
        reporter.say(format!(
            "the shop is {} on disk; pg_dump alone, uncompressed to nowhere, takes {:.2} s",
            human_bytes(bytes),
            warm.seconds
        ));
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that is measured. It sees nothing of our environment: settings of the user's would change it.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = bound(program.as_ref(), "KILL", &[]);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8").env("TMPDIR", self.folder.path());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.into()
    }

    fn pg_dump(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(program("pg_dump"));
        command.args(["-h", "127.0.0.1", "-p", &self.postgres.port.to_string(), "-U", USER, "-Fc"]);
        command.args(arguments).args(["-d", shop::DATABASE]).env("PGPASSWORD", PASSWORD);
        command
    }

    async fn run(&self, entry: Entry) -> Result<Figures> {
        // What the run before has written goes to the disk now, not during this one.
        rustix::fs::syncfs(File::open(self.folder.path())?)?;
        match entry {
            Entry::Agent(compression) => self.agent(entry.name(), compression).await,
            Entry::Restic => self.restic(entry.name()).await,
            Entry::PgDump => self.plain().await,
        }
    }

    async fn agent(&self, prefix: &str, compression: Compression) -> Result<Figures> {
        let pod = tempfile::tempdir_in(self.folder.path())?;
        let file = |name: &str| pod.path().join(name);
        for (name, value) in [
            ("target/username", USER),
            ("target/password", PASSWORD),
            ("storage/AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("storage/AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ] {
            fs::create_dir_all(file(name).parent().context("a secret without a folder")?)?;
            fs::write(file(name), value)?;
        }
        fs::create_dir(file("work"))?;
        let mut command = self.command(&self.programs.agent);
        command
            .arg("run")
            .env(TASK_ENV, serde_json::to_string(&self.task(prefix, compression))?)
            .env(RUN_NAME_ENV, "bench")
            .env("VERTICE_TARGET_SECRET_DIR", file("target"))
            .env("VERTICE_STORAGE_SECRET_DIR", file("storage"))
            .env("VERTICE_WORK_DIR", file("work"))
            .env("VERTICE_TERMINATION_LOG", file("termination-log"));
        let usage = measure(vec![command], &self.path("log")).await;
        let report = fs::read_to_string(file("termination-log")).ok();
        let usage =
            usage.with_context(|| format!("it reported: {}", report.as_deref().unwrap_or("nothing")))?;
        let report = report.context("it reported nothing")?;
        if !matches!(Report::parse(&report), Ok(Report::BackedUp { databases: 1, .. })) {
            bail!("it did not report one database: {report}");
        }
        Ok(usage.storing(self.gateway.take(prefix)?))
    }

    fn task(&self, prefix: &str, compression: Compression) -> Task {
        Task::Backup(BackupTask {
            owner: Owner { cluster: "bench".into(), namespace: "bench".into(), name: prefix.into() },
            trigger: Trigger::Manual,
            server: Server {
                engine: "postgresql".into(),
                host: "127.0.0.1".into(),
                port: self.postgres.port,
                secret: "target".into(),
            },
            databases: Some(vec![shop::DATABASE.into()]),
            storage: StorageLocation {
                r#type: "s3".into(),
                bucket: BUCKET.into(),
                prefix: prefix.into(),
                endpoint: Some(self.gateway.url()),
                region: REGION.into(),
                secret: "storage".into(),
            },
            compression,
            compression_level: level(compression),
        })
    }

    async fn restic(&self, prefix: &str) -> Result<Figures> {
        let cache = tempfile::tempdir_in(self.folder.path())?;
        let repository = format!("s3:{}/{BUCKET}/{prefix}", self.gateway.url());
        let restic = |arguments: &[&str]| {
            let mut command = self.command("restic");
            command.args(["--repo", &repository, "--quiet", "--cache-dir"]).arg(cache.path()).args(arguments);
            command.env("RESTIC_PASSWORD", RESTIC_PASSWORD).env("AWS_DEFAULT_REGION", REGION);
            command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
            command
        };
        let init = restic(&["init", "--repository-version", "2"]);
        measure(vec![init], &self.path("log")).await.context("restic init failed")?;
        let (reader, writer) = std::io::pipe()?;
        let mut dump = self.pg_dump(&["-Z0"]);
        dump.stdout(writer);
        let mut store = restic(&[
            "backup",
            "--compression",
            "auto",
            "--host",
            "bench",
            "--stdin",
            "--stdin-filename",
            "shop.dump",
        ]);
        store.stdin(reader);
        let usage = measure(vec![dump, store], &self.path("log")).await?;
        Ok(usage.storing(self.gateway.take(prefix)?))
    }

    async fn plain(&self) -> Result<Figures> {
        let path = self.path("shop.dump");
        let mut dump = self.pg_dump(&["-Z6"]);
        dump.stdout(File::create(&path)?);
        let usage = measure(vec![dump], &self.path("log")).await?;
        let bytes = fs::metadata(&path)?.len();
        fs::remove_file(&path)?;
        Ok(usage.storing(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_how_each_is_called() {
        let versions = Versions { restic: "restic 0.14.0".into(), pg_dump: "pg_dump 15.18".into() };
        let settings = ENTRIES.map(|entry| format!("{}: {}", entry.name(), entry.settings(&versions)));
        insta::assert_snapshot!(settings.join("\n"));
    }
}
