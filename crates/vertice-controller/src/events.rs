//! Events that people see in `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::text::{chain, shorten};

/// The API server refuses longer notes, reasons and actions.
const NOTE_MAX: usize = 1024;
const NAME_MAX: usize = 128;

/// One recorder a controller: it aggregates repeated events of one object and reason into one with a count. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// `controller` is shown as the event's source, for example `vertice-backup`; the instance is the pod's name.
    #[must_use]
    pub fn new(client: Client, controller: &str) -> Self {
        Self { recorder: Recorder::new(client, Reporter::from(controller)) }
    }

    /// Tells that something went as it should: `reason` is the outcome (`BackupSucceeded`), `action` what was done (`Backup`),
    /// both CamelCase; `note` is for people.
    pub async fn normal<K>(&self, object: &K, reason: &str, action: &str, note: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(EventType::Normal, &object.object_ref(&()), reason, action, note.into()).await;
    }

    /// Tells that something needs a person's eye. See [`Events::normal`].
    pub async fn warning<K>(&self, object: &K, reason: &str, action: &str, note: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(EventType::Warning, &object.object_ref(&()), reason, action, note.into()).await;
    }

    /// As [`Events::normal`] and [`Events::warning`], for a reference. An event that cannot be written is logged and no more:
    /// events are for people, and work does not stop because a note about it was refused.
    pub async fn publish(
        &self,
        type_: EventType,
        object: &ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let event = Event {
            type_,
            reason: shorten(reason.to_owned(), NAME_MAX),
            action: shorten(action.to_owned(), NAME_MAX),
            note: Some(shorten(note, NOTE_MAX)),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::warn!(reason, error = chain(&error), "an event could not be written");
        }
    }
}
