//! When the API server refuses an object for good: a condition, not an endless retry.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt as _;
use vertice_controller::apply::{ApplyError, describe};

/// What stands in the way (another object, a policy, a quota) is not watched, so it is looked at again now and then.
pub(crate) const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// Why an object cannot be made.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The reason of the Ready condition.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
    /// When to try again.
    pub(crate) retry_at: Timestamp,
}

/// Tells a refusal from an error that passes. `existed`: whether the object was there already.
pub(crate) fn refusal(error: ApplyError, existed: bool, now: Timestamp) -> Result<Refusal, ApplyError> {
    let reason = match &error {
        ApplyError::Foreign { .. } => "NameTaken",
        // A field of a new object can only belong to someone else's object of that name.
        ApplyError::Conflict { .. } if !existed && error.is_about_ownership() => "NameTaken",
        ApplyError::Forbidden { .. } => "Forbidden",
        ApplyError::Invalid { .. } => "Refused",
        _ => return Err(error),
    };
    let message = match &error {
        ApplyError::Conflict { object, .. } => {
            format!("{object} exists already and was not made by this operator: rename or delete it")
        }
        other => other.to_string(),
    };
    Ok(Refusal { reason, message, retry_at: retry_at(now) })
}

/// A CronJob that is being deleted starts nothing, and only when it is gone can it be made again.
pub(crate) fn terminating(cronjob: &CronJob, now: Timestamp) -> Refusal {
    let object = describe::<CronJob>(&cronjob.metadata);
    let held = match cronjob.finalizers() {
        [] => String::new(),
        finalizers => format!(" and waits for its finalizers {}", finalizers.join(", ")),
    };
    let message = format!("{object} is being deleted{held}: no run starts until it is gone and made again");
    Refusal { reason: "CronJobTerminating", message, retry_at: retry_at(now) }
}

fn retry_at(now: Timestamp) -> Timestamp {
    now.saturating_add(LOOK_AGAIN).unwrap_or(now)
}

/// As [`refusal`], for an object that was to be made without server-side apply.
pub(crate) fn refused(object: &str, error: &kube::Error) -> Option<(&'static str, String)> {
    let kube::Error::Api(status) = error else { return None };
    let reason = match status.code {
        403 => "Forbidden",
        400 | 422 => "Refused",
        _ => return None,
    };
    Some((reason, format!("{object} may not be made: {}", status.message)))
}
