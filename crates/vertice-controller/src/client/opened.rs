//! Whether the watches of a client could be opened, as readiness.
//!
//! A watch that is open says nothing until an object changes, so only here, where its answer begins, it can be told that a watch
//! works again after the API server was away.

use http::{StatusCode, Uri};
use tower::BoxError;

use super::{Call, call::query};
use crate::{readiness::Readiness, text::chain};

#[derive(Debug, Clone)]
pub(crate) struct Opened {
    readiness: Readiness,
    client: String,
}

impl Opened {
    pub(crate) fn new(readiness: Readiness, client: &str) -> Self {
        Self { readiness, client: client.to_owned() }
    }

    /// How an attempt to open a watch ended.
    pub(crate) fn tried(&self, watch: &Call, uri: &Uri, result: Result<StatusCode, &BoxError>) {
        let gate = format!("{}: {watch} {}", self.client, selectors(uri));
        let kind = match watch.group.as_str() {
            "" => watch.resource.clone(),
            group => format!("{}.{group}", watch.resource),
        };
        let reason = match result {
            Ok(status) if status.is_success() => return self.readiness.ready(&gate),
            Ok(StatusCode::NOT_FOUND) => format!("waiting for CustomResourceDefinition {kind}"),
            Ok(status) => format!("cannot watch {kind}: the API server answered {status}"),
            Err(error) => format!("cannot watch {kind}: {}", chain(&**error)),
        };
        self.readiness.wait(gate, reason);
    }
}

/// What tells a watch from others of its kind.
fn selectors(uri: &Uri) -> String {
    let pairs = query(uri).filter(|(name, _)| name.ends_with("Selector"));
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(opened: &Opened, uri: &str, result: Result<StatusCode, &BoxError>) {
        let parts = http::Request::get(uri).body(()).unwrap().into_parts().0;
        opened.tried(&Call::read(&parts, &[]), &parts.uri, result);
    }

    #[test]
    fn a_watch_is_waited_for_until_it_opens() {
        let readiness = Readiness::default();
        let opened = Opened::new(readiness.clone(), "backup");
        let pods = "/api/v1/pods?watch=true&labelSelector=a&resourceVersion=5";
        let backups = "/apis/vertice.io/v1alpha1/namespaces/a/verticebackups?watch=true";
        tried(&opened, pods, Ok(StatusCode::OK));
        assert_eq!(readiness.waiting(), Vec::<String>::new());

        let refused: BoxError = "connection refused".into();
        tried(&opened, pods, Err(&refused));
        tried(&opened, backups, Ok(StatusCode::FORBIDDEN));
        let forbidden = "cannot watch verticebackups.vertice.io: the API server answered 403 Forbidden";
        assert_eq!(readiness.waiting(), ["cannot watch pods: connection refused", forbidden]);

        tried(&opened, "/api/v1/pods?watch=true&labelSelector=b&resourceVersion=9", Ok(StatusCode::OK));
        assert_eq!(readiness.waiting().len(), 2, "that was another one");
        tried(&opened, "/api/v1/pods?watch=true&labelSelector=a&resourceVersion=9", Ok(StatusCode::OK));
        assert_eq!(readiness.waiting(), [forbidden]);
        tried(&opened, backups, Ok(StatusCode::NOT_FOUND));
        assert_eq!(readiness.waiting(), ["waiting for CustomResourceDefinition verticebackups.vertice.io"]);
    }
}
