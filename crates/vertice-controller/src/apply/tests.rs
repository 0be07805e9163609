use std::sync::Mutex as StdMutex;

use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use serde_json::json;

use super::*;
use crate::{
    metrics::Metrics,
    testing::{FakeServer, Seen},
};

/// One object, kept as an API server keeps it: fields have managers.
#[derive(Debug, Default)]
struct Server {
    object: Option<Value>,
    applies: u64,
    /// A field that the server drops from every write, as with a feature that is off.
    drops: Option<&'static str>,
}

impl Server {
    fn apply(&mut self, seen: &Seen) -> (u16, Value) {
        let mut object = seen.body.clone();
        if let Some(field) = self.drops {
            object["data"].as_object_mut().unwrap().remove(field);
        }
        let names = |value: &Value| -> Value {
            let names =
                value.as_object().into_iter().flatten().map(|(name, _)| (format!("f:{name}"), json!({})));
            Value::Object(names.collect())
        };
        let fields = json!({
            "f:metadata": {"f:annotations": names(&object["metadata"]["annotations"])},
            "f:data": names(&object["data"]),
        });
        object["metadata"]["uid"] = "u-1".into();
        self.applies += 1;
        // Of two and three digits: versions are numbers, not words.
        object["metadata"]["resourceVersion"] = (98 + self.applies).to_string().into();
        object["metadata"]["managedFields"] = json!([
            {"manager": "vertice-test", "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields},
            {"manager": "kubectl-edit", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:theirs": {}}}},
        ]);
        self.object = Some(object.clone());
        (200, object)
    }
}

struct Setup {
    server: Arc<StdMutex<Server>>,
    fake: FakeServer,
    applier: Applier,
    metrics: ControllerMetrics,
    owner: ConfigMap,
}

impl Setup {
    fn new() -> Self {
        let server = Arc::new(StdMutex::new(Server::default()));
        let state = Arc::clone(&server);
        let fake = FakeServer::new(move |seen| match seen.uri.as_str() {
            uri if uri.contains("/events") => (201, seen.body.clone()),
            _ if seen.method == http::Method::PATCH => state.lock().unwrap().apply(seen),
            _ => (200, state.lock().unwrap().object.clone().unwrap()),
        });
        let metrics = Metrics::new().controller("test");
        let applier =
            Applier::new("vertice-test", Events::new(fake.client(), "vertice-test"), metrics.clone());
        let owner =
            serde_json::from_value(json!({"metadata": {"name": "owner", "namespace": "ns", "uid": "u-0"}}))
                .unwrap();
        Self { server, fake, applier, metrics, owner }
    }

    async fn apply(
        &self,
        data: Value,
        observed: Option<&ObjectMeta>,
    ) -> Result<Applied<ConfigMap>, ApplyError> {
        let intent: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "ns"}, "data": data}))
                .unwrap();
        let api = Api::namespaced(self.fake.client(), "ns");
        self.applier.apply(&api, &self.owner, &intent, observed).await
    }

    /// The object's metadata as a cache holds it.
    fn observed(&self) -> ObjectMeta {
        let object = self.server.lock().unwrap().object.clone().unwrap();
        let mut metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
        prune(&mut metadata, "vertice-test");
        metadata
    }

    /// Someone changes the object: `change` gets it with its managed fields.
    fn meddle(&self, change: impl FnOnce(&mut Value)) {
        change(self.server.lock().unwrap().object.as_mut().unwrap());
    }

    /// A controller that was started anew: same server, nothing remembered.
    fn restarted(self) -> Self {
        let events = Events::new(self.fake.client(), "vertice-test");
        let applier = Applier::new("vertice-test", events, self.metrics.clone());
        Self { applier, ..self }
    }

    fn requests(&self) -> usize {
        self.fake.seen().len()
    }
}

fn take(object: &mut Value, pointer: &str, name: &str) {
    object.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().remove(name).unwrap();
}

#[tokio::test]
async fn an_unchanged_object_costs_no_request_also_after_a_restart() {
    let setup = Setup::new();
    let made = setup.apply(json!({"x": "1"}), None).await.unwrap();
    assert!(matches!(made, Applied::Created(_)));
    assert_eq!(setup.requests(), 1);
    assert!(!setup.fake.seen()[0].uri.contains("force=true"), "nothing is taken over unseen");
    let observed = setup.observed();
    assert_eq!(setup.apply(json!({"x": "1"}), Some(&observed)).await.unwrap(), Applied::Unchanged);
    let setup = setup.restarted();
    assert_eq!(setup.apply(json!({"x": "1"}), Some(&observed)).await.unwrap(), Applied::Unchanged);
    assert_eq!(setup.requests(), 1);
}

#[tokio::test]
async fn a_cache_that_has_not_seen_our_last_apply_is_behind() {
    let setup = Setup::new();
    setup.apply(json!({"x": "1"}), None).await.unwrap();
    let before = setup.observed();
    assert!(!setup.applier.is_behind(&before));
    setup.apply(json!({"x": "2"}), Some(&before)).await.unwrap();
    assert!(setup.applier.is_behind(&before));
    assert!(!setup.applier.is_behind(&setup.observed()));
    let another = ObjectMeta { uid: Some("u-2".into()), ..before };
    assert!(!setup.applier.is_behind(&another), "made anew by someone else");
}

