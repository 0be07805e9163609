//! An S3 gateway whose bucket is a folder: a test sees and damages objects as files.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{free_port, wait_for};

pub(crate) const ACCESS_KEY: &str = "test-access-key";
pub(crate) const SECRET_KEY: &str = "test-secret-key";
pub(crate) const BUCKET: &str = "backups";
pub(crate) const PREFIX: &str = "shop/orders";

pub(crate) struct Gateway {
    pub(crate) port: u16,
    child: Child,
    dir: TempDir,
}

fn binary() -> PathBuf {
    let folder = std::env::var("VERTICE_TEST_BIN").expect(
        "VERTICE_TEST_BIN must name the folder with versitygw: run these tests by `cargo xtask test api`, which builds it",
    );
    let path = Path::new(&folder).join("versitygw");
    assert!(path.exists(), "{} is missing: run `cargo xtask test api`, which builds it", path.display());
    path
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(binary())
            .args([
                "--access",
                ACCESS_KEY,
                "--secret",
                SECRET_KEY,
                "--port",
                &format!("127.0.0.1:{port}"),
                "posix",
            ])
            .arg(&root)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let gateway = Self { port, child, dir };
        wait_for("versitygw", || TcpStream::connect(("127.0.0.1", port)).ok());
        gateway
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder behind the prefix.
    pub(crate) fn prefix(&self) -> PathBuf {
        self.dir.path().join("root").join(BUCKET).join(PREFIX)
    }

    /// All objects below the prefix, and how long they are.
    pub(crate) fn objects(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        walk(&self.prefix(), &self.prefix(), &mut found);
        found
    }

    /// Ids of all folders of backups.
    pub(crate) fn folders(&self) -> Vec<String> {
        let ids =
            self.objects().into_keys().filter_map(|key| key.split_once('/').map(|(id, _)| id.to_owned()));
        let mut ids: Vec<_> = ids.collect();
        ids.dedup();
        ids
    }

    /// Parts of uploads that nobody completed or aborted.
    pub(crate) fn parts(&self) -> usize {
        let uploads = self.dir.path().join("root").join(BUCKET).join(".sgwtmp");
        let mut found = BTreeMap::new();
        walk(&uploads, &uploads, &mut found);
        found.len()
    }

    /// Changes an object behind the gateway's back.
    pub(crate) fn damage(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.prefix().join(key);
        let mut content = std::fs::read(&path).unwrap();
        change(&mut content);
        // In place: the gateway keeps what it knows of an object in the file's extended attributes.
        std::fs::write(path, content).unwrap();
    }

    /// Lets the claim run out.
    pub(crate) fn expire_claim(&self) {
        self.damage("claim.json", |content| {
            let mut claim: serde_json::Value = serde_json::from_slice(content).unwrap();
            claim["expires"] = "2020-01-01T00:00:00Z".into();
            *content = serde_json::to_vec(&claim).unwrap();
        });
    }
}

fn walk(base: &Path, folder: &Path, found: &mut BTreeMap<String, u64>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            walk(base, &entry.path(), found);
        } else {
            let key = entry.path().strip_prefix(base).unwrap().to_string_lossy().into_owned();
            found.insert(key, meta.len());
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
