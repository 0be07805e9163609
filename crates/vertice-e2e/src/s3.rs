//! An S3 store with a bucket: the Versity gateway over a folder.

use std::time::Duration;

use crate::kubectl::{Kubectl, Result};

/// Name of its Deployment, Service and Secret.
pub const NAME: &str = "object-store";
/// Its port.
pub const PORT: u16 = 7070;
/// The key that its Secret holds.
pub const ACCESS_KEY: &str = "vertice-demo";
/// The secret key; it guards nothing but throw-away data.
pub const SECRET_KEY: &str = "not-a-secret-demo-only";
const READY: Duration = Duration::from_mins(2);

/// Deploys the store in a namespace and waits until it serves.
///
/// `maker` is an image with a shell: the gateway's own has none, and a bucket is a folder of its volume.
pub async fn deploy(
    kubectl: &Kubectl,
    namespace: &str,
    image: &str,
    maker: &str,
    buckets: &[&str],
) -> Result<()> {
    let folders = buckets.iter().map(|bucket| format!("/data/{bucket}")).collect::<Vec<_>>().join(" ");
    let yaml = include_str!("../fixtures/object-store.yaml")
        .replace("$IMAGE", image)
        .replace("$MAKER", maker)
        .replace("$FOLDERS", &folders)
        .replace("$ACCESS_KEY", ACCESS_KEY)
        .replace("$SECRET_KEY", SECRET_KEY);
    kubectl.apply(namespace, &yaml).await?;
    kubectl.rolled_out(namespace, &format!("deployment/{NAME}"), READY).await
}

/// URL of the store from inside the cluster.
pub fn endpoint(namespace: &str) -> String {
    format!("http://{NAME}.{namespace}.svc:{PORT}")
}
