//! Events as a plan wants them told.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
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
    /// The run's Job, if it is about one run.
    pub(crate) job: Option<JobName>,
}

/// A Job of the object's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobName {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl PlannedEvent {
    /// Something went as it should.
    pub(crate) fn normal(reason: impl Into<String>, action: &'static str, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), action, note: note.into(), job: None }
    }

    /// Something needs a person's eye.
    pub(crate) fn warning(reason: impl Into<String>, action: &'static str, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, action, note) }
    }

    /// The event is about a run of this Job, too.
    pub(crate) fn of(self, name: &str, uid: &str) -> Self {
        Self { job: Some(JobName { name: name.to_owned(), uid: uid.to_owned() }), ..self }
    }
}

/// Tells them. Called after the status that holds the same news was written: a status that was refused as outdated tells nothing,
/// so nothing is told twice.
pub(crate) async fn tell(events: &Events, object: &ObjectReference, planned: Vec<PlannedEvent>) {
    for PlannedEvent { warning, reason, action, note, job } in planned {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let secondary = job.map(|JobName { name, uid }| ObjectReference {
            api_version: Some(Job::api_version(&()).into_owned()),
            kind: Some(Job::kind(&()).into_owned()),
            namespace: object.namespace.clone(),
            name: Some(name),
            uid: Some(uid),
            ..ObjectReference::default()
        });
        let event = Event { type_, reason, action: action.to_owned(), note: Some(note), secondary };
        events.publish(event, object).await;
    }
}
