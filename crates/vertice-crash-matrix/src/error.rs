//! Why the matrix itself cannot go on. What it finds out about a controller is a [`crate::oracles::Finding`].

use std::path::PathBuf;
use std::time::Duration;

use snafu::Snafu;

/// The ground gave way under a trial, or a story did not come to its end.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum Error {
    /// The API server refused something that the matrix itself did.
    #[snafu(display("failed to {doing}"))]
    Api {
        /// What was done.
        doing: String,
        /// Why it failed.
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },
    /// The kubeconfig cannot be used.
    #[snafu(display("the kubeconfig {} cannot be used", path.display()))]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[snafu(source(from(kube::config::KubeconfigError, Box::new)))]
        source: Box<kube::config::KubeconfigError>,
    },
    /// An object that the matrix wrote down itself does not fit its kind.
    #[snafu(display("{what} does not fit its kind"))]
    Shape {
        /// The object.
        what: String,
        /// Where it does not fit.
        source: serde_json::Error,
    },
    /// A file or a folder.
    #[snafu(display("failed to {action} {}", path.display()))]
    Io {
        /// What was done with it.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program could not be run, or ended badly.
    #[snafu(display("{program}: {message}"))]
    Program {
        /// Its name.
        program: String,
        /// What it said.
        message: String,
    },
    /// The operator could not be started.
    #[snafu(display("the operator cannot be started"))]
    Operator {
        /// Why.
        #[snafu(source(from(vertice_backup::ManagerError, Box::new)))]
        source: Box<vertice_backup::ManagerError>,
    },
    /// Something that a story waits for did not come.
    #[snafu(display("not within {} s: {what}; last seen: {last}", waited.as_secs()))]
    Stuck {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was there instead.
        last: String,
    },
    /// There is no such scenario, point or fault.
    #[snafu(display("{message}"))]
    Unknown {
        /// What there is.
        message: String,
    },
}

/// What the matrix's own steps return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
