//! What a user does, on a real cluster: the steps that the demo and the end-to-end tests share.
//!
//! Everything goes through `kubectl` and `helm`, as a user's hands would; nothing here links the operator.
//!
//! - [`backup`]: VerticeBackup and VerticeRestore
//! - [`harness`]: what `cargo xtask test` hands to a test
//! - [`kubectl`]: apply, exec, wait
//! - [`operator`]: installs the chart
//! - [`postgres`]: a PostgreSQL server with a volume of its own, and its fingerprint
//! - [`s3`]: an S3 store with a bucket
//! - [`shop`]: real-looking data

pub mod backup;
pub mod harness;
pub mod kubectl;
pub mod operator;
pub mod postgres;
pub mod s3;
pub mod shop;
