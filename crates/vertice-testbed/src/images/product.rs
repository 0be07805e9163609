//! Our own binaries as images: one static binary each, no shell, no writable folder.

mod elf;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use snafu::{ResultExt, ensure};

use super::{
    Architecture, Config, Entry, Error, Image, NONROOT, NotStaticSnafu, ReadSnafu, TargetSnafu,
    TooLargeSnafu, from_files,
};
use crate::command;
use crate::ledger::{Ledger, Work, human_bytes};
use crate::paths::Paths;

/// The most that an image of ours may weigh.
const LIMIT_MEGABYTES: u64 = 50;

/// Where images keep the certificates of public authorities; our binaries look there, too.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The operator's and the agent's images.
#[derive(Debug, Clone)]
pub struct Product {
    pub vertice: Image,
    pub agent: Image,
}

/// A Rust target triple, such as `aarch64-unknown-linux-gnu`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triple(String);

impl Triple {
    /// That of this machine.
    #[must_use]
    pub fn host() -> Self {
        Self(format!("{}-unknown-linux-gnu", env::consts::ARCH))
    }

    /// Another one; its linker and C library must be installed.
    pub fn new(triple: impl Into<String>) -> Self {
        Self(triple.into())
    }

    fn architecture(&self, image: &str) -> Result<Architecture, Error> {
        match self.0.split_once('-') {
            Some(("x86_64", rest)) if rest.contains("linux") => Ok(Architecture::Amd64),
            Some(("aarch64", rest)) if rest.contains("linux") => Ok(Architecture::Arm64),
            _ => TargetSnafu { image, triple: &self.0 }.fail(),
        }
    }
}

/// Builds both binaries in release mode and makes their images.
pub fn product(paths: &Paths, ledger: &Ledger, triple: &Triple) -> Result<Product, Error> {
    build(paths, ledger, triple, &["vertice", "vertice-agent"])?;
    Ok(Product {
        vertice: package(paths, ledger, triple, "vertice")?,
        agent: package(paths, ledger, triple, "vertice-agent")?,
    })
}

/// Builds the operator's image alone.
pub fn vertice(paths: &Paths, ledger: &Ledger, triple: &Triple) -> Result<Image, Error> {
    build(paths, ledger, triple, &["vertice"])?;
    package(paths, ledger, triple, "vertice")
}

/// Builds the agent's image alone.
pub fn agent(paths: &Paths, ledger: &Ledger, triple: &Triple) -> Result<Image, Error> {
    build(paths, ledger, triple, &["vertice-agent"])?;
    package(paths, ledger, triple, "vertice-agent")
}

/// Cargo decides what is out of date.
fn build(paths: &Paths, ledger: &Ledger, triple: &Triple, packages: &[&str]) -> Result<(), Error> {
    let started = Instant::now();
    let what = format!("build {} for {}", packages.join(" and "), triple.0);
    ledger.reporter().say(format!("{what}, in release mode; minutes the first time"));
    let mut cargo = command::cargo();
    cargo
        .current_dir(paths.workspace())
        .env("CARGO_TARGET_DIR", paths.target())
        // Linked with the C library inside: the image has nothing else. With `--target`, build scripts and
        // procedural macros are spared the flag.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .args(["build", "--release", "--target", &triple.0])
        .args(packages.iter().flat_map(|package| ["--package", package]));
    let log = paths.build_logs().join("product.log");
    command::run(&mut cargo, &what, &log, ledger.reporter())?;
    Ok(ledger.record(&format!("build {}", packages.join(" ")), started.elapsed(), Work::Cold, 0)?)
}

fn package(paths: &Paths, ledger: &Ledger, triple: &Triple, name: &str) -> Result<Image, Error> {
    let binary = paths.target().join(&triple.0).join("release").join(name);
    image_of(paths, ledger, name, &binary, triple.architecture(name)?)
}

fn image_of(
    paths: &Paths,
    ledger: &Ledger,
    name: &str,
    binary: &Path,
    architecture: Architecture,
) -> Result<Image, Error> {
    let head = fs::read(binary).context(ReadSnafu { image: name, path: binary })?;
    ensure!(elf::is_static(&head), NotStaticSnafu { image: name, program: binary });
    let mut entries = vec![Entry::program(format!("/{name}"), binary)];
    if Path::new(AUTHORITIES).is_file() {
        entries.push(Entry::file(AUTHORITIES, PathBuf::from(AUTHORITIES)));
    }
    let config = Config { architecture, ..Config::new(NONROOT, &format!("/{name}")) };
    let image = from_files(paths, ledger, name, &entries, &config)?;

    let bytes = image.bytes()?;
    let megabytes = bytes.div_ceil(1_000_000);
    ensure!(megabytes <= LIMIT_MEGABYTES, TooLargeSnafu { image: name, megabytes, limit: LIMIT_MEGABYTES });
    ledger.reporter().say(format!("image {}: {}", image.reference, human_bytes(bytes)));
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Reporter;

    fn here() -> (tempfile::TempDir, Paths, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path(), "target");
        let ledger = Ledger::open(&paths, Reporter::new(|_| {}));
        (folder, paths, ledger)
    }

    #[test]
    fn a_binary_that_needs_a_loader_makes_no_image() {
        let (_folder, paths, ledger) = here();
        let me = env::current_exe().unwrap();
        let error = image_of(&paths, &ledger, "vertice", &me, Architecture::Amd64).unwrap_err();
        assert!(error.to_string().contains("needs a loader"), "{error}");
    }

    #[test]
    fn an_image_over_the_limit_is_refused_with_its_size() {
        let (folder, paths, ledger) = here();
        let binary = folder.path().join("vertice");
        fs::write(&binary, elf::without_loader(51_000_000)).unwrap();
        let error =
            image_of(&paths, &ledger, "vertice", &binary, Architecture::Amd64).unwrap_err().to_string();
        assert!(error.contains("over its limit of 50 MB"), "{error}");
    }

    #[test]
    fn the_triple_gives_the_architecture() {
        let of = |triple: &str| Triple::new(triple).architecture("vertice");
        assert_eq!(of("aarch64-unknown-linux-gnu").unwrap(), Architecture::Arm64);
        assert_eq!(of("x86_64-unknown-linux-musl").unwrap(), Architecture::Amd64);
        assert!(of("riscv64gc-unknown-linux-gnu").is_err() && of("aarch64-apple-darwin").is_err());
        assert_eq!(Triple::host().architecture("vertice").unwrap(), Architecture::host());
    }
}
