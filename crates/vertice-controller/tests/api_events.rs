//! Events as a real API server keeps them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use k8s_openapi::api::{core::v1::ObjectReference, events::v1::Event as Told};
use kube::{Resource as _, api::ListParams};
use serde_json::json;
use support::Cluster;
use vertice_controller::events::{Event, EventType};

fn failed(run: &str, note: &str) -> Event {
    let job = ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        name: Some(run.into()),
        uid: Some(format!("uid-{run}")),
        ..ObjectReference::default()
    };
    Event {
        type_: EventType::Warning,
        reason: "RunFailed".into(),
        action: "Backup".into(),
        note: Some(note.into()),
        secondary: Some(job),
    }
}

#[tokio::test]
async fn a_second_event_of_a_reason_is_told_in_its_own_words() {
    let cluster = Cluster::connect("events").await;
    let object = cluster.put("object", json!({})).await.object_ref(&());
    let events = cluster.context("test").events;
    for (run, note) in [
        ("run-1", "wrong password"),
        ("run-2", "no space left"),
        ("run-2", "no such bucket"),
        ("run-1", "wrong password"),
        ("run-2", "wrong password"),
    ] {
        events.publish(failed(run, note), &object).await;
    }
    let told = cluster.api::<Told>(&cluster.other).list(&ListParams::default()).await.unwrap();
    let mut told: Vec<_> = told
        .items
        .into_iter()
        .map(|event| {
            let run = event.related.and_then(|job| job.name).unwrap_or_default();
            (run, event.note.unwrap_or_default(), event.series.map_or(1, |series| series.count))
        })
        .collect();
    told.sort();
    let expected = [
        ("run-1", "wrong password", 2),
        ("run-2", "no space left", 1),
        ("run-2", "no such bucket", 1),
        ("run-2", "wrong password", 1),
    ];
    assert_eq!(told, expected.map(|(run, note, count)| (run.to_owned(), note.to_owned(), count)));
}
