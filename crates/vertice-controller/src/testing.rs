//! A stand-in for the API server in unit tests: a handler answers requests, a watch can be fed by hand.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::BoxError;

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// A request as the server got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) body: Value,
}

type Handler = dyn Fn(&Seen) -> (u16, Value) + Send + Sync;

/// The server. ConfigMaps can be listed and watched, everything else is answered by the handler.
#[derive(Clone)]
pub(crate) struct FakeServer {
    handler: Arc<Handler>,
    seen: Arc<Mutex<Vec<Seen>>>,
    listed: Arc<Mutex<Vec<Value>>>,
    watches: Arc<Mutex<Vec<mpsc::UnboundedSender<Bytes>>>>,
    /// How many of the next watches are refused.
    refusals: Arc<AtomicU32>,
    /// Whether a watch may begin with the list.
    streams_lists: Arc<AtomicBool>,
}

impl FakeServer {
    pub(crate) fn new(handler: impl Fn(&Seen) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self {
            handler: Arc::new(handler),
            seen: Arc::default(),
            listed: Arc::default(),
            watches: Arc::default(),
            refusals: Arc::default(),
            streams_lists: Arc::default(),
        }
    }

    /// Lets a watch begin with the list, as API servers since 1.34 do, or refuses it, as older ones.
    pub(crate) fn stream_lists(&self, yes: bool) {
        self.streams_lists.store(yes, Ordering::SeqCst);
    }

    /// Refuses the next watches, as an API server does whose own cache of the kind is not filled yet.
    pub(crate) fn refuse_watches(&self, count: u32) {
        self.refusals.store(count, Ordering::SeqCst);
    }

    /// A server whose only objects are these ConfigMaps.
    pub(crate) fn with_config_maps(names: &[&str]) -> Self {
        let server = Self::new(|_| (200, json!({})));
        server.list(names.iter().map(|name| config_map(name, 1)).collect());
        server
    }

    /// What the next list answers.
    pub(crate) fn list(&self, objects: Vec<Value>) {
        *self.listed.lock().unwrap() = objects;
    }

    /// Sends an event to all open watches; returns how many there were.
    pub(crate) fn event(&self, type_: &str, object: &Value) -> usize {
        let line = Bytes::from(json!({"type": type_, "object": object}).to_string() + "\n");
        let mut watches = self.watches.lock().unwrap();
        watches.retain(|watch| watch.send(line.clone()).is_ok());
        watches.len()
    }

    /// Ends all watches as after the server forgot old versions, so that they list anew.
    pub(crate) fn expire_watches(&self) {
        let status = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"});
        self.event("ERROR", &status);
        self.watches.lock().unwrap().clear();
    }

    /// Requests so far, watches and lists left out.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        kube::Client::new(service, "ns")
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let uri = parts.uri.to_string();
        if parts.method == Method::GET && uri.contains("watch=true") {
            if self
                .refusals
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
            {
                let message = "storage is (re)initializing";
                let status = json!({"kind": "Status", "status": "Failure", "reason": "TooManyRequests", "code": 429, "message": message});
                return Ok(respond(429, &status));
            }
            let with_list = uri.contains("sendInitialEvents=true");
            if with_list && !self.streams_lists.load(Ordering::SeqCst) {
                let message =
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
                let status = json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422, "message": message});
                return Ok(respond(422, &status));
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            if with_list {
                let listed = self.listed.lock().unwrap();
                let added = listed.iter().map(|object| json!({"type": "ADDED", "object": object}));
                let end = json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
                    "resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"},
                }}});
                for event in added.chain([end]) {
                    sender.send(Bytes::from(event.to_string() + "\n")).unwrap();
                }
            }
            self.watches.lock().unwrap().push(sender);
            let lines = futures::stream::unfold(receiver, async |mut receiver| {
                let line = receiver.recv().await?;
                Some((Ok::<_, BoxError>(http_body::Frame::data(line)), receiver))
            });
            return Ok(Response::new(StreamBody::new(lines).boxed_unsync()));
        }
        if parts.method == Method::GET
            && uri.split('?').next().is_some_and(|path| path.ends_with("/configmaps"))
        {
            let items = self.listed.lock().unwrap().clone();
            let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
            return Ok(respond(200, &list));
        }
        let seen =
            Seen { method: parts.method, uri, body: serde_json::from_slice(&body).unwrap_or_default() };
        let (status, value) = (self.handler)(&seen);
        self.seen.lock().unwrap().push(seen);
        Ok(respond(status, &value))
    }
}

fn respond(status: u16, value: &Value) -> Response<AnyBody> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

pub(crate) fn config_map(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
    })
}

/// Lets tasks run until `condition` holds; fails the test when it does not within ten seconds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
