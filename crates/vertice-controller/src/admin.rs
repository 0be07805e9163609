//! The HTTP server for probes and Prometheus: `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use snafu::{ResultExt as _, Snafu};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, readiness::Readiness};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The server could not be started, or broke.
#[derive(Debug, Snafu)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[snafu(display("cannot listen on {address} for probes and metrics"))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// The server broke.
    #[snafu(display("the server for probes and metrics broke"))]
    Serve {
        /// What happened.
        source: std::io::Error,
    },
}

/// The server, listening but not yet answering.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    router: Router,
}

#[derive(Debug, Clone)]
struct Shown {
    readiness: Readiness,
    metrics: Metrics,
}

impl Admin {
    /// Listens on an address; port 0 takes any free one.
    pub async fn bind(
        address: SocketAddr,
        readiness: Readiness,
        metrics: Metrics,
    ) -> Result<Self, AdminError> {
        let listener = TcpListener::bind(address).await.context(ListenSnafu { address })?;
        Ok(Self { listener, router: router(Shown { readiness, metrics }) })
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr, AdminError> {
        self.listener.local_addr().context(ServeSnafu)
    }

    /// Answers until `stop` is cancelled.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), AdminError> {
        let server = axum::serve(self.listener, self.router);
        server.with_graceful_shutdown(stop.cancelled_owned()).await.context(ServeSnafu)
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn ready(State(shown): State<Shown>) -> Response {
    let waiting = shown.readiness.waiting();
    if waiting.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, waiting.join("\n") + "\n").into_response()
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    match shown.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, content_type(&headers))], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// OpenMetrics, unless the client asks for the older text format only (which the same text also is, but for counters' types).
fn content_type(headers: &HeaderMap) -> &'static str {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let plain_only = accept.contains("text/plain") && !accept.contains("openmetrics-text");
    if plain_only { PLAIN } else { OPENMETRICS }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn request(address: SocketAddr, path: &str, accept: &str) -> String {
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_are_served_until_stopped() {
        let readiness = Readiness::default();
        let gate = readiness.gate("crd", "waiting for CustomResourceDefinition verticebackups.vertice.io");
        let metrics = Metrics::new();
        let _ = metrics.controller("backup");
        let admin = Admin::bind(([127, 0, 0, 1], 0).into(), readiness, metrics).await.unwrap();
        let address = admin.address().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(admin.serve(stop.clone()));

        let health = request(address, "/healthz", "*/*").await;
        assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("\r\n\r\nok\n"), "{health}");

        let waiting = request(address, "/readyz", "*/*").await;
        assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
        assert!(
            waiting.ends_with("waiting for CustomResourceDefinition verticebackups.vertice.io\n"),
            "{waiting}"
        );
        gate.ready();
        assert!(request(address, "/readyz", "*/*").await.starts_with("HTTP/1.1 200"));

        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, content_type) in [(prometheus, OPENMETRICS), ("*/*", OPENMETRICS), ("text/plain", PLAIN)]
        {
            let text = request(address, "/metrics", accept).await;
            assert!(text.contains(&format!("content-type: {content_type}\r\n")), "{accept}: {text}");
            assert!(
                text.contains("vertice_controller_reconcile_total{controller=\"backup\",result=\"error\"} 0")
            );
            assert!(text.ends_with("# EOF\n"));
        }
        assert!(request(address, "/nothing", "*/*").await.starts_with("HTTP/1.1 404"));

        stop.cancel();
        server.await.unwrap().unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let bind = |address| Admin::bind(address, Readiness::default(), Metrics::new());
        let first = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = first.address().unwrap();
        let error = bind(address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address} for probes and metrics"));
    }
}
