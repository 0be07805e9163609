//! The backups of a prefix, from their manifests.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use snafu::Snafu;
use vertice_catalog::catalogue::{Catalogue, NotFound};
use vertice_catalog::id::BackupId;
use vertice_catalog::layout;
use vertice_catalog::manifest::{Manifest, ManifestError};
use vertice_catalog::report::FailureReason;

use super::{Bucket, StorageError};

/// Manifests that are read at once.
const CONCURRENCY: usize = 8;

/// The folders of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those with a manifest, oldest first.
    pub complete: Vec<BackupId>,
    /// Those without: runs under way, or killed.
    pub incomplete: Vec<BackupId>,
}

/// A backup cannot be used.
#[derive(Debug, Snafu)]
pub enum CatalogueError {
    /// The store failed.
    #[snafu(transparent)]
    CatalogueStorage {
        /// How.
        source: StorageError,
    },
    /// There is no such backup.
    #[snafu(transparent)]
    Unknown {
        /// Which, and what there is.
        source: NotFound,
    },
    /// Its manifest cannot be used.
    #[snafu(display("{source} ({url}){}", cause(source)))]
    Manifest {
        /// The prefix.
        url: String,
        /// Why.
        source: ManifestError,
    },
    /// An object of it is gone.
    #[snafu(display(
        "object {object} of backup {id} is missing in {url}: the backup cannot be restored, choose another one"
    ))]
    Missing {
        /// The prefix.
        url: String,
        /// The backup.
        id: BackupId,
        /// The object.
        object: String,
    },
    /// An object has another length.
    #[snafu(display(
        "object {object} of backup {id} in {url} has {found} bytes where its manifest says {expected}: it was cut off or replaced, \
         choose another backup"
    ))]
    WrongSize {
        /// The prefix.
        url: String,
        /// The backup.
        id: BackupId,
        /// The object.
        object: String,
        /// Of the manifest.
        expected: u64,
        /// Of the bucket.
        found: u64,
    },
}

fn cause(error: &ManifestError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

impl CatalogueError {
    /// The reason for conditions and metrics.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::CatalogueStorage { source } => source.reason(),
            Self::Unknown { .. } => FailureReason::BackupNotFound,
            Self::Manifest { source: ManifestError::TooNew { .. }, .. } => FailureReason::InvalidTask,
            Self::Manifest { .. } | Self::Missing { .. } | Self::WrongSize { .. } => {
                FailureReason::ChecksumMismatch
            }
        }
    }
}

/// Which backups there are, without reading their manifests.
pub async fn survey(bucket: &Bucket) -> Result<Listing, StorageError> {
    let mut folders: BTreeMap<BackupId, bool> = BTreeMap::new();
    for entry in bucket.list("").await? {
        if let Some(id) = layout::backup_of(&entry.key) {
            let complete = entry.key == layout::manifest(&id);
            *folders.entry(id).or_default() |= complete;
        }
    }
    let (complete, incomplete): (Vec<_>, Vec<_>) = folders.into_iter().partition(|(_, complete)| *complete);
    let ids = |folders: Vec<(BackupId, bool)>| folders.into_iter().map(|(id, _)| id).collect();
    Ok(Listing { complete: ids(complete), incomplete: ids(incomplete) })
}

/// The manifest of one backup.
pub async fn manifest(bucket: &Bucket, id: &BackupId) -> Result<Manifest, CatalogueError> {
    let Some(found) = bucket.get(&layout::manifest(id)).await? else {
        return Err(CatalogueError::Missing {
            url: bucket.url(),
            id: id.clone(),
            object: layout::MANIFEST.to_owned(),
        });
    };
    Manifest::parse(id, &found.content)
        .map_err(|source| CatalogueError::Manifest { url: bucket.url(), source })
}

