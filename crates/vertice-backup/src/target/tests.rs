use serde_json::{Value, json};
use vertice_api::vertice_io::Target;

use super::resolve;
use crate::testing::candidates;

const NAMESPACE: &str = include_str!("fixtures/namespace.yaml");

/// What a target resolves to, or why not, as one text a case.
fn told(case: &str, fields: &Value) -> String {
    let mut target = json!({"type": "postgresql", "name": case, "credentials": "secret"});
    target.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let target: Target = serde_json::from_value(target).unwrap();
    let answer = match resolve(&target, "shop", "spec.target", &candidates(NAMESPACE)) {
        Ok(found) => {
            let (host, port, image) = (found.host, found.port, found.image);
            format!("{host}:{port} image {image} pull {:?}", found.pull_secrets)
        }
        Err(error) => format!("{}: {error}", error.reason()),
    };
    format!("{case} {fields}\n    {answer}")
}

#[test]
fn a_name_becomes_an_address_and_an_image_or_a_reason() {
    let cases = [
        told("db", &json!({})),
        told("db", &json!({"port": 9187})),
        told("db", &json!({"image": "mine:1"})),
        told("db-server", &json!({})),
        told("db-server", &json!({"port": 6002})),
        told("db-server", &json!({"kind": "StatefulSet", "image": "mine:2", "port": 6099})),
        told("db-server", &json!({"kind": "Deployment"})),
        told("web-db", &json!({})),
        told("web", &json!({})),
        told("twice", &json!({})),
        told("twice-b", &json!({})),
        told("lonely", &json!({})),
        told("many-ports", &json!({})),
        told("many-ports", &json!({"port": 6008})),
        told("usual-port", &json!({})),
        told("external", &json!({})),
        told("external", &json!({"image": "mine:3"})),
        told("mixed", &json!({})),
        told("mixed-new", &json!({})),
        told("unclear", &json!({})),
        told("both", &json!({})),
        told("both", &json!({"kind": "StatefulSet"})),
        told("missing", &json!({})),
        told("missing", &json!({"kind": "Service"})),
        told("outside", &json!({"host": "db.example.com", "image": "mine:4"})),
        told("outside", &json!({"host": "db.example.com", "image": "mine:5", "port": 6100})),
        told("outside", &json!({"host": "db.example.com"})),
        told("db", &json!({"port": 70000})),
    ];
    insta::assert_snapshot!(cases.join("\n"));
}
