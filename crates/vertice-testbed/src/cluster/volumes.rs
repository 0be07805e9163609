//! Volumes: folders on the disks of nodes, made for claims of storage class `testbed` once their pod has a node, and destroyed
//! with their claim.
//!
//! The same contract as any external provisioner's:
//! <https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode>.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use snafu::ResultExt;

use super::{ApiSnafu, Error, FolderSnafu, VolumeSnafu};
use crate::clean::RUN_LABEL;
use crate::node::Node;
use crate::wait;

/// The cluster's default storage class.
pub const STORAGE_CLASS: &str = "testbed";
const PROVISIONER: &str = "testbed.vertice.io/local";
/// Keeps a volume's object until its data is destroyed.
const FINALIZER: &str = "testbed.vertice.io/data";
const AVAILABLE_DEADLINE: Duration = Duration::from_secs(30);
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

pub(super) async fn install_class(client: &kube::Client) -> Result<(), Error> {
    let class: StorageClass = object(json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }))
    .context(ApiSnafu { action: "write the storage class" })?;
    let api: Api<StorageClass> = Api::all(client.clone());
    let made = api.create(&PostParams::default(), &class).await;
    made.map(drop).context(ApiSnafu { action: format!("make storage class {STORAGE_CLASS}") })
}

/// A volume to be made.
pub(super) struct Volume<'a> {
    pub(super) name: &'a str,
    /// A Kubernetes quantity.
    pub(super) size: &'a str,
    pub(super) node: &'a Node,
    /// The claim that it is for; any, if none.
    pub(super) claim: Option<&'a PersistentVolumeClaim>,
    /// Access modes; `ReadWriteOnce` if none.
    pub(super) modes: Option<Vec<String>>,
}

impl Volume<'_> {
    /// Makes the folder, then the object.
    pub(super) async fn create(&self, client: &kube::Client, run: &str) -> Result<(), Error> {
        let path = folder(self.node, self.name);
        let made = std::fs::create_dir_all(&path)
            // Pods run as any user; the folders above are closed to all but root.
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)));
        made.context(FolderSnafu { path: &path })?;
        let action = || format!("make volume {}", self.name);
        let object = self.object(run, &path).with_context(|_| ApiSnafu { action: action() })?;
        let api: Api<PersistentVolume> = Api::all(client.clone());
        match api.create(&PostParams::default(), &object).await {
            // A provisioner may be told of the same claim twice.
            Err(kube::Error::Api(status)) if status.code == 409 && self.claim.is_some() => Ok(()),
            made => made.map(drop).with_context(|_| ApiSnafu { action: action() }),
        }
    }

    fn object(&self, run: &str, path: &std::path::Path) -> Result<PersistentVolume, kube::Error> {
        let claim = self.claim.map(|claim| {
            json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace(),
                "name": claim.name_any(),
                "uid": claim.uid(),
            })
        });
        object(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": self.name,
                "labels": {RUN_LABEL: run, "kubernetes.io/hostname": self.node.name()},
                // So told, Kubernetes leaves the deletion to us.
                "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
                "finalizers": [FINALIZER],
            },
            "spec": {
                "capacity": {"storage": self.size},
                "accessModes": self.modes.clone().unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]),
                "storageClassName": STORAGE_CLASS,
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": claim,
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node.name()]},
                ]}]}},
            },
        }))
    }
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, kube::Error> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}

fn folder(node: &Node, volume: &str) -> PathBuf {
    node.dir().join("volumes").join(volume)
}

/// Waits until the control plane has seen a volume: before that, a pod's claim would get another one made.
pub(super) async fn wait_available(client: &kube::Client, name: &str) -> Result<(), Error> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let available = wait::until(format!("volume {name}"), AVAILABLE_DEADLINE, || async {
        let volume = api.get(name).await.map_err(|error| error.to_string())?;
        let phase = volume.status.and_then(|status| status.phase).unwrap_or_default();
        if phase == "Pending" || phase.is_empty() { Err(phase) } else { Ok(()) }
    });
    available.await.context(VolumeSnafu { volume: name })
}

/// Serves claims and volumes until it is aborted.
pub(super) async fn keep(client: kube::Client, nodes: Vec<Node>, run: String) {
    futures::join!(keep_claims(&client, &nodes, &run), keep_volumes(&client, &nodes, &run));
}

async fn keep_claims(client: &kube::Client, nodes: &[Node], run: &str) {
    let api: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let mut claims = pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    while let Some(claim) = claims.next().await {
        match claim {
            Ok(claim) => log(provision(client, nodes, run, &claim).await),
            Err(error) => tracing::debug!(%error, "the watch of claims broke off"),
        }
    }
}

async fn keep_volumes(client: &kube::Client, nodes: &[Node], run: &str) {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let of_run = watcher::Config::default().labels(&format!("{RUN_LABEL}={run}"));
    let mut volumes = pin!(watcher(api, of_run).default_backoff().applied_objects());
    while let Some(volume) = volumes.next().await {
        match volume {
            Ok(volume) => log(reclaim(client, nodes, &volume).await),
            Err(error) => tracing::debug!(%error, "the watch of volumes broke off"),
        }
    }
}

fn log(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::warn!(error = %snafu::Report::from_error(error), "a volume is not done yet");
    }
}

async fn provision(
    client: &kube::Client,
    nodes: &[Node],
    run: &str,
    claim: &PersistentVolumeClaim,
) -> Result<(), Error> {
    let Some(spec) = claim.spec.as_ref() else { return Ok(()) };
    if spec.storage_class_name.as_deref() != Some(STORAGE_CLASS) || spec.volume_name.is_some() {
        return Ok(());
    }
    let node = claim.annotations().get(SELECTED_NODE);
    let Some(node) = nodes.iter().find(|candidate| Some(candidate.name()) == node.map(String::as_str)) else {
        return Ok(());
    };
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size =
        requests.and_then(|requests| requests.get("storage")).map_or("1Gi", |quantity| quantity.0.as_str());
    let name = format!("pvc-{}", claim.uid().unwrap_or_default());
    let volume = Volume { name: &name, size, node, claim: Some(claim), modes: spec.access_modes.clone() };
    volume.create(client, run).await
}

/// Deletes a volume that its claim has left; destroys the data of one that is being deleted.
async fn reclaim(client: &kube::Client, nodes: &[Node], volume: &PersistentVolume) -> Result<(), Error> {
    let (api, name): (Api<PersistentVolume>, _) = (Api::all(client.clone()), volume.name_any());
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let deleted = volume.metadata.deletion_timestamp.is_some();
    if !deleted && matches!(phase, Some("Released" | "Failed")) {
        let gone = api.delete(&name, &DeleteParams::default()).await;
        return gone.map(drop).context(ApiSnafu { action: format!("delete volume {name}") });
    }
    // Others hold it while a pod or a claim uses it.
    if !deleted || volume.finalizers() != [FINALIZER] {
        return Ok(());
    }
    let on = volume.labels().get("kubernetes.io/hostname");
    if let Some(node) = nodes.iter().find(|node| Some(node.name()) == on.map(String::as_str)) {
        let path = folder(node, &name);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(source).context(FolderSnafu { path });
            }
            _ => {}
        }
    }
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let freed = api.patch(&name, &PatchParams::default(), &free).await;
    freed.map(drop).context(ApiSnafu { action: format!("let go of volume {name}") })
}
