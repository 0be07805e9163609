//! The server's own client tools, as they lie in its image.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use snafu::Snafu;
use tokio::process::Command;

/// All of them are needed.
const NAMES: [&str; 4] = ["psql", "pg_dump", "pg_dumpall", "pg_restore"];
/// Where distributions and vendors keep them. `/usr/bin` of Debian has a Perl wrapper, so `PATH` comes last.
const VERSIONED: [(&str, &str); 3] =
    [("/usr/lib/postgresql", "bin"), ("/usr/lib64/pgsql", "bin"), ("/opt", "bin")];
const FIXED: [&str; 3] = ["/usr/local/bin", "/opt/bitnami/postgresql/bin", "/usr/local/pgsql/bin"];

/// One set of client tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    folder: PathBuf,
    major: u32,
}

/// There are no tools for this server.
#[derive(Debug, Snafu)]
pub enum ToolsError {
    /// None at all.
    #[snafu(display(
        "this image has no PostgreSQL client tools (psql, pg_dump, pg_dumpall and pg_restore in one folder): set spec.target.image \
         to one that has them, such as the server's own"
    ))]
    NoTools,
    /// All older than the server.
    #[snafu(display(
        "the server is PostgreSQL {server}, but the client tools in this image are {newest}: set spec.target.image to an image of \
         PostgreSQL {server} or newer"
    ))]
    TooOld {
        /// The server's major version.
        server: u32,
        /// The newest tools' major version.
        newest: u32,
    },
}

impl Tools {
    /// All sets in this image, the newest first.
    pub async fn find() -> Result<Vec<Self>, ToolsError> {
        let mut found: Vec<Self> = Vec::new();
        for folder in candidates() {
            if let Some(major) = major_of(&folder).await {
                found.push(Self { folder, major });
            }
        }
        // Stable: of two sets of one version the more specific folder stays first.
        found.sort_by_key(|tools| std::cmp::Reverse(tools.major));
        if found.is_empty() { Err(ToolsError::NoTools) } else { Ok(found) }
    }

    /// The set for a server: of its own version, else the next newer one.
    pub fn choose(found: Vec<Self>, server: u32) -> Result<Self, ToolsError> {
        let newest = found.first().map_or(0, |tools| tools.major);
        let fitting = found.into_iter().filter(|tools| tools.major >= server).min_by_key(|tools| tools.major);
        fitting.ok_or(ToolsError::TooOld { server, newest })
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (root, below) in VERSIONED {
        let Ok(entries) = std::fs::read_dir(root) else { continue };
        folders.extend(entries.flatten().map(|entry| entry.path().join(below)));
    }
    folders.extend(FIXED.map(PathBuf::from));
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    folders.retain(|folder| folder.is_absolute() && NAMES.iter().all(|name| folder.join(name).is_file()));
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

async fn major_of(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("pg_dump")).arg(OsStr::new("--version")).output().await.ok()?;
    parse_version(std::str::from_utf8(&output.stdout).ok()?)
}

/// 15 of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_once(") ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(major: u32) -> Tools {
        Tools { folder: format!("/{major}").into(), major }
    }

    #[test]
    fn reads_versions() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_version("pg_dump: not found"), None);
    }

    #[test]
    fn takes_the_servers_own_version_else_the_next_newer() {
        let found = || vec![set(18), set(16), set(15)];
        assert_eq!(Tools::choose(found(), 15).unwrap(), set(15));
        assert_eq!(Tools::choose(found(), 17).unwrap(), set(18));
        insta::assert_snapshot!(Tools::choose(found(), 19).unwrap_err(), @"the server is PostgreSQL 19, but the client tools in this image are 18: set spec.target.image to an image of PostgreSQL 19 or newer");
    }
}
