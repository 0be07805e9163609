//! Amazon S3 and stores that speak its protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use vertice_catalog::task::StorageLocation;

use super::dns::Resolver;
use super::{Bucket, StorageError};
use crate::secrets::{SecretDir, SecretError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of one read of an answer, and of the upload of one part.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// After this nothing is tried again: a store that is down is told within half a minute.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RETRIES: usize = 6;
/// Of a large object that is read: object_store counts from the beginning of the download, which may take hours.
const STREAM_RETRY_TIMEOUT: Duration = Duration::from_hours(24);
/// Broken connections of one download, each of which is taken up where it broke.
const STREAM_MAX_RETRIES: usize = 30;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// Access keys.
#[derive(Clone)]
pub struct Credentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Credentials {
    /// From a mounted Secret with the provider's own keys.
    pub fn from_secret(secret: &SecretDir<'_>) -> Result<Self, SecretError> {
        Ok(Self {
            access_key_id: secret.require("AWS_ACCESS_KEY_ID")?,
            secret_access_key: secret.require("AWS_SECRET_ACCESS_KEY")?,
            session_token: secret.optional("AWS_SESSION_TOKEN")?,
        })
    }
}

/// Prepares the way to a prefix; sends nothing yet.
pub fn connect(location: &StorageLocation, credentials: &Credentials) -> Result<Bucket, StorageError> {
    let settings = |detail: String| StorageError::Settings { url: location.url(), detail };
    if location.r#type != "s3" {
        return Err(settings(format!("type {:?} is not known to this version", location.r#type)));
    }
    // Err means that the process has a provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&location.bucket)
        .with_region(&location.region)
        .with_access_key_id(&credentials.access_key_id)
        .with_secret_access_key(&credentials.secret_access_key)
        .with_retry(retries())
        .with_client_options(client_options(location).map_err(settings)?);
    if let Some(token) = &credentials.session_token {
        builder = builder.with_token(token);
    }
    builder = match &location.endpoint {
        // Stores of one's own seldom have a DNS name a bucket.
        Some(endpoint) => builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false),
        None => builder.with_virtual_hosted_style_request(true),
    };
    let build = |builder: AmazonS3Builder| builder.build().map_err(|error| settings(error.to_string()));
    let streams = build(builder.clone().with_retry(stream_retries()))?;
    Ok(Bucket::new(build(builder)?, location.clone()).with_streams(streams))
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: FIRST_BACKOFF, max_backoff: LAST_BACKOFF, base: 2.0 },
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}

fn stream_retries() -> RetryConfig {
    RetryConfig { max_retries: STREAM_MAX_RETRIES, retry_timeout: STREAM_RETRY_TIMEOUT, ..retries() }
}

fn client_options(location: &StorageLocation) -> Result<ClientOptions, String> {
    let resolver = Resolver::from_system().map_err(|error| format!("/etc/resolv.conf: {error}"))?;
    let plain = location.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut options = ClientOptions::new()
        .with_allow_http(plain)
        .with_dns_resolver(Arc::new(resolver))
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        // The default limits a whole answer to 30 s: too little for a large object.
        .with_timeout_disabled();
    if !plain {
        // Beside the image's own roots, for images that have none.
        for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            options = options
                .with_root_certificate(Certificate::from_der(root).map_err(|error| error.to_string())?);
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::tests::location;
    use super::*;

    fn credentials() -> Credentials {
        Credentials { access_key_id: "id".into(), secret_access_key: "hush".into(), session_token: None }
    }

    #[tokio::test]
    async fn takes_plain_and_encrypted_endpoints() {
        for endpoint in [None, Some("http://store:7070"), Some("https://store")] {
            let location = StorageLocation { endpoint: endpoint.map(str::to_owned), ..location() };
            connect(&location, &credentials()).unwrap();
        }
    }

    /// A store whose every connection breaks after one byte of the object.
    async fn breaking_store(content: &'static [u8]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap().to_lowercase();
                let from = request
                    .split_once("range: bytes=")
                    .map_or(0, |(_, range)| range.split_once('-').unwrap().0.parse::<usize>().unwrap());
                let (length, last) = (content.len(), content.len() - 1);
                let status = if from == 0 {
                    "200 OK".to_owned()
                } else {
                    format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{length}")
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"1\"\r\nLast-Modified: Sat, 21 Nov 2026 02:00:00 GMT\r\n\r\n",
                    length - from
                );
                client.write_all(head.as_bytes()).await.unwrap();
                client.write_all(&content[from..=from]).await.unwrap();
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_download_outlives_more_broken_connections_than_a_request() {
        let content = b"123456789";
        assert!(content.len() > MAX_RETRIES + 1);
        let location = StorageLocation { endpoint: Some(breaking_store(content).await), ..location() };
        let bucket = connect(&location, &credentials()).unwrap();
        let pieces: Vec<_> = bucket.stream("dump").await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), content);
        assert!(stream_retries().retry_timeout >= Duration::from_hours(24), "a database takes hours");
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", credentials()).contains("hush"));
    }

    #[tokio::test]
    async fn another_type_is_an_invalid_task() {
        let gcs = StorageLocation { r#type: "gcs".into(), ..location() };
        let error = connect(&gcs, &credentials()).unwrap_err();
        insta::assert_snapshot!(error, @r#"storage gcs://backups/shop/orders cannot be used: type "gcs" is not known to this version"#);
    }
}
