//! VerticeRestore: one Job, run once.
//!
//! A restore that ran twice could overwrite what was written after the first run. So the Job is made suspended; its UID is then
//! written into the status, which fails if anybody changed the status meanwhile; and only the Job of that UID is let go. A crash
//! between two of these steps leaves a Job that never ran, and a Job that is gone after its UID was written is never made again.

mod apply;
mod build;
mod controller;
mod metrics;
mod observe;
mod plan;
mod status;
#[cfg(test)]
mod tests;
mod validate;

pub(crate) use controller::controller;
