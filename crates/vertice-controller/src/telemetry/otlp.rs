//! Traces by OTLP over HTTP (protobuf).

use std::fmt;

use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;

use super::BoxLayer;

/// Exports in batches, from a thread of its own; sends what is left when dropped.
pub(super) struct Provider(SdkTracerProvider);

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// A layer that exports spans to `endpoint` (without `/v1/traces`).
pub(super) fn layer(endpoint: &str, service: &str) -> Result<(Provider, BoxLayer), ExporterBuildError> {
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    // reqwest takes the process-wide provider of cryptography; whoever installed one first decides.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder().with_http().with_endpoint(url).build()?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("vertice"));
    Ok((Provider(provider), layer.boxed()))
}

/// The id of the trace that a span belongs to; `None` when it is not exported.
pub(super) fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| context.trace_id().to_string())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::mpsc,
        time::Duration,
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::record_trace_id;

    /// Takes one POST and hands over its request line and body.
    fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let read = connection.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if request.len() >= end + 4 + length.parse::<usize>().unwrap() {
                    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                    let line = head.lines().next().unwrap().to_owned();
                    sender.send((line, request[end + 4..].to_vec())).unwrap();
                    return;
                }
            }
        });
        (endpoint, receiver)
    }

    #[test]
    fn a_reconcile_arrives_at_the_collector_under_the_trace_id_of_the_logs() {
        let (endpoint, received) = collector();
        let (provider, layer) = layer(&endpoint, "vertice-test").unwrap();
        let subscriber = tracing_subscriber::registry().with(vec![layer]);
        let id = tracing::subscriber::with_default(subscriber, || {
            let span =
                tracing::info_span!("reconcile", object = "shop/nightly", trace_id = tracing::field::Empty);
            record_trace_id(&span);
            trace_id(&span).unwrap()
        });
        drop(provider);
        let (line, body) = received.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(line, "post /v1/traces http/1.1");
        let has = |needle: &[u8]| body.windows(needle.len()).any(|window| window == needle);
        assert!(has(b"vertice-test") && has(b"reconcile") && has(b"shop/nightly"));
        assert!(
            has(&u128::from_str_radix(&id, 16).unwrap().to_be_bytes()),
            "the trace id {id} is not in the export"
        );
    }
}
