//! Whether real nodes can run on this machine.

use std::process::Command;

use snafu::Snafu;

use crate::tool;

/// Why real nodes cannot run here, in one line.
#[derive(Debug, Snafu)]
#[snafu(display(
    "real nodes cannot run on this machine: {reason}; a cluster of yours serves too, with `--context NAME`"
))]
pub struct Unsupported {
    reason: String,
}

/// Checks that this is Linux, that we are root, and that we may make namespaces.
pub fn check() -> Result<(), Unsupported> {
    if !cfg!(target_os = "linux") {
        return Err(Unsupported { reason: format!("it runs {}, and they need Linux", std::env::consts::OS) });
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Unsupported { reason: "they need root, and this is another user".to_owned() });
    }
    let namespaces = ["--mount", "--net", "--pid", "--ipc", "--fork", "true"];
    match tool::run(Command::new("unshare").args(namespaces)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Unsupported { reason: format!("no namespaces can be made ({error})") }),
    }
}
