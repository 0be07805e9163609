//! A root file system from Debian packages, by mmdebstrap, from the sources of packages that this machine uses.

mod sources;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sha2::{Digest, Sha256};
use snafu::{ResultExt, ensure};

use super::layer::Layer;
use super::{Error, NeedsSnafu, NotRootSnafu, WriteSnafu, cache, with_folder};
use crate::ledger::{Ledger, Work};
use crate::paths::Paths;
use crate::{apt, command};

/// What cached root file systems' names begin with.
pub(super) const ROOT_FILE_SYSTEM: &str = "rootfs-";

/// Never unpacked: nobody reads documentation in a container.
const EXCLUDED: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/bash-completion/*",
    "/usr/share/bug/*",
];

/// Removed at the end: lists, caches and logs of the installation.
const TRIMMED: &[&str] = &[
    "/var/lib/apt/lists",
    "/var/cache/apt",
    "/var/cache/debconf",
    "/var/cache/ldconfig",
    "/var/log/*",
    "/var/lib/dpkg/info",
];

/// Which packages, and what to do with them.
#[derive(Debug, Clone)]
pub struct Debian {
    /// The release, such as `bookworm`.
    pub suite: &'static str,
    pub packages: &'static [&'static str],
    /// Shell text that runs after the essential packages and before the others; `$1` is the root folder.
    pub before_install: &'static str,
    /// Patterns (of `sh`) of absolute paths that are removed at the end.
    pub trim: &'static [&'static str],
}

/// Makes the file system, or finds it made. The packages' versions are those of the day when it was made.
pub(super) fn root_file_system(
    paths: &Paths,
    ledger: &Ledger,
    name: &str,
    debian: &Debian,
) -> Result<Layer, Error> {
    let started = Instant::now();
    let _lock = cache::lock(paths, name)?;
    let key = key(debian);
    let file = with_folder(name, paths.images().join(name).join(format!("{ROOT_FILE_SYSTEM}{key}.tar")))?;
    let label = format!("packages {name}");
    if let Some(layer) = cache::load::<Layer>(&file) {
        ledger.record(&label, started.elapsed(), Work::Cached, layer.bytes)?;
        return Ok(Layer { file, ..layer });
    }

    ensure!(rustix::process::geteuid().is_root(), NotRootSnafu { image: name });
    apt::ensure(paths, apt::DEBIAN_IMAGES, ledger.reporter()).context(NeedsSnafu { image: name })?;
    ledger.reporter().say(format!(
        "making image {name} from Debian packages ({} and what they need); about 1 min the first time",
        debian.packages.join(" ")
    ));
    let scratch = file.with_extension("making");
    let mut command = mmdebstrap(paths, name, debian, &scratch)?;
    let log = paths.build_logs().join(format!("image-{name}.log"));
    command::run(&mut command, &format!("make image {name} from Debian packages"), &log, ledger.reporter())?;

    let layer = Layer { file: file.clone(), ..Layer::of_file(name, &scratch)? };
    cache::store(name, &scratch, &file, &layer)?;
    cache::remove_stale(&file);
    ledger.record(&label, started.elapsed(), Work::Cold, layer.bytes)?;
    Ok(layer)
}

fn key(debian: &Debian) -> String {
    let all = format!("{debian:?} {EXCLUDED:?} {TRIMMED:?} {}", std::env::consts::ARCH);
    hex::encode(Sha256::digest(all))[..12].to_owned()
}

fn mmdebstrap(paths: &Paths, name: &str, debian: &Debian, output: &Path) -> Result<Command, Error> {
    let mut command = Command::new("mmdebstrap");
    command
        .env("SOURCE_DATE_EPOCH", "0") // times of files then tell nothing of the day
        .args(["--mode=root", "--variant=essential", "--format=tar", "--skip=output/dev,output/mknod"])
        .arg(format!("--include={}", debian.packages.join(",")))
        .args(EXCLUDED.iter().map(|path| format!("--dpkgopt=path-exclude={path}")))
        .arg("--aptopt=APT::Install-Recommends false");
    if !debian.before_install.is_empty() {
        command.arg(format!("--essential-hook={}", debian.before_install));
    }
    command.arg(format!("--customize-hook={}", trim_script(debian))).arg(debian.suite).arg(output);
    command.args(source_files(paths, name, debian)?);
    Ok(command)
}

fn trim_script(debian: &Debian) -> String {
    let mut script = "cd \"$1\" && rm -rf --".to_owned();
    for pattern in TRIMMED.iter().chain(debian.trim) {
        let _ = write!(script, " .{pattern}");
    }
    script
}

/// The machine's own sources for the suite, in files that mmdebstrap reads; none lets it use Debian's.
fn source_files(paths: &Paths, name: &str, debian: &Debian) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for (style, text) in sources::of_machine(Path::new("/etc/apt"), debian.suite) {
        let file = paths.images().join(name).join(format!("apt.{style}"));
        fs::write(&file, text).context(WriteSnafu { image: name, path: &file })?;
        files.push(file);
    }
    Ok(files)
}
