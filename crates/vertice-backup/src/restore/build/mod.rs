//! What a VerticeRestore is made into.

mod job;

pub(super) use job::job;
