//! Stands between the agent and the object store: names, records and strikes its requests.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{StatusCode, Uri, uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use snafu::ResultExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::{IoSnafu, Result};
use crate::hub::{AGENT, Hub, Order, Victim};
use crate::point;

/// The largest request: one part of an upload, and a little.
const LARGEST: usize = 65 << 20;

/// A proxy of one trial; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Its port of the loopback.
    pub(crate) port: u16,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    hub: Arc<Hub>,
    client: Client<HttpConnector, Full<Bytes>>,
    gateway: u16,
}

impl Proxy {
    /// Starts one before the gateway's port.
    pub(crate) async fn start(hub: &Arc<Hub>, gateway: u16) -> Result<Self> {
        let action = "listen on";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context(IoSnafu { action, path: "127.0.0.1" })?;
        let port = listener.local_addr().context(IoSnafu { action, path: "127.0.0.1" })?.port();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shared = Shared { hub: Arc::clone(hub), client, gateway };
        let app = Router::new().fallback(pass).with_state(shared);
        let serving = tokio::spawn(async move {
            // Ends with the trial; a listener of the loopback has nothing to report.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { port, serving })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else { return plain(StatusCode::PAYLOAD_TOO_LARGE) };
    let query = parts.uri.query().unwrap_or_default();
    let name = point::of_store(&parts.method, parts.uri.path(), query);
    let Some(name) = name else { return forward(&shared, parts, body).await };
    let (number, order) = shared.hub.leaves(AGENT, name, None);
    match order {
        Order::DieNow => return die(&shared.hub).await,
        Order::Answer(status) => {
            return plain(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE));
        }
        Order::Pass | Order::LoseAnswer | Order::DieAfter | Order::First(_) | Order::Then(_) => {}
    }
    let answer = forward(&shared, parts, body).await;
    shared.hub.answered(AGENT, number, answer.status().as_u16());
    match order {
        Order::DieAfter => die(&shared.hub).await,
        // As a gateway between the two would answer that lost the connection behind it.
        Order::LoseAnswer => plain(StatusCode::BAD_GATEWAY),
        Order::Pass | Order::Answer(_) | Order::DieNow | Order::First(_) | Order::Then(_) => answer,
    }
}

/// The agent dies while it waits for this answer.
async fn die(hub: &Hub) -> Response {
    hub.kill(Victim::Agent);
    futures::future::pending().await
}

/// Sends the request on as it is: its signature covers method, path, query, host and body.
async fn forward(shared: &Shared, mut parts: http::request::Parts, body: Bytes) -> Response {
    let mut to = uri::Parts::default();
    to.scheme = Some(uri::Scheme::HTTP);
    to.authority = format!("127.0.0.1:{}", shared.gateway).parse().ok();
    to.path_and_query = parts.uri.path_and_query().cloned();
    let Ok(uri) = Uri::from_parts(to) else { return plain(StatusCode::BAD_REQUEST) };
    parts.uri = uri;
    let request = http::Request::from_parts(parts, Full::new(body));
    match shared.client.request(request).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => plain(StatusCode::BAD_GATEWAY),
    }
}

fn plain(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
