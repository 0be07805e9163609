//! The object store: an S3 gateway whose bucket is a folder, shared by all trials.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use snafu::ResultExt as _;
use tokio::net::TcpStream;

use crate::error::{IoSnafu, Result, StuckSnafu};
use crate::server::{Server, bound, free_port};

/// Name of the key.
pub(crate) const ACCESS_KEY: &str = "matrix-access-key";
/// Looked for in everything that people can read.
pub(crate) const SECRET_KEY: &str = "hush-store-0815";
/// The only bucket.
pub(crate) const BUCKET: &str = "backups";
const READY: Duration = Duration::from_secs(20);

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Its port of the loopback.
    pub(crate) port: u16,
    root: PathBuf,
    _server: Server,
}

impl Gateway {
    /// Starts it over an empty folder.
    pub(crate) async fn start(program: &Path, folder: &Path) -> Result<Self> {
        let root = folder.join("store");
        let bucket = root.join(BUCKET);
        std::fs::create_dir_all(&bucket).context(IoSnafu { action: "make", path: &bucket })?;
        let port = free_port()?;
        let mut command = bound(program, &[]);
        command.args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet"]);
        command.args(["--port", &format!("127.0.0.1:{port}"), "posix"]).arg(&root);
        let server = Server::start("versitygw", command, folder.join("versitygw.log"), Signal::KILL)?;
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            snafu::ensure!(
                began.elapsed() < READY,
                StuckSnafu { what: "the S3 gateway to serve", waited: READY, last: "no connection" }
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { port, root, _server: server })
    }

    /// Changes an object behind everybody's back, as a failing disk would.
    #[cfg(feature = "mutants")]
    pub(crate) fn overwrite(&self, key: &str, content: &[u8]) -> Result<()> {
        let path = self.root.join(BUCKET).join(key);
        std::fs::write(&path, content).context(IoSnafu { action: "write", path: &path })
    }

    /// All objects below a prefix, with their content.
    pub(crate) fn objects(&self, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let base = self.root.join(BUCKET).join(prefix);
        let mut found = BTreeMap::new();
        walk(&base, &base, &mut found)?;
        Ok(found)
    }
}

fn walk(base: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(base, &path, found)?;
        } else {
            let key = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
            let content = std::fs::read(&path).context(IoSnafu { action: "read", path: &path })?;
            found.insert(key, content);
        }
    }
    Ok(())
}
