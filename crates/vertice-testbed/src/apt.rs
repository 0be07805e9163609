//! Debian packages that the testbed needs on the machine: found by the files they bring, so that nothing runs when
//! all are there; installed, announced, when we are root on Debian; named in one line otherwise.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use snafu::{ResultExt, Snafu, ensure};

use crate::command;
use crate::paths::Paths;
use crate::report::Reporter;

/// A Debian package, and how to tell that what it brings is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    name: &'static str,
    probe: Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// A program on `PATH` or in the system's folders of programs.
    Program(&'static str),
    /// A file, by its absolute path.
    File(&'static str),
}

const fn program(name: &'static str, program: &'static str) -> Package {
    Package { name, probe: Probe::Program(program) }
}

/// What compiling runc takes: it is the one part with C code.
pub const RUNC_BUILD: &[Package] = &[
    program("gcc", "gcc"),
    program("pkg-config", "pkg-config"),
    Package { name: "libc6-dev", probe: Probe::File("/usr/include/stdio.h") },
    Package { name: "libseccomp-dev", probe: Probe::File("/usr/include/seccomp.h") },
];

/// What making images from Debian packages takes.
pub const DEBIAN_IMAGES: &[Package] = &[program("mmdebstrap", "mmdebstrap")];

/// What running nodes in network namespaces takes.
pub const NODES: &[Package] = &[
    program("iproute2", "ip"),
    program("util-linux", "nsenter"),
    program("mount", "mount"),
    program("nftables", "nft"),
    program("conntrack", "conntrack"),
];

/// What `cargo xtask bench backup` runs: the server, the peer, and what binds programs to our life.
pub const BACKUP_BENCH: &[Package] = &[
    Package { name: "postgresql-15", probe: Probe::File("/usr/lib/postgresql/15/bin/postgres") },
    program("restic", "restic"),
    program("util-linux", "setpriv"),
];

/// What the crash matrix runs: the server that trials back up, and what binds programs to our life.
pub const CRASH_MATRIX: &[Package] = &[
    Package { name: "postgresql-15", probe: Probe::File("/usr/lib/postgresql/15/bin/postgres") },
    Package { name: "util-linux", probe: Probe::File("/usr/bin/setpriv") },
];

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("these Debian packages are missing: as root, run `apt-get install {}`", packages.join(" ")))]
    Missing { packages: Vec<&'static str> },

    #[snafu(display("failed to install Debian packages"))]
    Install {
        #[snafu(source(from(command::Error, Box::new)))]
        source: Box<command::Error>,
    },
}

/// Installs those of `packages` that are missing.
pub fn ensure(paths: &Paths, packages: &[Package], reporter: &Reporter) -> Result<(), Error> {
    let missing: Vec<_> =
        packages.iter().filter(|package| !package.is_there()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(can_install(), MissingSnafu { packages: missing });
    reporter.say(format!("installing Debian packages: {}", missing.join(" ")));
    let log = paths.build_logs().join("apt.log");
    // An old or empty list of packages makes the first try fail; asking for a new list first always works.
    command::run(apt_get().arg("update"), "update the list of Debian packages", &log, reporter)
        .context(InstallSnafu)?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    command::run(&mut install, "install Debian packages", &log, reporter).context(InstallSnafu)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another helper of this machine may hold dpkg's lock for a while.
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn can_install() -> bool {
    rustix::process::geteuid().is_root() && find_program("apt-get").is_some()
}

impl Package {
    fn is_there(&self) -> bool {
        match self.probe {
            Probe::Program(name) => find_program(name).is_some(),
            Probe::File(path) => Path::new(path).exists(),
        }
    }
}

/// Where a program lies: on `PATH`, or in the folders of administrators' programs that users' `PATH`s leave out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_tell_what_is_there_from_what_is_not() {
        assert!(program("dash", "sh").is_there());
        assert!(!program("none", "no-such-program-here").is_there());
        assert!(Package { name: "base-files", probe: Probe::File("/etc/os-release") }.is_there());
        assert!(!Package { name: "none", probe: Probe::File("/no/such/file") }.is_there());
    }

    #[test]
    fn nothing_runs_when_all_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path(), "target");
        ensure(&paths, &[program("dash", "sh")], &Reporter::new(|_| {})).unwrap();
        assert!(!paths.build_logs().exists());
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_installs_it() {
        let error = Error::Missing { packages: vec!["mmdebstrap", "nftables"] }.to_string();
        assert!(error.contains("apt-get install mmdebstrap nftables"), "{error}");
    }
}
