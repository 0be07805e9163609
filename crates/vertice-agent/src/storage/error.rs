//! What can go wrong with an object store, in words.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};
use snafu::Snafu;
use vertice_catalog::report::FailureReason;
use vertice_catalog::task::StorageLocation;

/// The store failed.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(super)))]
pub enum StorageError {
    /// No such bucket.
    #[snafu(display(
        "bucket {bucket:?} does not exist at {endpoint}: create it, or correct spec.storage.bucket"
    ))]
    BucketNotFound {
        /// The bucket.
        bucket: String,
        /// Where.
        endpoint: String,
    },
    /// 401 or 403.
    #[snafu(display(
        "{endpoint} refused to {doing} in bucket {bucket:?} ({detail}): check the keys in Secret {secret:?} and that they \
         may list, read, write and delete there"
    ))]
    AccessDenied {
        /// What was tried on which object.
        doing: String,
        /// The bucket.
        bucket: String,
        /// Where.
        endpoint: String,
        /// The Secret with the keys.
        secret: String,
        /// The store's words.
        detail: String,
    },
    /// No answer.
    #[snafu(display(
        "{endpoint} does not answer, so could not {doing} in bucket {bucket:?} ({detail}): check spec.storage.endpoint, \
         DNS and network policies"
    ))]
    Unreachable {
        /// What was tried on which object.
        doing: String,
        /// The bucket.
        bucket: String,
        /// Where.
        endpoint: String,
        /// The network's words.
        detail: String,
    },
    /// Another answer.
    #[snafu(display("{endpoint} failed to {doing} in bucket {bucket:?}: {detail}"))]
    Failed {
        /// What was tried on which object.
        doing: String,
        /// The bucket.
        bucket: String,
        /// Where.
        endpoint: String,
        /// The store's words.
        detail: String,
    },
    /// The settings themselves are refused.
    #[snafu(display("storage {url} cannot be used: {detail}"))]
    Settings {
        /// `s3://bucket/prefix`.
        url: String,
        /// Why.
        detail: String,
    },
    /// More than an object can have.
    #[snafu(display(
        "{key} grew beyond {limit} bytes, the most that is uploaded as one object in flat memory: use zstd, or back up the \
         database's parts apart"
    ))]
    TooLarge {
        /// The object.
        key: String,
        /// The most.
        limit: u64,
    },
}

impl StorageError {
    /// Finds out what an error means.
    pub(super) fn classify(location: &StorageLocation, doing: String, error: &Error) -> Self {
        let bucket = location.bucket.clone();
        let endpoint = endpoint(location);
        let text = error.to_string();
        let (status, body) = answer(&text);
        if tag(body, "Code") == Some("NoSuchBucket") {
            return Self::BucketNotFound { bucket, endpoint };
        }
        let denied = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
            || tag(body, "Code").is_some_and(|code| REFUSED_KEYS.contains(&code));
        if denied || matches!(status, Some(401 | 403)) {
            let detail = words(body).unwrap_or_else(|| deepest(error));
            return Self::AccessDenied { doing, bucket, endpoint, secret: location.secret.clone(), detail };
        }
        if unanswered(error) {
            return Self::Unreachable { doing, bucket, endpoint, detail: deepest(error) };
        }
        if text.contains(BARE_REDIRECT) || status == Some(301) {
            let detail =
                format!("the bucket is not in region {}: correct spec.storage.region", location.region);
            return Self::Failed { doing, bucket, endpoint, detail };
        }
        let detail = match (words(body), status) {
            (Some(words), _) => words,
            (None, Some(status)) => format!("HTTP status {status}"),
            (None, None) => deepest(error),
        };
        Self::Failed { doing, bucket, endpoint, detail }
    }

    /// The reason for conditions and metrics.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::BucketNotFound { .. } => FailureReason::BucketNotFound,
            Self::AccessDenied { .. } => FailureReason::StorageAccessDenied,
            Self::Unreachable { .. } => FailureReason::StorageUnreachable,
            Self::Failed { .. } | Self::TooLarge { .. } => FailureReason::StorageFailed,
            Self::Settings { .. } => FailureReason::InvalidTask,
        }
    }
}

/// Whether an error says that the object is missing, and not the bucket.
pub(super) fn is_missing_object(error: &Error) -> bool {
    let text = error.to_string();
    let code = tag(answer(&text).1, "Code");
    // An answer to HEAD has no body, and an upload that is gone is as good as an object that is gone.
    matches!(error, Error::NotFound { .. })
        && code.is_none_or(|code| matches!(code, "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion"))
}

/// Codes of a refused key, some of which do not come with 401 or 403 (versitygw answers 404 to an unknown one).
const REFUSED_KEYS: [&str; 5] =
    ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "XAdminUserNotFound"];

/// Before the status in object_store's messages, whose error types are private.
const STATUS: &str = "Server returned non-2xx status code: ";
/// AWS answers so to a wrong region.
const BARE_REDIRECT: &str = "Received redirect without LOCATION";

/// Status and body of the store's answer, out of object_store's message.
fn answer(text: &str) -> (Option<u16>, &str) {
    let Some((_, rest)) = text.split_once(STATUS) else { return (None, "") };
    let (status, body) = rest.split_once(": ").unwrap_or((rest, ""));
    (status.get(..3).and_then(|status| status.parse().ok()), body)
}

/// Where a store is, for messages.
fn endpoint(location: &StorageLocation) -> String {
    location.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", location.region))
}

fn unanswered(error: &Error) -> bool {
    find::<HttpError>(error).is_some_and(|http| !matches!(http.kind(), HttpErrorKind::Decode))
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// The innermost cause: `Connection refused (os error 111)` and not five layers of HTTP client.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// `AccessDenied: Access Denied`, out of an error document of S3.
fn words(body: &str) -> Option<String> {
    let code = tag(body, "Code")?;
    Some(match tag(body, "Message") {
        Some(message) if !message.is_empty() => format!("{code}: {message}"),
        _ => code.to_owned(),
    })
}

fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::location;
    use super::*;

    #[test]
    fn reads_the_stores_words() {
        let body = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>";
        assert_eq!(words(body).unwrap(), "AccessDenied: Access Denied.");
        assert_eq!(words("<html>bad gateway</html>"), None);
    }

    #[test]
    fn names_aws_when_there_is_no_endpoint() {
        let aws = StorageLocation { endpoint: None, ..location() };
        assert_eq!(endpoint(&aws), "https://s3.us-east-1.amazonaws.com");
    }

    #[test]
    fn a_transport_error_is_unreachable_and_tells_the_innermost_cause() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let http = HttpError::new(HttpErrorKind::Connect, refused);
        let error = Error::Generic { store: "S3", source: Box::new(http) };
        let classified = StorageError::classify(&location(), "read shop/orders/x".into(), &error);
        assert_eq!(classified.reason(), FailureReason::StorageUnreachable);
        insta::assert_snapshot!(classified, @r#"http://store:7070 does not answer, so could not read shop/orders/x in bucket "backups" (connection refused): check spec.storage.endpoint, DNS and network policies"#);
    }
}
