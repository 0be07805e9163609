//! What tells one state of a part from another.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::recipe::Recipe;
use super::{Error, GoVersionSnafu};

/// The version of Go, and the platform that it builds for, in the module in `folder`: its go.mod may ask for a newer
/// one than is installed.
pub(super) fn toolchain(folder: &Path) -> Result<String, Error> {
    let output =
        super::build::go(folder).args(["env", "GOVERSION", "GOOS", "GOARCH"]).output().map_err(|error| {
            match error.kind() {
                io::ErrorKind::NotFound if folder.is_dir() => Error::NoGo,
                _ => Error::GoVersion { folder: folder.to_owned(), said: error.to_string() },
            }
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return GoVersionSnafu { folder, said }.fail();
    }
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Twelve hexadecimal digits over all that the result depends on: sources, pinned modules with their checksums, the
/// toolchain and the recipe.
pub(super) fn key(sources: &Path, toolchain: &str, recipe: &Recipe) -> io::Result<String> {
    let mut files: Vec<_> = fs::read_dir(sources)?.collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        matches!(name.as_ref(), "go.mod" | "go.sum") || (name.ends_with(".go") && !name.ends_with("_test.go"))
    });
    files.sort_by_key(fs::DirEntry::file_name);

    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        // The length first: otherwise bytes could move from one field to the next unseen.
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(toolchain.as_bytes());
    field(recipe.inputs().as_bytes());
    for file in files {
        field(file.file_name().as_encoded_bytes());
        field(&fs::read(file.path())?);
    }
    Ok(hex::encode(hash.finalize())[..12].to_owned())
}

/// The version of `module` that a go.mod requires.
pub(super) fn pinned_version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        let version = (words.next() == Some(module)).then(|| words.next()).flatten()?;
        version.starts_with('v').then(|| version.to_owned())
    })
}

/// Replaces `{version}`, `{major}` and `{minor}`.
pub(super) fn expand(template: &str, version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    template.replace("{version}", version).replace("{major}", major).replace("{minor}", minor)
}
