//! Hooks around every call to the API server, for tests that crash a controller between two writes or make the server fail.

use std::{
    collections::HashMap,
    fmt::{self, Debug},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use http::StatusCode;

use super::{Call, Verb, WatchEvent};

/// Stands between a controller and the API server. All hooks may take as long as they like. One that never returns is a process
/// that was killed at that very point when its runtime is dropped meanwhile; else `before` and `after` make a call that timed out
/// ([`super::Options::deadline`]), and `event` a watch that lags behind.
pub trait Interceptor: Debug + Send + Sync + 'static {
    /// Before a request leaves; `occurrence` is its number among those of its name, see [`Call::point`].
    fn before<'a>(&'a self, call: &'a Call, occurrence: u64) -> BoxFuture<'a, Before> {
        let _ = (call, occurrence);
        Box::pin(async { Before::Send })
    }

    /// After the request took effect (or failed, see `status`), before its answer is seen.
    fn after<'a>(&'a self, call: &'a Call, occurrence: u64, status: StatusCode) -> BoxFuture<'a, After> {
        let _ = (call, occurrence, status);
        Box::pin(async { After::Deliver })
    }

    /// Instead of `after`: there was no answer, or nobody waits for one any more (the deadline is over, or whoever asked gave up,
    /// as others of several calls at once do when one has failed). Whether the request took effect is not known.
    fn abandoned(&self, call: &Call, occurrence: u64) {
        let _ = (call, occurrence);
    }

    /// Before an event of a watch is seen; `call` is the watch and names the kind. Events of one watch are asked about in their
    /// order, each after the one before was delivered: holding one holds all that come after it, which is a cache that lags.
    fn event<'a>(&'a self, call: &'a Call, event: &'a WatchEvent) -> BoxFuture<'a, OnEvent> {
        let _ = (call, event);
        Box::pin(async { OnEvent::Deliver })
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It is sent.
    Send,
    /// It is answered with this status and never reaches the server.
    Answer(StatusCode),
    /// It is answered with 429 and told to come back later (in whole seconds, rounded up), and never reaches the server.
    Throttle(Duration),
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
    /// As [`After::Lose`], but what is seen is the deadline's end; it is not waited for.
    TimeOut,
}

/// What becomes of an event of a watch.
///
/// A watcher knows how far it is by the version of the last event that it saw, and asks for what came after it when its stream
/// ended. So an event is unobserved for good (that is: until the next list) only if a later one of the same watch is delivered,
/// a bookmark included. An event that was dropped as the last one is seen late, after [`OnEvent::Break`] or when the server
/// ends the watch by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEvent {
    /// It is delivered.
    Deliver,
    /// It is not seen.
    Drop,
    /// It is seen twice.
    Repeat,
    /// It is not seen and the stream ends here, as if the connection broke: the watcher goes on after the last event that it saw.
    Break,
    /// It is not seen and the stream ends with 410 `Expired`: the watcher lists everything anew.
    Expire,
}

/// The name of one call in the course of a test: the same in every run, however many objects are worked on at once.
///
/// It reads `patch cronjobs backup#2`: verb, resource, subject, occurrence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// What the call does.
    pub verb: Verb,
    /// Resource with subresource, see [`Call::kind`].
    pub kind: String,
    /// Where; not shown, because tests run in namespaces with generated names.
    pub namespace: Option<String>,
    /// Its role, or else its name; `None` for calls about many, which show as `*`.
    pub subject: Option<String>,
    /// Its number among those that have all the above in common, from 1.
    pub occurrence: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject.as_deref().unwrap_or("*");
        write!(f, "{} {} {subject}#{}", self.verb, self.kind, self.occurrence)
    }
}

/// Counts calls of the same name.
#[derive(Debug, Default)]
pub(crate) struct Occurrences(Mutex<HashMap<Point, u64>>);

impl Occurrences {
    /// The number of this call among those of its name, from 1.
    pub(crate) fn next(&self, call: &Call) -> u64 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(call.point(0)).or_default();
        *count += 1;
        *count
    }
}
