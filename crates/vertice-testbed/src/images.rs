//! Container images made here, for no registry is reached: from files, from Debian packages, from our own binaries.
//!
//! An image's tag is a digest of its content, so a node that has an image by a name has the right one.

mod archive;
mod cache;
mod debian;
mod layer;
mod product;
mod ready;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snafu::{ResultExt, Snafu};

pub use self::archive::{Architecture, Config};
pub use self::debian::Debian;
use self::layer::Parents;
pub use self::layer::{Entry, Owner};
pub use self::product::{Product, Triple, agent, product, vertice};
pub use self::ready::{coredns, metrics_server, pause, postgres15, versitygw};
use crate::ledger::{self, Ledger};
use crate::paths::Paths;
use crate::{apt, command};

/// The registry part of every reference: a name that is never looked up.
pub const REGISTRY: &str = "registry.local";

/// The user that images of ours run as.
pub const NONROOT: u32 = 65532;

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("failed to make image {image}: cannot read {}", path.display()))]
    Read { image: String, path: PathBuf, source: io::Error },

    #[snafu(display("failed to make image {image}: cannot write {}", path.display()))]
    Write { image: String, path: PathBuf, source: io::Error },

    #[snafu(display("failed to make image {image}: two entries have the path {path}"))]
    Duplicate { image: String, path: String },

    #[snafu(display("failed to make image {image}: cannot encode its configuration"))]
    Encode { image: String, source: serde_json::Error },

    #[snafu(display(
        "failed to make image {image}: no target `{triple}` is known, only x86_64 and aarch64 Linux"
    ))]
    Target { image: String, triple: String },

    #[snafu(display("image {image} is {megabytes} MB, over its limit of {limit} MB"))]
    TooLarge { image: String, megabytes: u64, limit: u64 },

    #[snafu(display("failed to make image {image}: {} needs a loader or shared libraries, which the image has not", program.display()))]
    NotStatic { image: String, program: PathBuf },

    #[snafu(display("failed to make image {image}"))]
    Needs { image: String, source: apt::Error },

    #[snafu(display(
        "image {image} from Debian packages can only be made by root (mmdebstrap runs its packages' scripts)"
    ))]
    NotRoot { image: String },

    #[snafu(transparent)]
    Build { source: command::Error },

    #[snafu(transparent)]
    Ledger { source: ledger::Error },
}

/// An image in a file that `ctr images import`, `docker load` and `kind load image-archive` take: an OCI layout with
/// Docker's manifest beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `registry.local/<name>:<12 digits of its content>`.
    pub reference: String,
    /// The archive.
    pub archive: PathBuf,
}

impl Image {
    /// The size of the archive in bytes.
    pub fn bytes(&self) -> Result<u64, Error> {
        let metadata =
            fs::metadata(&self.archive).context(ReadSnafu { image: &self.reference, path: &self.archive })?;
        Ok(metadata.len())
    }
}

/// Makes `registry.local/<name>` of one layer with `entries`. The same input gives the same bytes. Folders that the
/// entries lie in are added, owned by root.
pub fn from_files(
    paths: &Paths,
    ledger: &Ledger,
    name: &str,
    entries: &[Entry],
    config: &Config,
) -> Result<Image, Error> {
    let key = cache::key(name, entries, config)?;
    cache::image(paths, ledger, name, &key, |archive| {
        let layer = layer::write(name, entries, Parents::Added, &archive.with_extension("layer"))?;
        archive::write(archive, name, config, &[layer])
    })
}

/// Makes `registry.local/<name>` of Debian packages and `entries` over them. Takes about a minute when it is not
/// cached; the packages' part is cached by itself, so that changed entries cost seconds.
pub fn debian(
    paths: &Paths,
    ledger: &Ledger,
    name: &str,
    packages: &Debian,
    entries: &[Entry],
    config: &Config,
) -> Result<Image, Error> {
    let base = debian::root_file_system(paths, ledger, name, packages)?;
    let key = cache::key(&base.digest, entries, config)?;
    cache::image(paths, ledger, name, &key, |archive| {
        let top = layer::write(name, entries, Parents::Kept, &archive.with_extension("layer"))?;
        archive::write(archive, name, config, &[base.clone(), top])
    })
}

/// `path` with its folder made.
fn with_folder(image: &str, path: PathBuf) -> Result<PathBuf, Error> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).context(WriteSnafu { image, path: folder })?;
    }
    Ok(path)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
