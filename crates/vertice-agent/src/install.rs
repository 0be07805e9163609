//! `install`: an init container copies the agent into a folder that the engine's container sees.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Name of the copy.
pub const NAME: &str = "vertice-agent";

/// Copies the running program to `folder`, readable and executable by every user: the engine's image has one of its own.
pub fn install(folder: &Path) -> io::Result<()> {
    let partial = folder.join(format!(".{NAME}.partial"));
    fs::copy("/proc/self/exe", &partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    // A rename, so that a restarted init container never leaves half a program.
    fs::rename(&partial, folder.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_itself_executable_and_again() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            install(dir.path()).unwrap();
            let copy = fs::metadata(dir.path().join(NAME)).unwrap();
            assert_eq!(copy.permissions().mode() & 0o777, 0o755);
            assert_eq!(copy.len(), fs::metadata("/proc/self/exe").unwrap().len());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