#[tokio::test]
async fn a_new_intent_is_sent_and_is_no_drift() {
    let setup = Setup::new();
    setup.apply(json!({"x": "1"}), None).await.unwrap();
    let updated = setup.apply(json!({"x": "2", "y": "3"}), Some(&setup.observed())).await.unwrap();
    assert!(matches!(updated, Applied::Updated(_)));
    assert!(setup.fake.seen()[1].uri.contains("force=true"));
    assert_eq!(setup.metrics.drift("configmaps"), 0);
}

#[tokio::test]
async fn drift_is_corrected_counted_and_told() {
    let setup = Setup::new();
    setup.apply(json!({"x": "1", "y": "2"}), None).await.unwrap();
    setup.meddle(|object| take(object, "/metadata/managedFields/0/fieldsV1/f:data", "f:y"));
    let corrected = setup.apply(json!({"x": "1", "y": "2"}), Some(&setup.observed())).await.unwrap();
    let Applied::Corrected(_, fields) = corrected else { panic!("{corrected:?}") };
    assert_eq!(fields, ["data.y"]);
    assert_eq!(setup.metrics.drift("configmaps"), 1);
    let seen = setup.fake.seen();
    let event: Event = serde_json::from_value(seen.last().unwrap().body.clone()).unwrap();
    assert_eq!(event.reason.as_deref(), Some("DriftCorrected"));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(event.regarding.unwrap().name.as_deref(), Some("owner"));
    assert_eq!(
        event.note.as_deref(),
        Some("ConfigMap ns/a was changed by someone else and set right: data.y")
    );
    assert_eq!(
        setup.apply(json!({"x": "1", "y": "2"}), Some(&setup.observed())).await.unwrap(),
        Applied::Unchanged
    );
}

#[tokio::test]
async fn what_others_own_and_the_status_are_no_drift() {
    let setup = Setup::new();
    setup.apply(json!({"x": "1"}), None).await.unwrap();
    setup.meddle(|object| {
        object["metadata"]["labels"] = json!({"team": "shop"});
        object["metadata"]["resourceVersion"] = "77".into();
        object["status"] = json!({"ready": true});
    });
    assert_eq!(setup.apply(json!({"x": "1"}), Some(&setup.observed())).await.unwrap(), Applied::Unchanged);
    assert_eq!(setup.requests(), 1);
}

#[tokio::test]
async fn an_object_whose_managed_fields_were_cleared_is_still_ours() {
    let setup = Setup::new();
    setup.apply(json!({"x": "1"}), None).await.unwrap();
    setup.meddle(|object| object["metadata"]["managedFields"] = json!([]));
    let updated = setup.apply(json!({"x": "1"}), Some(&setup.observed())).await.unwrap();
    assert!(matches!(updated, Applied::Updated(_)));
}

#[tokio::test]
async fn someone_elses_object_is_left_alone() {
    let setup = Setup::new();
    let theirs =
        ObjectMeta { name: Some("a".into()), managed_fields: Some(Vec::new()), ..ObjectMeta::default() };
    let error = setup.apply(json!({"x": "1"}), Some(&theirs)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ConfigMap ns/a exists already and was not made by vertice-test: rename or delete it"
    );
    assert_eq!(setup.requests(), 0);
}

#[tokio::test]
async fn an_object_that_is_being_deleted_is_left_alone() {
    let setup = Setup::new();
    setup.apply(json!({"x": "1"}), None).await.unwrap();
    setup.meddle(|object| object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    assert_eq!(setup.apply(json!({"x": "2"}), Some(&setup.observed())).await.unwrap(), Applied::Terminating);
    assert_eq!(setup.requests(), 1);
}

#[tokio::test]
async fn a_field_that_the_server_drops_is_not_fought_over() {
    let setup = Setup::new();
    setup.server.lock().unwrap().drops = Some("y");
    setup.apply(json!({"x": "1", "y": "2"}), None).await.unwrap();
    let again = setup.apply(json!({"x": "1", "y": "2"}), Some(&setup.observed())).await.unwrap();
    assert_eq!(again, Applied::Unchanged);
}

#[tokio::test]
async fn metadata_without_managed_fields_costs_one_read_and_no_write() {
    let setup = Setup::new();
    setup.apply(json!({"x": "1"}), None).await.unwrap();
    let observed = ObjectMeta { managed_fields: None, ..setup.observed() };
    assert_eq!(setup.apply(json!({"x": "1"}), Some(&observed)).await.unwrap(), Applied::Unchanged);
    let seen = setup.fake.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].method, http::Method::GET);
}

#[tokio::test]
async fn a_status_is_written_only_when_it_changed_and_only_over_what_was_seen() {
    let setup = Setup::new();
    let mut object = setup.owner.clone();
    object.metadata.resource_version = Some("41".into());
    let api: Api<ConfigMap> = Api::namespaced(setup.fake.client(), "ns");
    let status = json!({"phase": "Ready"});
    assert!(!setup.applier.status(&api, &object, Some(&status), &status).await.unwrap());
    assert_eq!(setup.requests(), 0);
    assert!(setup.applier.status(&api, &object, None, &status).await.unwrap());
    assert!(setup.applier.status(&api, &object, Some(&json!({"phase": "Running"})), &status).await.unwrap());
    let seen = setup.fake.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].uri.starts_with("/api/v1/namespaces/ns/configmaps/owner/status?"));
    assert_eq!(seen[0].body["metadata"]["resourceVersion"], "41");
    assert_eq!(seen[0].body["status"], status);
}
