//! The operator against a real API server. There is no kubelet and no Job controller: the tests play them, and write what they
//! would write.

// Clippy knows test functions only, not what they call; and their futures may be as large as they like.
#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures)]

mod backup;
mod clock;
mod crash;
mod missed;
mod mistakes;
mod restore;
mod runs;
mod stage;
