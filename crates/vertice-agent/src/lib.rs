//! The backup agent: it runs in the engine's own image, where the engine's own tools are, and moves data between a server and
//! an object store. Nothing is kept on disk and memory stays flat, whatever the size of the database.
//!
//! - [`engines`]: what is particular to a database server
//! - [`pipeline`]: compression and checksums on the way
//! - [`storage`]: the bucket, its claim, its owner's mark and its catalogue; the command line uses these too
//! - [`backup`], [`restore`]: one run, from its task to its result
//! - [`run`]: the process around a run: signals, report, exit code
//! - [`secrets`], [`progress`], [`failure`]: what the runs share
//! - [`mutant`]: seeded faults, in tests only

pub mod backup;
pub mod engines;
pub mod failure;
pub mod install;
pub mod mutant;
pub mod pipeline;
pub mod progress;
pub mod restore;
pub mod run;
pub mod secrets;
pub mod storage;
