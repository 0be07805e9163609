//! A real Kubernetes on one machine, for tests and the demo: built from Go modules, with images made here.
//!
//! [`parts`] builds the programs, [`images`] the container images; [`ledger`] keeps what each of it took.

pub mod addons;
pub mod apt;
mod cgroups;
pub mod clean;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod external;
pub mod failures;
pub mod images;
pub mod kubeconfig;
pub mod ledger;
pub mod machine;
pub mod network;
pub mod node;
pub mod parts;
pub mod paths;
pub mod pki;
pub mod process;
pub mod report;
pub mod state;
pub mod support;
mod tool;
pub mod wait;