/// All backups, and why some of them cannot be used.
pub async fn load(bucket: &Bucket) -> Result<(Catalogue, Vec<CatalogueError>), StorageError> {
    let ids = survey(bucket).await?.complete;
    let read: Vec<_> = futures::stream::iter(&ids)
        .map(|id| async move {
            match manifest(bucket, id).await {
                Err(CatalogueError::CatalogueStorage { source }) => Err(source),
                other => Ok(other),
            }
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    let mut unusable = Vec::new();
    let usable = read.into_iter().filter_map(|manifest| manifest.map_err(|error| unusable.push(error)).ok());
    let catalogue = Catalogue::new(usable.collect());
    Ok((catalogue, unusable))
}

/// The backup of this id, or the newest one. A newest one that cannot be read is an error: an older one in its place would
/// be a surprise.
pub async fn pick(bucket: &Bucket, id: Option<&str>) -> Result<Manifest, CatalogueError> {
    let complete = survey(bucket).await?.complete;
    let Some(newest) = complete.last() else { return Err(NotFound::Empty { location: bucket.url() }.into()) };
    let Some(id) = id else { return manifest(bucket, newest).await };
    match complete.iter().find(|complete| complete.as_str() == id) {
        Some(id) => manifest(bucket, id).await,
        None => {
            Err(NotFound::Unknown { id: id.to_owned(), location: bucket.url(), newest: newest.clone() }
                .into())
        }
    }
}

/// Whether all objects are there and as long as they were, without reading them.
pub async fn check_complete(bucket: &Bucket, manifest: &Manifest) -> Result<(), CatalogueError> {
    for object in &manifest.objects {
        let (url, id, name) = (bucket.url(), manifest.id.clone(), object.name.clone());
        match bucket.size(&layout::object(&manifest.id, &object.name)).await? {
            Some(found) if found == object.stored.bytes => {}
            Some(found) => {
                let expected = object.stored.bytes;
                return Err(CatalogueError::WrongSize { url, id, object: name, expected, found });
            }
            None => return Err(CatalogueError::Missing { url, id, object: name }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bucket, put};
    use super::*;

    const MINIMAL: &str = include_str!("../../../vertice-catalog/tests/fixtures/v1-minimal.json");
    const FULL: &str = include_str!("../../../vertice-catalog/tests/fixtures/v1-full.json");

    async fn two_backups() -> (Bucket, BackupId, BackupId) {
        let bucket = bucket();
        let id = |json: &str| -> BackupId {
            serde_json::from_str::<serde_json::Value>(json).unwrap()["id"].as_str().unwrap().parse().unwrap()
        };
        let (minimal, full) = (id(MINIMAL), id(FULL));
        put(&bucket, &layout::manifest(&minimal), MINIMAL).await;
        put(&bucket, &layout::manifest(&full), FULL).await;
        (bucket, minimal, full)
    }

    #[tokio::test]
    async fn picks_the_newest_or_the_wanted_one() {
        let (bucket, minimal, full) = two_backups().await;
        let (older, newer) = if minimal < full { (minimal, full) } else { (full, minimal) };
        assert_eq!(pick(&bucket, None).await.unwrap().id, newer);
        assert_eq!(pick(&bucket, Some(older.as_str())).await.unwrap().id, older);
        let unknown = pick(&bucket, Some("20000101T000000Z-000000")).await.unwrap_err();
        assert_eq!(unknown.reason(), FailureReason::BackupNotFound);
        assert_eq!(load(&bucket).await.unwrap().0.backups().len(), 2);
    }

    #[tokio::test]
    async fn a_damaged_manifest_hides_no_other_but_is_not_passed_over() {
        let (bucket, ..) = two_backups().await;
        put(&bucket, "20990101T000000Z-000000/manifest.json", "{").await;
        let (catalogue, unusable) = load(&bucket).await.unwrap();
        assert_eq!(catalogue.backups().len(), 2);
        insta::assert_snapshot!(unusable[0], @"the manifest of backup 20990101T000000Z-000000 cannot be read (s3://backups/shop/orders): EOF while parsing an object at line 1 column 1");
        assert!(pick(&bucket, None).await.is_err());
    }

    #[tokio::test]
    async fn an_empty_prefix_says_so() {
        let error = pick(&bucket(), None).await.unwrap_err();
        insta::assert_snapshot!(error, @"there is no complete backup at s3://backups/shop/orders: check bucket and prefix, or run a backup first");
    }

    #[tokio::test]
    async fn missing_and_cut_off_objects_are_named() {
        let (bucket, minimal, _) = two_backups().await;
        let manifest = pick(&bucket, Some(minimal.as_str())).await.unwrap();
        let missing = check_complete(&bucket, &manifest).await.unwrap_err();
        assert!(matches!(missing, CatalogueError::Missing { .. }), "{missing}");
        put(&bucket, &layout::object(&minimal, &manifest.objects[0].name), "short").await;
        let cut = check_complete(&bucket, &manifest).await.unwrap_err();
        assert!(matches!(cut, CatalogueError::WrongSize { found: 5, .. }), "{cut}");
        assert_eq!(cut.reason(), FailureReason::ChecksumMismatch);
    }
}
