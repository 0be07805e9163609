//! Logs with trace ids, and traces by OTLP where that is asked for (cargo feature `otlp`).

mod json;
#[cfg(feature = "otlp")]
mod otlp;

use std::io::IsTerminal as _;

use snafu::{ResultExt as _, Snafu};
use tracing::Span;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::format::JsonFields, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people at a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

/// Settings of logs and traces.
#[derive(Debug, Clone)]
pub struct Options {
    /// How logs look.
    pub format: Format,
    /// Which logs: a level, or directives as in `info,vertice_backup=debug`.
    pub filter: String,
    /// The service's name in traces.
    pub service: String,
    /// Where traces go, for example `http://collector:4318`. `None`: nowhere.
    pub otlp_endpoint: Option<String>,
}

impl Options {
    /// From the environment: `VERTICE_LOG` (default `info`), `VERTICE_LOG_FORMAT` (`auto`, `json` or `human`), and
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn from_env(service: &str) -> Self {
        let read = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let format = match read("VERTICE_LOG_FORMAT").as_deref() {
            Some("json") => Format::Json,
            Some("human") => Format::Human,
            _ => Format::Auto,
        };
        Self {
            format,
            filter: read("VERTICE_LOG").unwrap_or_else(|| "info".into()),
            service: service.into(),
            otlp_endpoint: read("OTEL_EXPORTER_OTLP_ENDPOINT"),
        }
    }
}

/// Logs or traces could not be set up.
#[derive(Debug, Snafu)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[snafu(display(
        "\"{filter}\" is no log filter; write a level or directives such as info,vertice_backup=debug"
    ))]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Set up already.
    #[snafu(display("logging is set up already"))]
    Twice {
        /// What the library says.
        source: tracing_subscriber::util::TryInitError,
    },
    /// Traces were asked for, and this build has no exporter.
    #[snafu(display(
        "traces were asked for (OTEL_EXPORTER_OTLP_ENDPOINT), but this build lacks the feature otlp"
    ))]
    NoExporter,
    /// The exporter could not be built.
    #[cfg(feature = "otlp")]
    #[snafu(display("traces cannot be sent to {endpoint}"))]
    Exporter {
        /// Where traces should go.
        endpoint: String,
        /// What is wrong.
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// Keeps the trace exporter; sends what is left when dropped.
#[derive(Debug, Default)]
pub struct Guard {
    #[cfg(feature = "otlp")]
    _provider: Option<otlp::Provider>,
}

type BoxLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets logs and traces up for this process. Logs go to standard error.
pub fn init(options: &Options) -> Result<Guard, TelemetryError> {
    let filter: EnvFilter =
        EnvFilter::builder().parse(&options.filter).context(FilterSnafu { filter: &options.filter })?;
    let json = match options.format {
        Format::Json => true,
        Format::Human => false,
        Format::Auto => !std::io::stderr().is_terminal(),
    };
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs: BoxLayer =
        if json { logs.event_format(json::Json).fmt_fields(JsonFields::new()).boxed() } else { logs.boxed() };
    let (guard, traces) = traces(options)?;
    let layers: Vec<BoxLayer> = traces.into_iter().chain([logs.with_filter(filter).boxed()]).collect();
    tracing_subscriber::registry().with(layers).try_init().context(TwiceSnafu)?;
    Ok(guard)
}

#[cfg(feature = "otlp")]
fn traces(options: &Options) -> Result<(Guard, Option<BoxLayer>), TelemetryError> {
    let Some(endpoint) = &options.otlp_endpoint else { return Ok((Guard::default(), None)) };
    let (provider, layer) = otlp::layer(endpoint, &options.service).context(ExporterSnafu { endpoint })?;
    Ok((Guard { _provider: Some(provider) }, Some(layer)))
}

#[cfg(not(feature = "otlp"))]
fn traces(options: &Options) -> Result<(Guard, Option<BoxLayer>), TelemetryError> {
    snafu::ensure!(options.otlp_endpoint.is_none(), NoExporterSnafu);
    Ok((Guard::default(), None))
}

/// Gives a span its `trace_id` (a field that must be declared empty): the id of its trace where traces are exported, else a random
/// one of the same form, 32 hex digits.
pub fn record_trace_id(span: &Span) {
    if !span.is_disabled() {
        span.record("trace_id", trace_id(span));
    }
}

fn trace_id(span: &Span) -> String {
    #[cfg(feature = "otlp")]
    if let Some(id) = otlp::trace_id(span) {
        return id;
    }
    let _ = span;
    format!("{:032x}", rand::random::<u128>())
}
