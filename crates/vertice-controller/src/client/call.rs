//! What a request to the API server is about, named as RBAC rules and the audit log name it.

use std::fmt;

use http::{Method, Uri, request::Parts};
use serde::Deserialize;

use super::Point;

/// What a request does, in the words of RBAC rules and the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads many.
    List,
    /// Follows changes.
    Watch,
    /// Makes an object.
    Create,
    /// Replaces an object.
    Update,
    /// Changes a part of an object; server-side apply is a patch too, see [`Call::apply`].
    Patch,
    /// Deletes an object.
    Delete,
    /// Deletes many.
    DeleteCollection,
}

impl Verb {
    /// The verb as RBAC rules and the audit log write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether it may change something.
    #[must_use]
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One request to the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// What it does.
    pub verb: Verb,
    /// API group, empty for the core group.
    pub group: String,
    /// API version without the group, for example `v1alpha1`.
    pub version: String,
    /// The resource's plural name, for example `cronjobs`; for a path outside the resource API the path itself.
    pub resource: String,
    /// For example `status`.
    pub subresource: Option<String>,
    /// Namespace; `None` for cluster-wide requests.
    pub namespace: Option<String>,
    /// The object's name; `None` for requests about many. Taken from the body where a new object is made.
    pub name: Option<String>,
    /// What names the object of a write independently of generated names: its part in its application, from the label
    /// `app.kubernetes.io/component` in the body; for an event its reason.
    pub role: Option<String>,
    /// Whether this is server-side apply.
    pub apply: bool,
    /// Whether the server is asked only to pretend.
    pub dry_run: bool,
}

impl Call {
    /// Resource with subresource, as RBAC rules write it: `cronjobs`, `verticebackups/status`.
    #[must_use]
    pub fn kind(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }

    /// Whether it may change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.verb.is_write() && !self.dry_run
    }

    /// The name of the `occurrence`th call like this one.
    #[must_use]
    pub fn point(&self, occurrence: u64) -> Point {
        let subject = self.role.clone().or_else(|| self.name.clone());
        Point { verb: self.verb, kind: self.kind(), namespace: self.namespace.clone(), subject, occurrence }
    }

    /// Whether the answer goes on for as long as both sides like (watches, followed logs, exec).
    pub(crate) fn is_stream(&self, uri: &Uri) -> bool {
        self.verb == Verb::Watch
            || matches!(self.subresource.as_deref(), Some("exec" | "attach" | "portforward" | "proxy"))
            || query(uri).any(|pair| pair == ("follow", "true") || pair == ("follow", "1"))
    }

    /// Reads a request: its line, its headers, and for a write what its body says about the object.
    pub(crate) fn read(parts: &Parts, body: &[u8]) -> Self {
        let path = Path::parse(parts.uri.path());
        let watch = query(&parts.uri).any(|pair| pair == ("watch", "true") || pair == ("watch", "1"));
        let verb = match parts.method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if path.name.is_some() => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ if watch => Verb::Watch,
            _ if path.name.is_some() || path.raw => Verb::Get,
            _ => Verb::List,
        };
        let content_type =
            parts.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let object = Some(body)
            .filter(|body| verb.is_write() && !body.is_empty())
            .and_then(|body| serde_json::from_slice::<Object>(body).ok())
            .unwrap_or_default();
        Self {
            verb,
            group: path.group.to_owned(),
            version: path.version.to_owned(),
            resource: path.resource.to_owned(),
            subresource: path.subresource.map(str::to_owned),
            namespace: path.namespace.map(str::to_owned),
            name: path.name.map(str::to_owned).or(object.metadata.name),
            role: object.metadata.labels.component.or(object.reason),
            apply: content_type.is_some_and(|value| value.starts_with("application/apply-patch+")),
            dry_run: query(&parts.uri).any(|(name, _)| name == "dryRun"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.kind())?;
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}"),
            (None, Some(name)) => write!(f, " {name}"),
            (Some(namespace), None) => write!(f, " in {namespace}"),
            (None, None) => Ok(()),
        }
    }
}

/// The little of an object's body that names it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    /// Events have it.
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    #[serde(rename = "resourceVersion")]
    pub(super) resource_version: Option<String>,
    pub(super) labels: Labels,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Labels {
    #[serde(rename = "app.kubernetes.io/component")]
    pub(super) component: Option<String>,
}

#[derive(Debug, Default, PartialEq)]
struct Path<'a> {
    group: &'a str,
    version: &'a str,
    namespace: Option<&'a str>,
    resource: &'a str,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
    /// Outside the resource API, such as `/version`.
    raw: bool,
}

