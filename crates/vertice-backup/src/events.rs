//! Events as a plan wants them told.

use k8s_openapi::api::core::v1::ObjectReference;
use vertice_controller::events::{Event, EventType, Events};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedEvent {
    /// Whether a person should look.
    pub(crate) warning: bool,
    /// The outcome, CamelCase.
    pub(crate) reason: String,
    /// What was done, CamelCase.
    pub(crate) action: &'static str,
    /// For people.
    pub(crate) note: String,
}

impl PlannedEvent {
    /// Something went as it should.
    pub(crate) fn normal(reason: impl Into<String>, action: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), action, note: note.into() }
    }

    /// Something needs a person's eye.
    pub(crate) fn warning(reason: impl Into<String>, action: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, action, note) }
    }
}

/// Tells them. Called after the status that holds the same news was written: a status that was refused as outdated tells nothing,
/// so nothing is told twice.
pub(crate) async fn tell(events: &Events, object: &ObjectReference, planned: Vec<PlannedEvent>) {
    for PlannedEvent { warning, reason, action, note } in planned {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, action: action.to_owned(), note: Some(note), secondary: None };
        events.publish(event, object).await;
    }
}
