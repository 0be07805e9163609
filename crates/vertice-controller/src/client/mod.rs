//! The connection to the API server: a deadline on every call, writes counted, refused without leadership, and open to tests.
//!
//! Nothing here retries. kube's own retry is switched off (it waits up to 1000 s for a server that answers 429 or 503, out of
//! the queue's sight): a failed call fails the reconcile, and the queue's backoff is the one place that decides when to try
//! again. Watches have a backoff of their own.

mod call;
mod intercept;
mod layer;
mod opened;
mod watch;

use std::{fmt::Debug, sync::Arc, time::Duration};

use kube::{Client, client::ClientBuilder};
use snafu::{ResultExt as _, Snafu};

pub use self::{
    call::{Call, Verb},
    intercept::{After, Before, Interceptor, OnEvent, Point},
    layer::CallError,
    watch::{WatchEvent, WatchEventType},
};
use self::{
    intercept::Occurrences,
    layer::{CallLayer, Settings},
    opened::Opened,
};
use crate::{metrics::ControllerMetrics, readiness::Readiness};

/// How long one call may take if nobody says otherwise. Admission webhooks may take 10 s each by default, hence more than that.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// A connection that says nothing for so long is dead. On a watch the API server says something every minute, if only how far
/// it has come (a bookmark); one that has seen no change since it was started may say nothing.
const SILENCE: Duration = Duration::from_secs(295);

/// Says whether this process may write now; asked right before each write.
pub trait Fence: Debug + Send + Sync + 'static {
    /// Whether a write may be sent now.
    fn may_write(&self) -> bool;
}

/// How to build a client.
#[derive(Debug, Clone)]
pub struct Options {
    deadline: Duration,
    metrics: Option<ControllerMetrics>,
    fence: Option<Arc<dyn Fence>>,
    watches: Option<Opened>,
    interceptor: Option<Arc<dyn Interceptor>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: DEADLINE, metrics: None, fence: None, watches: None, interceptor: None }
    }
}

impl Options {
    /// How long one call may take, its answer's body included. Watches and other streams: until their answer begins (a
    /// connection that goes silent is ended after 295 s).
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Counts writes in a controller's metrics.
    #[must_use]
    pub fn metrics(self, metrics: ControllerMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Refuses writes while the fence says no.
    #[must_use]
    pub fn fence(self, fence: Arc<dyn Fence>) -> Self {
        Self { fence: Some(fence), ..self }
    }

    /// Makes the process unready while a watch of this client cannot be opened; `client` tells its watches from those of others.
    #[must_use]
    pub fn watches(self, readiness: Readiness, client: &str) -> Self {
        Self { watches: Some(Opened::new(readiness, client)), ..self }
    }

    /// Lets a test stand between the controller and the server.
    #[must_use]
    pub fn interceptor(self, interceptor: Arc<dyn Interceptor>) -> Self {
        Self { interceptor: Some(interceptor), ..self }
    }
}

/// A client could not be built.
#[derive(Debug, Snafu)]
#[snafu(display("the client for the API server at {url} could not be built"))]
pub struct BuildError {
    url: String,
    #[snafu(source(from(kube::Error, Box::new)))]
    source: Box<kube::Error>,
}

/// Builds a client.
pub fn build(mut config: kube::Config, options: Options) -> Result<Client, BuildError> {
    let url = config.cluster_url.to_string();
    config.default_retry = false;
    if config.read_timeout.is_none() {
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
    }
    let Options { deadline, metrics, fence, watches, interceptor } = options;
    let occurrences = Occurrences::default();
    let settings = Settings { deadline, metrics, fence, watches, interceptor, occurrences };
    let builder = ClientBuilder::try_from(config).context(BuildSnafu { url })?;
    Ok(builder.with_layer(&CallLayer(Arc::new(settings))).build())
}
