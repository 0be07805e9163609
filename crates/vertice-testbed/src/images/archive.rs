//! An image archive: an OCI image layout in a tar file, with the manifest of `docker save` beside it.
//!
//! Format: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>; containerd takes the reference
//! from the annotation `io.containerd.image.name`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use snafu::ResultExt;

use super::layer::Layer;
use super::{EncodeSnafu, Error, Image, REGISTRY, WriteSnafu};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The processors that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// That of this machine.
    #[must_use]
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// The name that Go, OCI and Debian use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// How an image runs. See the OCI image configuration's `config` for the meaning of each field.
#[derive(Debug, Clone)]
pub struct Config {
    pub architecture: Architecture,
    /// A number, or `number:number`.
    pub user: String,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Where `command` starts.
    pub working_directory: String,
    /// The signal that asks the program to end, when it is not `SIGTERM`.
    pub stop_signal: Option<String>,
}

impl Config {
    /// Runs `entrypoint` as user and group `id` on this machine's kind of processor.
    pub fn new(id: u32, entrypoint: &str) -> Self {
        Self {
            architecture: Architecture::host(),
            user: format!("{id}:{id}"),
            entrypoint: vec![entrypoint.to_owned()],
            command: Vec::new(),
            environment: Vec::new(),
            working_directory: "/".to_owned(),
            stop_signal: None,
        }
    }

    /// The arguments when a pod gives none.
    #[must_use]
    pub fn command<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.command = words.map(str::to_owned).to_vec();
        self
    }

    /// Environment variables, each `NAME=value`.
    #[must_use]
    pub fn environment<const N: usize>(mut self, variables: [&str; N]) -> Self {
        self.environment = variables.map(str::to_owned).to_vec();
        self
    }

    pub(super) fn to_json(&self, layers: &[Layer]) -> Value {
        let mut config = json!({
            "User": self.user,
            "Env": self.environment,
            "Entrypoint": self.entrypoint,
            "Cmd": self.command,
            "WorkingDir": self.working_directory,
        });
        if let Some(signal) = &self.stop_signal {
            config["StopSignal"] = json!(signal);
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        json!({
            "architecture": self.architecture.name(),
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
    }
}

/// Writes the archive to `path`; its folder must be there.
pub(super) fn write(path: &Path, name: &str, config: &Config, layers: &[Layer]) -> Result<Image, Error> {
    let encode = |value: &Value| serde_json::to_vec(value).context(EncodeSnafu { image: name });
    let config_json = Blob::new(encode(&config.to_json(layers))?);
    // The configuration holds the digests of all layers: its own stands for the whole content.
    let tag = &config_json.digest[..12];
    let reference = format!("{REGISTRY}/{name}:{tag}");

    let manifest = Blob::new(encode(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_json.descriptor(CONFIG),
        "layers": layers.iter().map(|layer| descriptor(LAYER, &layer.digest, layer.bytes)).collect::<Vec<_>>(),
    }))?);
    let mut entry = manifest.descriptor(MANIFEST);
    entry["platform"] = json!({ "architecture": config.architecture.name(), "os": "linux" });
    entry["annotations"] =
        json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag });
    let index = encode(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;
    let docker_manifest = encode(&json!([{
        "Config": blob_path(&config_json.digest),
        "RepoTags": [reference],
        "Layers": layers.iter().map(|layer| blob_path(&layer.digest)).collect::<Vec<_>>(),
    }]))?;

    let small = [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
        ("manifest.json".to_owned(), docker_manifest),
        (blob_path(&config_json.digest), config_json.bytes),
        (blob_path(&manifest.digest), manifest.bytes),
    ];
    write_tar(path, &small, layers).context(WriteSnafu { image: name, path })?;
    Ok(Image { reference, archive: path.to_owned() })
}

fn write_tar(path: &Path, small: &[(String, Vec<u8>)], layers: &[Layer]) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(path)?));
    for (name, bytes) in small {
        archive.append_data(&mut header(bytes.len() as u64), name, &**bytes)?;
    }
    for layer in layers {
        archive.append_data(&mut header(layer.bytes), blob_path(&layer.digest), File::open(&layer.file)?)?;
    }
    archive.into_inner()?.flush()?;
    // Readable by whoever loads it, whatever the umask.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes);
    header
}

struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = hex::encode(Sha256::digest(&bytes));
        Self { bytes, digest }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        descriptor(media_type, &self.digest, self.bytes.len() as u64)
    }
}

fn descriptor(media_type: &str, digest: &str, bytes: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes })
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}
