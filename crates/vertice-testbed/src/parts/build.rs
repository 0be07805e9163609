//! Runs `go build` and puts the result in place.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use snafu::ResultExt;

use super::recipe::Recipe;
use super::{Built, Error, InstallSnafu, key};
use crate::command;
use crate::paths::Paths;
use crate::report::Reporter;

/// `go` in a module of ours, with no workspace around it and for this machine.
pub(super) fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder).env("GOWORK", "off").env_remove("GOOS").env_remove("GOARCH");
    command
}

/// Builds into a scratch folder, then renames it: a folder of a part is whole or not there. Call with the lock held.
pub(super) fn build(paths: &Paths, built: &Built, reporter: &Reporter) -> Result<(), Error> {
    let (part, recipe) = (built.part, built.part.recipe());
    let scratch = paths.parts().join(format!(".building-{part}"));
    let prepared = || -> io::Result<()> {
        remove(&scratch)?; // what a killed build left
        fs::create_dir_all(&scratch)
    };
    prepared().context(InstallSnafu { part, path: &scratch })?;

    let mut command = go(&paths.sources().join(recipe.module));
    command
        .env("CGO_ENABLED", if recipe.cgo { "1" } else { "0" })
        .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", recipe.tags])
        .args(["-ldflags", &linker_flags(recipe, built.version.as_deref())])
        .arg("-o")
        // With the slash, Go takes it for a folder and names each program by its package.
        .arg(scratch.join(""))
        .args(recipe.packages);
    let log = paths.build_logs().join(format!("part-{part}.log"));
    command::run(&mut command, &format!("build {part}"), &log, reporter)?;

    let finished = || -> io::Result<()> {
        for (name, program) in aliases(recipe) {
            symlink(program, scratch.join(name))?;
        }
        fs::rename(&scratch, &built.folder)
    };
    finished().context(InstallSnafu { part, path: &built.folder })
}

/// `-s -w` leave out symbols and debug information: a third of the size, and nobody debugs these here.
fn linker_flags(recipe: &Recipe, version: Option<&str>) -> String {
    let mut flags = "-s -w".to_owned();
    for (variable, template) in recipe.variables {
        let value = key::expand(template, version.unwrap_or_default());
        let _ = write!(flags, " -X {variable}={value}"); // a string takes all
    }
    flags
}

fn aliases(recipe: &Recipe) -> impl Iterator<Item = (&'static str, &'static str)> {
    recipe.multi_call.into_iter().flat_map(|program| recipe.programs.iter().map(move |name| (*name, program)))
}

/// Earlier states of the part: a hundred megabytes each. Call it when `bin` no longer links to one. Programs that run
/// from one go on: the file stays until they end.
pub(super) fn remove_other_states(paths: &Paths, built: &Built) -> io::Result<()> {
    let prefix = format!("{}-", built.part);
    for entry in fs::read_dir(paths.parts())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Twelve digits of a key follow: `metrics-` may not match `metrics-server-…`.
        let is_state = name.strip_prefix(&prefix).is_some_and(|key| key.len() == 12 && !key.contains('-'));
        if is_state && path != built.folder {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Points `bin/<program>` at this state of the part, each by one atomic step.
pub(super) fn link(paths: &Paths, built: &Built) -> io::Result<()> {
    let bin = paths.bin();
    fs::create_dir_all(&bin)?;
    for (link, target) in links(built) {
        let fresh = bin.join(format!(".{link}-{}", std::process::id()));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(target, &fresh)?,
        }
        fs::rename(&fresh, bin.join(link))?;
    }
    Ok(())
}

pub(super) fn is_linked(built: &Built) -> bool {
    let Some(bin) = built.folder.parent().and_then(Path::parent).map(|testbed| testbed.join("bin")) else {
        return false;
    };
    links(built).all(|(link, target)| fs::read_link(bin.join(link)).is_ok_and(|found| found == target))
}

/// Relative, so that a target directory can be moved or mounted elsewhere.
fn links(built: &Built) -> impl Iterator<Item = (&'static str, PathBuf)> {
    let folder = Path::new("../parts").join(built.folder.file_name().unwrap_or_default());
    built.part.recipe().programs.iter().map(move |name| (*name, folder.join(name)))
}
