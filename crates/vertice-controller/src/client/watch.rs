//! The events of a watch, one by one, for an interceptor.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde::Deserialize;
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};
use tower::BoxError;

use super::{
    Call,
    call::Object,
    intercept::{Interceptor, OnEvent},
    layer::AnyBody,
};

/// What happened to an object, as a watch tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchEventType {
    /// It is new, or new to what the watch selects.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or no longer what the watch selects.
    Deleted,
    /// Nothing: this is only how far the watch is.
    Bookmark,
    /// The watch cannot go on.
    Error,
}

/// One event of a watch. The kind is the watch's own, see [`Call::kind`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchEvent {
    /// What happened.
    pub type_: WatchEventType,
    /// The object's namespace; `None` for cluster-wide objects, bookmarks and errors.
    pub namespace: Option<String>,
    /// The object's name; `None` for bookmarks and errors.
    pub name: Option<String>,
    /// The object's part in its application, from its label `app.kubernetes.io/component`.
    pub role: Option<String>,
    /// The object's version, or how far the watch is.
    pub resource_version: Option<String>,
}

impl WatchEvent {
    /// Reads one line of a watch; `None` for what is no event.
    fn read(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            #[serde(rename = "type")]
            type_: WatchEventType,
            object: Object,
        }
        let Line { type_, object } = serde_json::from_str(line).ok()?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let metadata = object.metadata;
        Some(Self {
            type_,
            namespace: filled(metadata.namespace),
            name: filled(metadata.name),
            role: metadata.labels.component,
            resource_version: filled(metadata.resource_version),
        })
    }
}

impl fmt::Display for WatchEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.type_)?;
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}"),
            (None, Some(name)) => write!(f, " {name}"),
            _ => Ok(()),
        }
    }
}

/// The body of a watch's answer as the interceptor lets it through.
pub(crate) fn intercepted(body: AnyBody, call: Call, interceptor: Arc<dyn Interceptor>) -> AnyBody {
    let reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let lines = FramedRead::new(reader, LinesCodec::new()).map_err(bare).boxed();
    let frames = stream::try_unfold(Tap { lines, call, interceptor }, Tap::next);
    StreamBody::new(frames.map_ok(Frame::data)).boxed_unsync()
}

struct Tap {
    lines: BoxStream<'static, Result<String, BoxError>>,
    call: Call,
    interceptor: Arc<dyn Interceptor>,
}

impl Tap {
    /// The next lines to be seen, `None` at the end.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BoxError> {
        while let Some(line) = self.lines.try_next().await? {
            let on = match WatchEvent::read(&line) {
                Some(event) => self.interceptor.event(&self.call, &event).await,
                None => OnEvent::Deliver,
            };
            let seen = match on {
                OnEvent::Deliver => format!("{line}\n"),
                OnEvent::Repeat => format!("{line}\n{line}\n"),
                OnEvent::Drop => continue,
                OnEvent::Break => return Ok(None),
                OnEvent::Expire => {
                    self.lines = stream::empty().boxed();
                    expired(&self.call)
                }
            };
            return Ok(Some((seen.into(), self)));
        }
        Ok(None)
    }
}

/// What an API server says when it no longer knows what came after the version that the watch is at.
fn expired(call: &Call) -> String {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("\"{call}\" was expired by an interceptor"), "reason": "Expired", "code": 410,
    });
    format!("{}\n", serde_json::json!({"type": "ERROR", "object": status}))
}

/// The error as it came out of the body: kube looks into it to tell how a watch ended, and [`LinesCodecError`] hides it.
fn bare(error: LinesCodecError) -> BoxError {
    match error {
        LinesCodecError::Io(error) => error.into(),
        LinesCodecError::MaxLineLengthExceeded => error.into(),
    }
}

#[cfg(test)]
mod tests;
