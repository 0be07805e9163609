//! VerticeBackup: a CronJob, and the truth about its runs.

mod apply;
mod build;
mod controller;
mod history;
mod known;
mod metrics;
mod observe;
mod plan;
mod status;
#[cfg(test)]
mod tests;
mod timetable;
mod validate;

pub(crate) use controller::{SharedCaches, controller};