impl<'a> Path<'a> {
    /// See <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris>.
    fn parse(path: &'a str) -> Self {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let (group, version) = match parts.next() {
            Some("api") => ("", parts.next()),
            Some("apis") => (parts.next().unwrap_or_default(), parts.next()),
            _ => ("", None),
        };
        let rest: Vec<_> = parts.collect();
        let Some(version) = version.filter(|_| !rest.is_empty()) else {
            return Self { resource: path, raw: true, ..Self::default() };
        };
        let (namespace, rest) = match rest.as_slice() {
            // `namespaces/x/finalize` and `/status` are about the namespace itself.
            ["namespaces", namespace, resource, rest @ ..] if !matches!(*resource, "finalize" | "status") => {
                (Some(*namespace), [&[*resource], rest].concat())
            }
            _ => (None, rest),
        };
        let mut rest = rest.into_iter();
        Self {
            group,
            version,
            namespace,
            resource: rest.next().unwrap_or_default(),
            name: rest.next(),
            subresource: rest.next(),
            raw: false,
        }
    }
}

pub(super) fn query(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn call(method: &str, uri: &str, content_type: &str, body: &str) -> Call {
        let request =
            Request::builder().method(method).uri(uri).header("content-type", content_type).body(()).unwrap();
        Call::read(&request.into_parts().0, body.as_bytes())
    }

    #[test]
    fn requests_are_named_as_the_audit_log_names_them() {
        let apply = "application/apply-patch+yaml";
        let json = "application/json";
        let cases = [
            ("GET", "/api/v1/namespaces/ns/pods/p", json, "get pods ns/p"),
            ("GET", "/api/v1/namespaces/ns/pods?&limit=500", json, "list pods in ns"),
            ("GET", "/apis/batch/v1/cronjobs?&watch=true&timeoutSeconds=290", json, "watch cronjobs"),
            ("GET", "/api/v1/nodes/n1", json, "get nodes n1"),
            ("GET", "/api/v1/namespaces/ns", json, "get namespaces ns"),
            ("PUT", "/api/v1/namespaces/ns/finalize", json, "update namespaces/finalize ns"),
            ("POST", "/apis/batch/v1/namespaces/ns/jobs", json, "create jobs ns/from-body"),
            ("POST", "/api/v1/namespaces/ns/pods/p/eviction", json, "create pods/eviction ns/p"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l", json, "update leases ns/l"),
            (
                "PATCH",
                "/apis/vertice.io/v1alpha1/namespaces/ns/verticebackups/b/status?&force=true",
                apply,
                "patch verticebackups/status ns/b",
            ),
            ("DELETE", "/apis/batch/v1/namespaces/ns/jobs/j", json, "delete jobs ns/j"),
            ("DELETE", "/apis/batch/v1/namespaces/ns/jobs", json, "deletecollection jobs in ns"),
            ("GET", "/version", json, "get /version"),
            ("GET", "/apis/vertice.io/v1alpha1", json, "get /apis/vertice.io/v1alpha1"),
        ];
        for (method, uri, content_type, expected) in cases {
            let body = if method == "POST" { r#"{"metadata":{"name":"from-body"}}"# } else { "" };
            let call = call(method, uri, content_type, body);
            assert_eq!(call.to_string(), expected, "{method} {uri}");
            assert_eq!(call.apply, content_type == apply, "{method} {uri}");
        }
    }

    #[test]
    fn the_role_comes_from_the_objects_label() {
        let body =
            r#"{"metadata":{"name":"x","labels":{"app.kubernetes.io/component":"agent-job"}},"spec":{}}"#;
        let call = call("POST", "/apis/batch/v1/namespaces/ns/jobs", "application/json", body);
        assert_eq!(call.role.as_deref(), Some("agent-job"));
        assert_eq!((call.group.as_str(), call.version.as_str()), ("batch", "v1"));
    }

    #[test]
    fn an_event_is_named_by_its_reason() {
        let body = r#"{"metadata":{"name":"shop.18a6f0c9"},"reason":"BackupSucceeded","note":"2 KiB"}"#;
        let uri = "/apis/events.k8s.io/v1/namespaces/ns/events";
        let call = call("POST", uri, "application/json", body);
        assert_eq!(call.point(3).to_string(), "create events BackupSucceeded#3");
    }

    #[test]
    fn pretending_is_no_write() {
        let uri = "/apis/batch/v1/namespaces/ns/jobs/j?&dryRun=All";
        let call = call("PATCH", uri, "application/apply-patch+yaml", "{}");
        assert!(call.dry_run && !call.is_write());
    }

    #[test]
    fn streams_are_told_from_calls_that_end() {
        for (uri, stream) in [
            ("/api/v1/pods?watch=true", true),
            ("/api/v1/pods?limit=5", false),
            ("/api/v1/namespaces/a/pods/b/log?follow=true", true),
            ("/api/v1/namespaces/a/pods/b/log?tailLines=3", false),
            ("/api/v1/namespaces/a/pods/b/exec?command=ls", true),
        ] {
            let call = call("GET", uri, "", "");
            assert_eq!(call.is_stream(&uri.parse().unwrap()), stream, "{uri}");
        }
    }
}
