//! The tower layer around kube's HTTP stack.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use kube::client::Body;
use snafu::Snafu;
use tokio::sync::Mutex;
use tower::{BoxError, Layer, Service, ServiceExt as _};

use super::{
    Call, Fence, Verb,
    intercept::{After, Before, Interceptor, Occurrences},
    opened::Opened,
    watch,
};
use crate::metrics::ControllerMetrics;

/// Why a call failed here rather than at the API server.
#[derive(Debug, Snafu)]
pub enum CallError {
    /// The server did not answer, or did not finish its answer, in time. A write may have taken effect all the same.
    #[snafu(display("the API server did not answer \"{call}\" within {} s", deadline.as_secs_f32()))]
    Deadline {
        /// The call.
        call: String,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// This process is no longer (or not yet) the leader and must not write.
    #[snafu(display("\"{call}\" was not sent: this process does not hold the leader lease"))]
    Fenced {
        /// The call.
        call: String,
    },
    /// An [`Interceptor`] broke the connection.
    #[snafu(display("the connection broke during \"{call}\""))]
    Disconnected {
        /// The call.
        call: String,
    },
}

/// Settings of the layer, see [`super::Options`].
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) metrics: Option<ControllerMetrics>,
    pub(crate) fence: Option<Arc<dyn Fence>>,
    pub(crate) watches: Option<Opened>,
    pub(crate) interceptor: Option<Arc<dyn Interceptor>>,
    pub(crate) occurrences: Occurrences,
}

/// Deadline, fence, interceptor and counter, in this order from the outside.
#[derive(Debug, Clone)]
pub(crate) struct CallLayer(pub(crate) Arc<Settings>);

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallService { inner: Arc::new(Mutex::new(inner)), settings: Arc::clone(&self.0) }
    }
}

#[derive(Debug)]
pub(crate) struct CallService<S> {
    /// Locked only while a request is handed over, not while it is answered.
    inner: Arc<Mutex<S>>,
    settings: Arc<Settings>,
}

/// A body of any origin; kube wraps it in its own.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

impl<S, B> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = Self { inner: Arc::clone(&self.inner), settings: Arc::clone(&self.settings) };
        async move { this.handle(request).await }.boxed()
    }
}

impl<S, B> CallService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Reads what the call is about and gives it its deadline.
    async fn handle(&self, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
        let (parts, body) = request.into_parts();
        // Bodies of requests are in memory already, this copies nothing.
        let body = body.collect_bytes().await?;
        let call = Call::read(&parts, &body);
        let stream = call.is_stream(&parts.uri);
        let uri = parts.uri.clone();
        let request = Request::from_parts(parts, Body::from(body));
        let exchange = async {
            let response = self.intercepted(&call, request).await?;
            if stream {
                return Ok(response);
            }
            // The deadline covers the body as well: a server may hang in the middle of it.
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await?.to_bytes();
            Ok(Response::from_parts(parts, full(bytes)))
        };
        let result = match tokio::time::timeout(self.settings.deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(self.late(&call).into()),
        };
        if let Some(watches) = self.settings.watches.as_ref().filter(|_| call.verb == Verb::Watch) {
            watches.tried(&call, &uri, result.as_ref().map(Response::status));
        }
        result
    }

    /// Sends the request between the interceptor's hooks.
    async fn intercepted(&self, call: &Call, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
        let Some(interceptor) = &self.settings.interceptor else {
            return self.send(call, request).await;
        };
        let disconnected = || Err(CallError::Disconnected { call: call.to_string() }.into());
        let occurrence = self.settings.occurrences.next(call);
        let response = match interceptor.before(call, occurrence).await {
            Before::Send => {
                let unanswered = Unanswered { interceptor: &**interceptor, call, occurrence };
                let response = self.send(call, request).await?;
                std::mem::forget(unanswered);
                response
            }
            Before::Answer(status) => return Ok(answer(call, status)),
            Before::Throttle(wait) => return Ok(throttled(call, wait)),
            Before::Disconnect => return disconnected(),
        };
        match interceptor.after(call, occurrence, response.status()).await {
            After::Deliver => {}
            After::Lose => return disconnected(),
            After::TimeOut => return Err(self.late(call).into()),
        }
        if call.verb != Verb::Watch || !response.status().is_success() {
            return Ok(response);
        }
        let interceptor = Arc::clone(interceptor);
        Ok(response.map(|body| watch::intercepted(body, call.clone(), interceptor)))
    }

    /// Sends the request, unless the fence is against it.
    async fn send(&self, call: &Call, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
        let Settings { fence, metrics, .. } = &*self.settings;
        // Locked only while the request is handed over. The fence is asked last, right before the request leaves: the narrower
        // this gap, the better.
        let answer = {
            let mut service = self.inner.lock().await;
            let service = service.ready().await?;
            if call.verb.is_write() && fence.as_ref().is_some_and(|fence| !fence.may_write()) {
                return Err(CallError::Fenced { call: call.to_string() }.into());
            }
            if let Some(metrics) = metrics.as_ref().filter(|_| call.is_write()) {
                metrics.api_write(call.verb.as_str(), &call.kind());
            }
            service.call(request)
        };
        Ok(answer.await?.map(|body| body.map_err(Into::into).boxed_unsync()))
    }

    fn late(&self, call: &Call) -> CallError {
        CallError::Deadline { call: call.to_string(), deadline: self.settings.deadline }
    }
}

/// Tells the interceptor when it is dropped: also when nobody polls the call any more.
struct Unanswered<'a> {
    interceptor: &'a dyn Interceptor,
    call: &'a Call,
    occurrence: u64,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.interceptor.abandoned(self.call, self.occurrence);
    }
}

fn full(bytes: Bytes) -> AnyBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// An answer as the API server would give it.
fn answer(call: &Call, status: StatusCode) -> Response<AnyBody> {
    let reason = match status {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{call} was answered by an interceptor"), "reason": reason, "code": status.as_u16(),
    });
    let mut response = Response::new(full(body.to_string().into()));
    *response.status_mut() = status;
    response
}

/// As an API server that has too much to do.
fn throttled(call: &Call, wait: Duration) -> Response<AnyBody> {
    let mut response = answer(call, StatusCode::TOO_MANY_REQUESTS);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

#[cfg(test)]
mod tests;
