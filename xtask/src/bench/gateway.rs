//! An S3 gateway whose bucket is a folder, so that what is stored can be weighed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::net::TcpStream;
use vertice_e2e::s3::{ACCESS_KEY, SECRET_KEY};

use super::daemon::{Daemon, bound, free_port};

/// Its only bucket.
pub const BUCKET: &str = "bench";
/// Its region.
pub const REGION: &str = "us-east-1";

/// A running gateway.
pub struct Gateway {
    port: u16,
    bucket: PathBuf,
    _daemon: Daemon,
}

impl Gateway {
    /// Starts it over an empty folder below `folder`.
    pub async fn start(program: &Path, folder: &Path) -> Result<Self> {
        let root = folder.join("store");
        let bucket = root.join(BUCKET);
        fs::create_dir_all(&bucket).with_context(|| format!("cannot make {}", bucket.display()))?;
        let port = free_port()?;
        let mut command = bound(program, "KILL", &[]);
        command.args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION, "--quiet"]);
        command.args(["--port", &format!("127.0.0.1:{port}"), "posix"]).arg(&root);
        let mut daemon = Daemon::start("versitygw", command, folder.join("versitygw.log"), Signal::KILL)?;
        daemon.ready(|| async move { Ok(TcpStream::connect(("127.0.0.1", port)).await.map(drop)?) }).await?;
        Ok(Self { port, bucket, _daemon: daemon })
    }

    /// Its URL, without a path.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Weighs all objects below a prefix and removes them, so that the next run finds the disk as this one did.
    pub fn take(&self, prefix: &str) -> Result<u64> {
        let folder = self.bucket.join(prefix);
        let told = || format!("cannot read what was stored in {}", folder.display());
        let bytes = weigh(&folder).with_context(told)?;
        fs::remove_dir_all(&folder).with_context(told)?;
        Ok(bytes)
    }
}

fn weigh(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { weigh(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_below_count_and_a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("data/a"), [0; 100]).unwrap();
        fs::write(folder.path().join("b"), [0; 10]).unwrap();
        assert_eq!(weigh(folder.path()).unwrap(), 110);
        assert!(weigh(&folder.path().join("none")).is_err());
    }
}
