//! Fixtures of unit tests.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::target::Candidates;

/// An instant.
pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// All documents of a YAML text that have this kind.
pub(crate) fn all<T: DeserializeOwned>(yaml: &str, kind: &str) -> Vec<T> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let wanted = documents.into_iter().filter(|document| document["kind"] == kind);
    wanted.map(|document| serde_json::from_value(document).unwrap()).collect()
}

/// The only document of that kind.
pub(crate) fn one<T: DeserializeOwned>(yaml: &str, kind: &str) -> T {
    let mut found = all(yaml, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found.remove(0)
}

/// The Services and workloads of a YAML text.
pub(crate) fn candidates(yaml: &str) -> Candidates {
    let services: Vec<Service> = all(yaml, "Service");
    let stateful_sets: Vec<StatefulSet> = all(yaml, "StatefulSet");
    let deployments: Vec<Deployment> = all(yaml, "Deployment");
    Candidates::new(&services, &stateful_sets, &deployments)
}
