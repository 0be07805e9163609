//! What a VerticeBackup is made into.

mod cronjob;

pub(super) use cronjob::{FIRST_DEADLINE, Force, cronjob};
