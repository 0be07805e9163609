//! Server-side apply against a real API server: its own idea of field ownership, defaults and versions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use k8s_openapi::{
    api::{batch::v1::CronJob, core::v1::ConfigMap, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use support::Cluster;
use vertice_controller::{
    Context,
    apply::{self, Applied, ApplyError},
};

/// With all that makes comparing values hard: defaults, quantities, keyed lists, empty maps, ports without a protocol.
fn intent(owner: &ConfigMap) -> CronJob {
    let mut cron_job: CronJob = serde_json::from_value(json!({
        "metadata": {"name": "nightly", "namespace": owner.namespace(), "labels": {"app.kubernetes.io/component": "job"}},
        "spec": {"schedule": "0 2 * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "containers": [{
                "name": "agent", "image": "registry.local/agent", "args": ["backup"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
        }}}}},
    }))
    .unwrap();
    cron_job.metadata.owner_references = owner.controller_owner_ref(&()).map(|reference| vec![reference]);
    cron_job
}

struct Setup {
    cluster: Cluster,
    context: Context,
    api: Api<CronJob>,
    owner: ConfigMap,
}

impl Setup {
    async fn new(test: &str) -> Self {
        let cluster = Cluster::connect(test).await;
        let context = cluster.context("test");
        let owner = cluster.put("owner", json!({})).await;
        let api = cluster.api(&context.client);
        Self { cluster, context, api, owner }
    }

    /// As a cache that is up to date holds it.
    async fn observed(&self) -> ObjectMeta {
        let mut metadata = self.api.get_metadata("nightly").await.unwrap().metadata;
        apply::prune(&mut metadata, "vertice-test");
        metadata
    }

    async fn apply(&self, observed: Option<&ObjectMeta>) -> Result<Applied<CronJob>, ApplyError> {
        // A new applier each time: nothing may hang on its memory.
        let context = self.cluster.context("test");
        let applied = context.applier.apply(&self.api, &self.owner, &intent(&self.owner), observed).await;
        assert_eq!(
            context.metrics.drift("cronjobs"),
            u64::from(matches!(applied, Ok(Applied::Corrected(..))))
        );
        applied
    }

