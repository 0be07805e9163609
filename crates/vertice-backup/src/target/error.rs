//! Why a target was not found.

use snafu::Snafu;

/// Why a target could not be resolved. `field` is the path of the target, such as `spec.target`.
#[derive(Clone, Debug, PartialEq, Eq, Snafu)]
#[snafu(visibility(pub(super)))]
pub(crate) enum TargetError {
    #[snafu(display(
        "{field}.name: there is no {wanted} {name:?} in namespace {namespace}; correct the name, create it, or set \
         {field}.host and {field}.image (a new object is noticed by itself)"
    ))]
    NotFound { field: String, wanted: String, name: String, namespace: String },
    #[snafu(display(
        "{field}.name: no Service in namespace {namespace} selects the pods of Deployment {name:?}, so they have no \
         stable address; create a Service, or set {field}.host and {field}.image"
    ))]
    NoService { field: String, name: String, namespace: String },
    #[snafu(display(
        "{field}.name: StatefulSet {name:?} has no serviceName, so its pods have no stable address; name a Service \
         instead, or set {field}.host and {field}.image"
    ))]
    NoServiceName { field: String, name: String },
    #[snafu(display("{field}.name: the Services {} all select the pods of Deployment {name:?}; name one of them", found.join(", ")))]
    ManyServices { field: String, name: String, found: Vec<String> },
    #[snafu(display("{field}.port: Service {name:?} has the ports {}; set the one that the database listens on", found.join(", ")))]
    ManyPorts { field: String, name: String, found: Vec<String> },
    #[snafu(display(
        "{field}.image: the pods behind {object} use different images ({}); set the one whose client tools match the server",
        found.join(", ")
    ))]
    ManyImages { field: String, object: String, found: Vec<String> },
    #[snafu(display(
        "{field}.image: no StatefulSet or Deployment in namespace {namespace} has pods that Service {name:?} selects, so the \
         server's image is unknown; set an image whose client tools match the server"
    ))]
    NoWorkload { field: String, name: String, namespace: String },
    #[snafu(display(
        "{field}.image: none of the containers {} of {object} exposes port {port}, so it is unknown which one is the database; \
         set the image whose client tools match the server",
        found.join(", ")
    ))]
    NoContainer { field: String, object: String, port: u16, found: Vec<String> },
    #[snafu(display("{field}.image: is needed with host; set an image whose client tools match the server"))]
    NoImage { field: String },
    #[snafu(display("{field}.port: {port} is no TCP port; use 1 to 65535"))]
    Port { field: String, port: i32 },
}

impl TargetError {
    /// The reason of the Ready condition.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoService { .. } | Self::NoServiceName { .. } => "TargetNotFound",
            Self::ManyServices { .. } | Self::ManyPorts { .. } | Self::ManyImages { .. } => "TargetAmbiguous",
            Self::NoWorkload { .. } | Self::NoContainer { .. } | Self::NoImage { .. } => "ImageUnknown",
            Self::Port { .. } => "InvalidPort",
        }
    }
}
