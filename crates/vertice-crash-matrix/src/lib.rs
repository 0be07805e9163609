//! The crash matrix: a controller is killed, refused and misled at every one of its writes, and what it comes to is compared with
//! what it comes to in peace.
//!
//! After Sieve (Sun et al., OSDI '22): of 46 bugs that it found in ten controllers, 45 showed as a difference between the end states
//! with and without one fault. A trial is one story (a [`scenario::Scenario`]: what people do with a kind) in a namespace of its own,
//! with at most one [`fault::Strike`]. Real are the API server, the operator (in this process, in a runtime that is dropped to kill it),
//! the agent (a process), PostgreSQL and the S3 gateway. Played by the matrix are kube-controller-manager and the kubelet, because
//! they would not live by the injected clock.

pub mod audit;
mod error;
mod fault;
mod gateway;
mod ground;
mod hub;
mod jobs;
pub mod matrix;
#[cfg(feature = "mutants")]
pub mod mutants;
mod normalise;
mod operator;
mod oracles;
mod people;
mod point;
mod postgres;
mod proxy;
mod reference;
pub mod report;
mod run;
mod scenario;
pub mod scenarios;
mod server;
mod state;
pub mod transitions;
mod trial;
mod world;

pub use error::{Error, Result};
pub use fault::{Fault, Strike};
pub use ground::{Ground, OPERATORS, Options};
pub use hub::{Fate, Hub, Seen};
pub use normalise::{How, LOSSES, Loss, RULES, Rule};
pub use oracles::{Finding, Oracle};
pub use point::Point;
pub use reference::{Baseline, Expected};
pub use run::{Outcome, attempt, baseline, golden, run};
pub use scenario::{Kind, Scenario};
pub use trial::Trial;
