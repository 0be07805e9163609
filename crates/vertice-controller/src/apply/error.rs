//! Why a write was refused, in a shape that a controller can act on and a person can read.

use std::{error::Error, fmt};

use kube::core::Status;
use snafu::Snafu;

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field's path, for example `spec.schedule`; empty when the server named none.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

/// A write failed. `object` reads like `CronJob shop/nightly`.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum ApplyError {
    /// Someone else changed the object at the same time, or owns a field of it.
    #[snafu(display("{object} was changed by someone else meanwhile: {message}"))]
    Conflict {
        /// Which object.
        object: String,
        /// What the server said.
        message: String,
        /// The server's answer.
        source: Box<kube::Error>,
    },
    /// The controller's account lacks a right, or a policy or quota forbids the object.
    #[snafu(display("{object} may not be written: {message}"))]
    Forbidden {
        /// Which object.
        object: String,
        /// What the server said.
        message: String,
        /// The server's answer.
        source: Box<kube::Error>,
    },
    /// The object is not valid, or changes what may not change.
    #[snafu(display("{object} was refused as invalid: {}", join(fields)))]
    Invalid {
        /// Which object.
        object: String,
        /// What is wrong; at least one entry.
        fields: Vec<FieldError>,
        /// The server's answer.
        source: Box<kube::Error>,
    },
    /// The object, its namespace, or its kind does not exist.
    #[snafu(display("{object} could not be written as something is missing: {message}"))]
    NotFound {
        /// Which object.
        object: String,
        /// What the server said.
        message: String,
        /// The server's answer.
        source: Box<kube::Error>,
    },
    /// An object of this name was made by someone else. It is left alone.
    #[snafu(display("{object} exists already and was not made by {manager}: rename or delete it"))]
    Foreign {
        /// Which object.
        object: String,
        /// Who we are.
        manager: String,
    },
    /// Anything else, for example no answer.
    #[snafu(display("{object} could not be written"))]
    Failed {
        /// Which object.
        object: String,
        /// What happened.
        source: Box<kube::Error>,
    },
    /// An object could not be turned into JSON.
    #[snafu(display("{object} could not be serialised"))]
    Serialize {
        /// Which object.
        object: String,
        /// What happened.
        source: serde_json::Error,
    },
}

fn join(fields: &[FieldError]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ApplyError {
    /// Whether it is a conflict with others who own fields, which no retry can mend, and not one with a write at the same time.
    #[must_use]
    pub fn is_about_ownership(&self) -> bool {
        let Self::Conflict { source, .. } = self else { return false };
        let kube::Error::Api(status) = source.as_ref() else { return false };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.reason == "FieldManagerConflict")
    }

    pub(crate) fn from_kube(object: String, error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else {
            return Self::Failed { object, source: Box::new(error) };
        };
        let message = status.message.clone();
        let fields = field_errors(status);
        let source = Box::new(error);
        let kube::Error::Api(status) = source.as_ref() else { return Self::Failed { object, source } };
        match status.code {
            404 => Self::NotFound { object, message, source },
            409 => Self::Conflict { object, message, source },
            401 | 403 => Self::Forbidden { object, message, source },
            400 | 422 => Self::Invalid { object, fields, source },
            _ => Self::Failed { object, source },
        }
    }
}

/// What the server said about single fields; the whole message when it named none.
fn field_errors(status: &Status) -> Vec<FieldError> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<_> = causes
        .map(|cause| FieldError { field: cause.field.clone(), message: cause.message.clone() })
        .collect();
    if fields.is_empty() {
        return vec![FieldError { field: String::new(), message: status.message.clone() }];
    }
    fields
}

/// Whether an error is, or was caused by, the API server's 409: the work was based on an outdated copy.
#[must_use]
pub fn is_conflict(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kube = error
            .downcast_ref::<kube::Error>()
            .or_else(|| error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref));
        if let Some(kube::Error::Api(status)) = kube {
            return status.code == 409;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn error(code: u16, message: &str, causes: &[(&str, &str)]) -> ApplyError {
        let causes = causes
            .iter()
            .map(|(field, message)| StatusCause {
                reason: String::new(),
                field: (*field).into(),
                message: (*message).into(),
            })
            .collect();
        let details = StatusDetails {
            name: "nightly".into(),
            group: "batch".into(),
            kind: "CronJob".into(),
            uid: String::new(),
            causes,
            retry_after_seconds: 0,
        };
        let status = Status { code, message: message.into(), details: Some(details), ..Status::default() };
        ApplyError::from_kube("CronJob shop/nightly".into(), kube::Error::Api(status.boxed()))
    }

    #[test]
    fn each_refusal_reads_well() {
        let server = "cronjobs.batch \"nightly\" is invalid: …";
        let errors = [
            error(
                422,
                server,
                &[("spec.schedule", "Invalid value: \"x\""), ("spec.timeZone", "unknown time zone Mars")],
            ),
            error(422, server, &[]),
            error(403, "cronjobs.batch is forbidden: no create", &[]),
            error(409, "Apply failed with 1 conflict", &[]),
            error(404, "namespaces \"shop\" not found", &[]),
            error(500, "etcd is away", &[]),
            ApplyError::Foreign { object: "CronJob shop/nightly".into(), manager: "vertice-backup".into() },
        ];
        let text: Vec<_> = errors.iter().map(|error| crate::text::chain(error)).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn a_conflict_about_ownership_is_told_from_one_that_passes() {
        let status = serde_json::json!({"code": 409, "details": {"causes": [{
            "reason": "FieldManagerConflict", "field": ".spec.schedule", "message": "conflict with \"kubectl\"",
        }]}});
        let status: Status = serde_json::from_value(status).unwrap();
        let conflict = ApplyError::from_kube("CronJob shop/nightly".into(), kube::Error::Api(status.boxed()));
        assert!(conflict.is_about_ownership());
        assert!(!error(409, "the object has been modified", &[]).is_about_ownership());
    }

    #[derive(Debug, Snafu)]
    #[snafu(display("outer"))]
    struct Wrapped {
        source: ApplyError,
    }

    #[test]
    fn a_conflict_is_recognised_through_layers() {
        assert!(is_conflict(&error(409, "no", &[])));
        assert!(!is_conflict(&error(403, "no", &[])));
        assert!(!is_conflict(&std::io::Error::other("no")));
        assert!(is_conflict(&Wrapped { source: error(409, "no", &[]) }));
    }
}
