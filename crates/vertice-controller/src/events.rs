//! Events that people see in `kubectl describe`.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
pub use kube::runtime::events::{Event, EventType};
use kube::{
    Client, Resource,
    runtime::events::{Recorder, Reporter},
};
use tokio::time::Instant;

use crate::text::{chain, shorten};

/// The API server refuses longer notes, reasons and actions.
const NOTE_MAX: usize = 1024;
const NAME_MAX: usize = 128;

/// How long kube's recorder remembers an event to count its repetitions.
const REMEMBERED: Duration = Duration::from_mins(6);

/// What tells a controller's events: what is told again within six minutes in the same words is counted in one event. Cheap to
/// clone.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorders: Arc<Mutex<HashMap<String, Used>>>,
}

/// A recorder and when it was last used.
struct Used {
    recorder: Recorder,
    at: Instant,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("reporter", &self.reporter).finish_non_exhaustive()
    }
}

impl Events {
    /// `controller` is shown as the event's source, for example `vertice-backup`; the instance is the pod's name.
    #[must_use]
    pub fn new(client: Client, controller: &str) -> Self {
        Self { client, reporter: Reporter::from(controller), recorders: Arc::default() }
    }

    /// Tells that something went as it should: `reason` is the outcome (`BackupSucceeded`), `action` what was done (`Backup`),
    /// both CamelCase; `note` is for people.
    pub async fn normal<K>(&self, object: &K, reason: &str, action: &str, note: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(event(EventType::Normal, reason, action, note.into()), &object.object_ref(&())).await;
    }

    /// Tells that something needs a person's eye. See [`Events::normal`].
    pub async fn warning<K>(&self, object: &K, reason: &str, action: &str, note: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(event(EventType::Warning, reason, action, note.into()), &object.object_ref(&())).await;
    }

    /// As [`Events::normal`] and [`Events::warning`], for a reference. `secondary` is the other object that the event is about, for
    /// example the Job of the run that failed; it shows as `related`. An event that cannot be written is logged and no more:
    /// events are for people, and work does not stop because a note about it was refused.
    pub async fn publish(&self, event: Event, object: &ObjectReference) {
        let Event { type_, reason, action, note, secondary } = event;
        let event = Event {
            type_,
            reason: shorten(reason, NAME_MAX),
            action: shorten(action, NAME_MAX),
            note: note.map(|note| shorten(note, NOTE_MAX)),
            secondary,
        };
        let recorder = self.recorder(event.note.clone().unwrap_or_default());
        if let Err(error) = recorder.publish(&event, object).await {
            tracing::warn!(reason = event.reason, error = chain(&error), "an event could not be written");
        }
    }

    /// The recorder for a note. There is one for each, because a recorder does not look at the note when it takes an event for a
    /// repetition: the second of two failures would be told in the words of the first. (Nor could it be given new words: the API
    /// server refuses to change an event's note.)
    fn recorder(&self, note: String) -> Recorder {
        let now = Instant::now();
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|_, used| now.duration_since(used.at) < REMEMBERED);
        let used = recorders.entry(note).or_insert_with(|| Used {
            recorder: Recorder::new(self.client.clone(), self.reporter.clone()),
            at: now,
        });
        used.at = now;
        used.recorder.clone()
    }
}

fn event(type_: EventType, reason: &str, action: &str, note: String) -> Event {
    Event { type_, reason: reason.to_owned(), action: action.to_owned(), note: Some(note), secondary: None }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{FakeServer, config_map};

    fn server() -> FakeServer {
        FakeServer::new(|seen| (200, seen.body.clone()))
    }

    #[tokio::test(start_paused = true)]
    async fn recorders_are_forgotten_when_nothing_was_told_for_as_long_as_they_remember() {
        let server = server();
        let events = Events::new(server.client(), "vertice-test");
        let object: ConfigMap = serde_json::from_value(config_map("a", 1)).unwrap();
        for note in ["one", "two", "one"] {
            events.normal(&object, "Done", "Do", note).await;
        }
        assert_eq!(events.recorders.lock().unwrap().len(), 2);
        let methods: Vec<_> = server.seen().into_iter().map(|seen| seen.method).collect();
        assert_eq!(methods, [Method::POST, Method::POST, Method::PATCH]);
        tokio::time::advance(REMEMBERED).await;
        events.normal(&object, "Done", "Do", "three").await;
        assert_eq!(events.recorders.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_the_api_server_would_refuse_is_shortened() {
        let server = server();
        let events = Events::new(server.client(), "vertice-test");
        let object: ConfigMap = serde_json::from_value(config_map("a", 1)).unwrap();
        events.warning(&object, &"R".repeat(300), &"A".repeat(300), "n".repeat(3000)).await;
        let body = server.seen().remove(0).body;
        let length = |field: &str| body[field].as_str().map(str::len).unwrap_or_default();
        assert!(length("reason") <= NAME_MAX && length("action") <= NAME_MAX && length("note") <= NOTE_MAX);
        assert_eq!((&body["type"], &body["related"]), (&json!("Warning"), &Value::Null));
    }
}
