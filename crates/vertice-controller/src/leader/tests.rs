//! Two candidates against each other: every order of events (the machine), and the driver with a clock that is moved.

mod driver;
mod exhaustive;

use k8s_openapi::api::coordination::v1::Lease;

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or("")
}