    async fn meddle(&self, patch: serde_json::Value) {
        let api: Api<CronJob> = self.cluster.api(&self.cluster.other);
        api.patch("nightly", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    fn writes(&self) -> u64 {
        self.context.metrics.writes("cronjobs")
    }
}

#[tokio::test]
async fn nothing_is_sent_when_nothing_changed_and_drift_is_set_right() {
    let setup = Setup::new("drift").await;
    assert!(matches!(setup.apply(None).await.unwrap(), Applied::Created(_)));
    assert_eq!(setup.writes(), 1);
    let version = setup.observed().await.resource_version;

    assert_eq!(setup.apply(Some(&setup.observed().await)).await.unwrap(), Applied::Unchanged);
    assert_eq!(setup.writes(), 1, "our own counter");
    assert_eq!(setup.observed().await.resource_version, version, "the server's");

    // What we do not own is none of our business.
    setup.meddle(json!({"metadata": {"labels": {"team": "shop"}}, "spec": {"suspend": true}})).await;
    assert_eq!(setup.apply(Some(&setup.observed().await)).await.unwrap(), Applied::Unchanged);

    let container = |change: serde_json::Value| {
        let mut container = json!({"name": "agent"});
        container.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [container]}}}}}})
    };
    let path = "spec.jobTemplate.spec.template.spec.containers[name=agent]";
    let cases = [
        (json!({"spec": {"schedule": "1 1 * * *"}}), "spec.schedule".to_owned()),
        (container(json!({"image": "registry.local/evil"})), format!("{path}.image")),
        (container(json!({"args": ["restore"]})), format!("{path}.args")),
        (container(json!({"env": [{"name": "A", "$patch": "delete"}]})), format!("{path}.env[0]")),
        (
            container(json!({"resources": {"requests": {"cpu": "2"}}})),
            format!("{path}.resources.requests.cpu"),
        ),
        (
            json!({"metadata": {"labels": {"app.kubernetes.io/component": null}}}),
            "metadata.labels".to_owned(),
        ),
        (
            json!({"metadata": {"ownerReferences": [{"$patch": "replace"}]}}),
            "metadata.ownerReferences".to_owned(),
        ),
    ];
    for (patch, field) in cases {
        setup.meddle(patch.clone()).await;
        let applied = setup.apply(Some(&setup.observed().await)).await.unwrap();
        let Applied::Corrected(object, fields) = applied else { panic!("{patch}: {applied:?}") };
        assert!(fields.iter().any(|name| name.starts_with(&field)), "{patch}: {fields:?}");
        assert_eq!(object.spec.schedule, "0 2 * * *");
        let again = setup.apply(Some(&setup.observed().await)).await.unwrap();
        assert_eq!(again, Applied::Unchanged, "{patch}");
    }

    let events: Api<Event> = setup.cluster.api(&setup.cluster.other);
    let told = events.list(&ListParams::default()).await.unwrap();
    assert!(told.iter().any(|event| event.reason.as_deref() == Some("DriftCorrected")
        && event.note.as_deref().is_some_and(|note| note.ends_with("set right: spec.schedule"))));
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone_seen_or_not() {
    let setup = Setup::new("foreign").await;
    let mut theirs = intent(&setup.owner);
    theirs.metadata.owner_references = None;
    theirs.spec.schedule = "5 5 * * *".into();
    let api: Api<CronJob> = setup.cluster.api(&setup.cluster.other);
    api.create(&PostParams::default(), &theirs).await.unwrap();
    let unseen = setup.apply(None).await.unwrap_err();
    assert!(matches!(unseen, ApplyError::Conflict { .. }), "{unseen:?}");
    let seen = setup.apply(Some(&setup.observed().await)).await.unwrap_err();
    assert!(matches!(seen, ApplyError::Foreign { .. }), "{seen:?}");
    assert_eq!(api.get("nightly").await.unwrap().spec.schedule, "5 5 * * *");
}

#[tokio::test]
async fn an_invalid_object_is_refused_with_its_fields() {
    let setup = Setup::new("invalid").await;
    let mut wrong = intent(&setup.owner);
    wrong.spec.schedule = "every night".into();
    let error = setup.context.applier.apply(&setup.api, &setup.owner, &wrong, None).await.unwrap_err();
    let ApplyError::Invalid { fields, .. } = &error else { panic!("{error:?}") };
    assert_eq!(fields[0].field, "spec.schedule");
    let object =
        format!("CronJob {}/nightly was refused as invalid: spec.schedule: ", setup.cluster.namespace);
    assert!(error.to_string().starts_with(&object), "{error}");
}

#[tokio::test]
async fn a_status_computed_from_an_outdated_copy_is_refused() {
    let setup = Setup::new("status").await;
    setup.apply(None).await.unwrap();
    let old = setup.api.get("nightly").await.unwrap();
    let status = |time: &str| json!({"lastScheduleTime": time});
    let applier = &setup.context.applier;
    let first = status("2026-01-01T00:00:00Z");
    assert!(applier.status(&setup.api, &old, None, &first).await.unwrap());
    let error = applier.status(&setup.api, &old, None, &status("2026-01-02T00:00:00Z")).await.unwrap_err();
    assert!(apply::is_conflict(&error), "{error:?}");
    let writes = setup.context.metrics.writes("cronjobs/status");
    let new = setup.api.get("nightly").await.unwrap();
    assert!(!applier.status(&setup.api, &new, Some(&first), &first).await.unwrap());
    assert_eq!(setup.context.metrics.writes("cronjobs/status"), writes);
    // Writing the status is no change of ours to the object.
    assert_eq!(setup.apply(Some(&setup.observed().await)).await.unwrap(), Applied::Unchanged);
}
