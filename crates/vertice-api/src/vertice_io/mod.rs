//! Group `vertice.io`: backup and restore.

mod backup;
mod common;
mod restore;

pub use backup::*;
pub use common::*;
pub use restore::*;

/// The API group of these kinds.
pub const GROUP: &str = "vertice.io";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
