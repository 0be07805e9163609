//! What a bucket of backups looks like, and what the operator and the agent tell each other.
//!
//! Pure: no I/O, no clock, no randomness. The agent, the operator and the command line share it, so a backup that one of
//! them wrote is one that the others can read.
//!
//! - [`id`]: backup ids, which sort by time
//! - [`layout`]: the keys in a bucket
//! - [`manifest`]: `manifest.json`, the last object of a backup to be written: without it there is no backup
//! - [`catalogue`]: the backups of a prefix, from their manifests
//! - [`claim`]: who may write to a prefix: the owner's mark, and the claim that keeps two runs apart
//! - [`task`]: what the operator asks an agent to do
//! - [`report`]: what the agent answers through its termination message, and its progress lines
//! - [`humane`]: bytes and rates for people

pub mod catalogue;
pub mod claim;
pub mod humane;
pub mod id;
pub mod layout;
pub mod manifest;
pub mod report;
pub mod task;
