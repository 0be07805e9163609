//! PostgreSQL, by logical dumps: the server's own `pg_dump`, `pg_dumpall`, `pg_restore` and `psql`, driven through pipes.
//! All that speaks to the server is libpq of the image, so names, TLS and authentication work as they do there.

mod backup;
mod databases;
mod error;
mod exec;
mod globals;
mod quote;
mod restore;
mod session;
mod tools;

pub use backup::{Contents, back_up};
pub use error::PostgresError;
pub use restore::{Request, Restored, Undo, restore, undo};
pub use session::Session;
pub use tools::{Tools, ToolsError};

/// The engine's name in tasks and manifests.
pub const ENGINE: &str = "postgresql";
