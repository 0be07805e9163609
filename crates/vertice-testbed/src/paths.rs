//! Where the testbed keeps what it builds and runs: everything lies under the target directory.

use std::env;
use std::path::{Path, PathBuf};

/// The folders of one checkout. Cheap to clone; nothing is created by asking for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    workspace: PathBuf,
    target: PathBuf,
}

impl Paths {
    /// The checkout this crate was compiled in (`VERTICE_WORKSPACE` overrides it) and its target directory
    /// (`CARGO_TARGET_DIR`, else `target`).
    #[must_use]
    pub fn locate() -> Self {
        let workspace = env::var_os("VERTICE_WORKSPACE").map_or_else(compiled_in, PathBuf::from);
        let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        Self::new(workspace, target)
    }

    /// `target` may be absolute, or relative to `workspace`.
    #[must_use]
    pub fn new(workspace: impl Into<PathBuf>, target: impl AsRef<Path>) -> Self {
        let workspace = workspace.into();
        let target = workspace.join(target);
        Self { workspace, target }
    }

    /// The root of the checkout: the folder of the workspace's `Cargo.toml`.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Cargo's target directory.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The Go modules, image files and manifests that the testbed is made from.
    #[must_use]
    pub fn sources(&self) -> PathBuf {
        self.workspace.join("testbed")
    }

    /// The root of everything below; removing it costs a rebuild and nothing else.
    #[must_use]
    pub fn testbed(&self) -> PathBuf {
        self.target.join("testbed")
    }

    /// One folder that has every built program by its name.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.testbed().join("bin")
    }

    /// Built parts, one folder a part and key; `bin` links into it.
    #[must_use]
    pub fn parts(&self) -> PathBuf {
        self.testbed().join("parts")
    }

    /// Image archives and cached root file systems.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.testbed().join("images")
    }

    /// State of running clusters.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.testbed().join("run")
    }

    /// What failed tests left to look at, one folder a test.
    #[must_use]
    pub fn failures(&self) -> PathBuf {
        self.testbed().join("failures")
    }

    /// Output of the last build of each part and image.
    #[must_use]
    pub fn build_logs(&self) -> PathBuf {
        self.testbed().join("build-logs")
    }
}

fn compiled_in() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_workspace_holds_the_go_modules() {
        let sources = Paths::new(compiled_in(), "target").sources();
        assert!(sources.join("kubernetes/go.mod").is_file(), "no Go modules under {}", sources.display());
    }

    #[test]
    fn a_relative_target_lies_in_the_workspace_and_an_absolute_one_stays() {
        assert_eq!(Paths::new("/w", "out").bin(), Path::new("/w/out/testbed/bin"));
        assert_eq!(Paths::new("/w", "/fast/out").images(), Path::new("/fast/out/testbed/images"));
    }
}
