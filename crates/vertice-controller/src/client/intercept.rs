//! Hooks around every call to the API server, for tests that crash a controller between two writes or make the server fail.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Mutex, PoisonError},
};

use futures::future::BoxFuture;
use http::StatusCode;

use super::Call;

/// Stands between a controller and the API server. Both hooks may take as long as they like: a hook that never returns is a
/// process that hangs, or, when its runtime is dropped, one that was killed at that very point.
pub trait Interceptor: Debug + Send + Sync + 'static {
    /// Before a request leaves.
    fn before<'a>(&'a self, call: &'a Call, occurrence: u64) -> BoxFuture<'a, Before> {
        let _ = (call, occurrence);
        Box::pin(async { Before::Send })
    }

    /// After the request took effect (or failed, see `status`), before its answer is seen.
    fn after<'a>(&'a self, call: &'a Call, occurrence: u64, status: StatusCode) -> BoxFuture<'a, After> {
        let _ = (call, occurrence, status);
        Box::pin(async { After::Deliver })
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It is sent.
    Send,
    /// It is answered with this status and never reaches the server.
    Answer(StatusCode),
    /// The connection breaks before it is sent.
    Disconnect,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is delivered.
    Deliver,
    /// The connection breaks: the request took effect and nobody knows.
    Lose,
}

/// Counts calls of the same name. A write is named by (verb, kind, role) where it has a role, else by (verb, kind, namespace,
/// name): both stay the same when several objects are worked on at once.
#[derive(Debug, Default)]
pub(crate) struct Occurrences(Mutex<HashMap<String, u64>>);

impl Occurrences {
    /// The number of this call among those of its name, from 1.
    pub(crate) fn next(&self, call: &Call) -> u64 {
        let name = match &call.role {
            Some(role) => format!("{} {} {role}", call.verb, call.kind()),
            None => call.to_string(),
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name).or_default();
        *count += 1;
        *count
    }
}
