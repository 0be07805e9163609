//! What `cargo xtask test e2e` hands to a test through its environment.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use snafu::{OptionExt, ResultExt, Snafu};

use crate::kubectl::Kubectl;

/// Kubeconfig of the cluster.
pub const KUBECONFIG_ENV: &str = "VERTICE_TEST_KUBECONFIG";
/// Folder with `kubectl` and `helm`.
pub const PROGRAMS_ENV: &str = "VERTICE_TEST_BIN";
/// [`Images`] as JSON.
pub const IMAGES_ENV: &str = "VERTICE_TEST_IMAGES";
/// The `vertice` binary.
pub const VERTICE_ENV: &str = "VERTICE_TEST_VERTICE";
/// The API server's audit log.
pub const AUDIT_LOG_ENV: &str = "VERTICE_TEST_AUDIT_LOG";
/// Archives of the images, as JSON: what a test loads into a cluster of its own.
pub const ARCHIVES_ENV: &str = "VERTICE_TEST_ARCHIVES";
/// The `xtask` binary.
pub const XTASK_ENV: &str = "VERTICE_TEST_XTASK";

/// Namespace of the operator in the tests' cluster.
pub const OPERATOR_NAMESPACE: &str = "vertice-system";

/// References of the images that the cluster has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Images {
    /// `vertice`.
    pub operator: String,
    /// `vertice-agent`.
    pub agent: String,
    /// PostgreSQL.
    pub postgres: String,
    /// The S3 store.
    pub s3: String,
}

/// The test was started by hand.
#[derive(Debug, Snafu)]
pub enum HarnessError {
    /// A variable is missing.
    #[snafu(display("{name} is not set: run this test through `cargo xtask test e2e`"))]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// It holds something else.
    #[snafu(display("{IMAGES_ENV} is not the JSON that `cargo xtask test` sets"))]
    Images {
        /// Why.
        source: serde_json::Error,
    },
}

/// The cluster of this test run.
#[derive(Clone, Debug)]
pub struct Harness {
    /// Its programs.
    pub kubectl: Kubectl,
    /// Its images.
    pub images: Images,
    /// The `vertice` binary.
    pub vertice: PathBuf,
}

impl Harness {
    /// Reads the environment.
    pub fn from_env() -> Result<Self, HarnessError> {
        let variable = |name: &'static str| std::env::var(name).ok().context(MissingSnafu { name });
        let (programs, kubeconfig) = (variable(PROGRAMS_ENV)?, variable(KUBECONFIG_ENV)?);
        let kubectl = Kubectl::new(programs.as_ref(), Some(kubeconfig.as_ref()), None);
        let images = serde_json::from_str(&variable(IMAGES_ENV)?).context(ImagesSnafu)?;
        Ok(Self { kubectl, images, vertice: variable(VERTICE_ENV)?.into() })
    }
}

/// A name for a namespace that no other test of this run has.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
