//! Does a field set of `metadata.managedFields` still hold every field of an intent?
//!
//! The API server records for each field manager which fields it set, and takes a field away from a manager as soon as someone
//! else changes or removes it. So drift shows without comparing a single value: a field of the intent that is no longer in our
//! set was changed by someone. Comparing values instead would have to know every default and every normalisation (`1000m`
//! is `1`) of every kind. The format is described at <https://kubernetes.io/docs/reference/using-api/server-side-apply/> and in
//! sigs.k8s.io/structured-merge-diff.

use serde_json::{Map, Value};

/// The paths of all fields in `intent` that `owned` (a `fieldsV1`) does not hold, for example
/// `spec.template.spec.containers[name=agent].image`.
pub(crate) fn lost(intent: &Value, owned: &Value) -> Vec<String> {
    let mut lost = Vec::new();
    let Value::Object(fields) = intent else { return lost };
    let set = owned.as_object();
    for (name, value) in fields {
        match name.as_str() {
            // Never in a field set, or of another subresource.
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                let metadata = owned.get("f:metadata").and_then(Value::as_object);
                for (name, value) in value.as_object().into_iter().flatten() {
                    if !matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion") {
                        child(value, metadata, &format!("f:{name}"), format!("metadata.{name}"), &mut lost);
                    }
                }
            }
            _ => child(value, set, &format!("f:{name}"), name.clone(), &mut lost),
        }
    }
    lost
}

/// Looks at one field: `element` is its key in the parent's set, `path` its name for people.
fn child(
    value: &Value,
    parent: Option<&Map<String, Value>>,
    element: &str,
    path: String,
    lost: &mut Vec<String>,
) {
    if value.is_null() {
        return;
    }
    match parent.and_then(|parent| parent.get(element)).and_then(Value::as_object) {
        None => lost.push(path),
        // No members: a scalar, or a map or list that is owned as a whole.
        Some(set) if set.keys().all(|key| key == ".") => {}
        Some(set) => members(value, set, &path, lost),
    }
}

fn members(value: &Value, set: &Map<String, Value>, path: &str, lost: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                child(value, Some(set), &format!("f:{name}"), format!("{path}.{name}"), lost);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                match set.iter().find_map(|(element, _)| Some((element, matches(element, item)?))) {
                    Some((element, name)) => child(item, Some(set), element, format!("{path}{name}"), lost),
                    None => lost.push(format!("{path}[{index}]")),
                }
            }
        }
        _ => {}
    }
}

/// Whether a list's member in a field set is this item, and if so how to call it: `k:{"name":"agent"}` for a list keyed by
/// fields, `v:"x"` for a set of values.
fn matches(element: &str, item: &Value) -> Option<String> {
    if let Some(keys) = element.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
        // A key that the intent leaves out has the server's default (a port's protocol).
        let same = keys.iter().all(|(key, value)| item.get(key).is_none_or(|have| have == value))
            && keys.keys().any(|key| item.get(key).is_some());
        let names: Vec<_> = keys.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        return same.then(|| format!("[{}]", names.join(",")));
    }
    let value: Value = serde_json::from_str(element.strip_prefix("v:")?).ok()?;
    (value == *item).then(|| format!("[{}]", plain(&value)))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What an API server recorded for an applied Deployment.
    fn owned() -> Value {
        json!({
            "f:metadata": {
                "f:labels": {"f:app": {}},
                "f:annotations": {"f:other": {}, "f:vertice.io/applied-hash": {}},
                "f:ownerReferences": {"k:{\"uid\":\"u-0\"}": {}, "k:{\"uid\":\"u-1\"}": {}},
                "f:finalizers": {"v:\"vertice.io/keep\"": {}},
            },
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {"f:spec": {
                    "f:volumes": {"k:{\"name\":\"tmp\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}},
                    "f:containers": {"k:{\"name\":\"agent\"}": {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:args": {},
                        "f:ports": {"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }},
                }},
            },
        })
    }

    fn intent() -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "a",
                "namespace": "ns",
                "labels": {"app": "a"},
                "annotations": {"vertice.io/applied-hash": "00"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u-1"}],
                "finalizers": ["vertice.io/keep"],
            },
            "spec": {
                "replicas": 3,
                "paused": null,
                "selector": {"matchLabels": {"app": "a"}},
                "template": {"spec": {
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                    "containers": [{"name": "agent", "image": "i", "args": ["x"], "ports": [{"containerPort": 8080}]}],
                }},
            },
            "status": {"replicas": 0},
        })
    }

    #[test]
    fn an_untouched_object_has_lost_nothing() {
        assert_eq!(lost(&intent(), &owned()), Vec::<String>::new());
    }

    /// Removes one element and tells what is reported.
    fn without(pointer: &str, element: &str) -> Vec<String> {
        let mut owned = owned();
        let parent = owned.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap();
        assert!(parent.remove(element).is_some(), "{element} at {pointer}");
        lost(&intent(), &owned)
    }

    #[test]
    fn each_kind_of_loss_is_seen_and_named() {
        let container = "/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"agent\"}";
        let cases: [(&str, &str, &[&str]); 9] = [
            ("/f:spec", "f:replicas", &["spec.replicas"]),
            ("/f:spec", "f:selector", &["spec.selector"]),
            (
                "/f:metadata/f:annotations",
                "f:vertice.io/applied-hash",
                &["metadata.annotations.vertice.io/applied-hash"],
            ),
            ("/f:metadata", "f:labels", &["metadata.labels"]),
            ("/f:metadata/f:ownerReferences", "k:{\"uid\":\"u-1\"}", &["metadata.ownerReferences[0]"]),
            (container, "f:image", &["spec.template.spec.containers[name=agent].image"]),
            (container, "f:args", &["spec.template.spec.containers[name=agent].args"]),
            (
                "/f:spec/f:template/f:spec/f:volumes/k:{\"name\":\"tmp\"}",
                "f:emptyDir",
                &["spec.template.spec.volumes[name=tmp].emptyDir"],
            ),
            ("", "f:spec", &["spec"]),
        ];
        for (pointer, element, expected) in cases {
            assert_eq!(without(pointer, element), expected, "{element} at {pointer}");
        }
    }

    #[test]
    fn a_list_item_that_was_removed_or_replaced_is_lost() {
        let mut owned = owned();
        let containers = owned.pointer_mut("/f:spec/f:template/f:spec/f:containers").unwrap();
        *containers = json!({"k:{\"name\":\"other\"}": {".": {}}});
        assert_eq!(lost(&intent(), &owned), ["spec.template.spec.containers[0]"]);
    }
}
