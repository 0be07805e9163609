//! From `spec.target` to a server's address and to an image that has its client tools.

mod error;
mod objects;
mod resolve;
#[cfg(test)]
mod tests;

pub(crate) use error::TargetError;
pub(crate) use objects::Candidates;
pub(crate) use resolve::resolve;
