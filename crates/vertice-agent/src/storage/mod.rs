//! A prefix of a bucket.

mod catalogue;
mod claim;
mod dns;
mod error;
#[cfg(test)]
mod failing;
mod folder;
mod owner;
mod s3;
mod upload;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use vertice_catalog::layout;
use vertice_catalog::task::StorageLocation;

pub use catalogue::{CatalogueError, Listing, check_complete, load, manifest, pick, survey};
pub use claim::{ClaimError, HeldClaim};
pub use error::StorageError;
pub use folder::{discard, discard_leftovers};
pub use owner::{OwnerError, check_owner, mark_owner};
pub use s3::{Credentials, connect};
pub use upload::upload;

/// A prefix of a bucket, and how to reach it. All keys are relative to the prefix.
#[derive(Clone)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
    /// For large objects that are read: it goes on for hours after a broken connection.
    streams: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    location: StorageLocation,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key below the prefix.
    pub key: String,
    /// Its bytes.
    pub bytes: u64,
}

/// A small object that was read, with what a conditional put needs.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its content.
    pub content: Bytes,
    version: UpdateVersion,
}

/// On what a put depends.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Nothing: it replaces whatever is there.
    Always,
    /// That there is no such object.
    Absent,
    /// That it is still what was read or written.
    Unchanged(UpdateVersion),
}

/// How a conditional put ended.
#[derive(Clone, Debug)]
pub enum Put {
    /// Written; the new version.
    Done(UpdateVersion),
    /// Somebody else was first.
    Conflict,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Bucket {
    /// A prefix of any store.
    pub fn new<S: ObjectStore + MultipartStore>(store: S, location: StorageLocation) -> Self {
        let store = Arc::new(store);
        Self { objects: store.clone(), streams: store.clone(), multipart: store, location }
    }

    /// Reads large objects through another client of the same store.
    #[must_use]
    pub fn with_streams<S: ObjectStore>(self, streams: S) -> Self {
        Self { streams: Arc::new(streams), ..self }
    }

    /// `s3://bucket/prefix`.
    pub fn url(&self) -> String {
        self.location.url()
    }

    fn path(&self, key: &str) -> Path {
        Path::from(layout::join(&self.location.prefix, key))
    }

    fn failed(&self, doing: &str, key: &str, error: &Error) -> StorageError {
        let path = self.path(key);
        StorageError::classify(&self.location, format!("{doing} {path}"), error)
    }

    /// Reads a small object; none when there is no such object.
    pub async fn get(&self, key: &str) -> Result<Option<Found>, StorageError> {
        let got = match self.objects.get(&self.path(key)).await {
            Ok(got) => got,
            Err(error) if error::is_missing_object(&error) => return Ok(None),
            Err(error) => return Err(self.failed("read", key, &error)),
        };
        let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
        let content = got.bytes().await.map_err(|error| self.failed("read", key, &error))?;
        Ok(Some(Found { content, version }))
    }

    /// The content of a large object, piece by piece.
    pub async fn stream(
        &self,
        key: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, StorageError>>, StorageError> {
        let got =
            self.streams.get(&self.path(key)).await.map_err(|error| self.failed("read", key, &error))?;
        let (bucket, key) = (self.clone(), key.to_owned());
        Ok(got.into_stream().map_err(move |error| bucket.failed("read", &key, &error)).boxed())
    }

    /// The object's bytes; none when there is no such object.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        match self.objects.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if error::is_missing_object(&error) => Ok(None),
            Err(error) => Err(self.failed("look at", key, &error)),
        }
    }

    /// Writes a small object.
    pub async fn put(&self, key: &str, content: Bytes, condition: Condition) -> Result<Put, StorageError> {
        let mode = match condition {
            Condition::Always => PutMode::Overwrite,
            Condition::Absent => PutMode::Create,
            Condition::Unchanged(version) => PutMode::Update(version),
        };
        let options = PutOptions::from(mode);
        match self.objects.put_opts(&self.path(key), PutPayload::from(content), options).await {
            Ok(put) => Ok(Put::Done(UpdateVersion { e_tag: put.e_tag, version: put.version })),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Conflict),
            Err(error) => Err(self.failed("write", key, &error)),
        }
    }

    /// Deletes an object; one that is gone is fine.
    pub async fn delete(&self, key: &str) -> Result<(), StorageError> {
        match self.objects.delete(&self.path(key)).await {
            Err(error) if !error::is_missing_object(&error) => Err(self.failed("delete", key, &error)),
            _ => Ok(()),
        }
    }

    /// All objects below `folder`, or below the whole prefix when it is empty.
    pub async fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        let base = self.path("");
        let below = self.path(folder);
        self.objects
            .list(Some(&below))
            .map_ok(|meta| Entry { key: relative(&base, &meta.location), bytes: meta.size })
            .try_collect()
            .await
            .map_err(|error| self.failed("list", folder, &error))
    }
}

/// The key of `path` below `base`.
fn relative(base: &Path, path: &Path) -> String {
    match path.prefix_match(base) {
        Some(parts) => parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"),
        None => path.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use object_store::memory::InMemory;

    use super::*;

    pub(crate) fn location() -> StorageLocation {
        StorageLocation {
            r#type: "s3".into(),
            bucket: "backups".into(),
            prefix: "shop/orders".into(),
            endpoint: Some("http://store:7070".into()),
            region: "us-east-1".into(),
            secret: "store-key".into(),
        }
    }

    pub(crate) fn bucket() -> Bucket {
        Bucket::new(InMemory::new(), location())
    }

    pub(crate) async fn put(bucket: &Bucket, key: &str, content: &'static str) {
        bucket.put(key, Bytes::from_static(content.as_bytes()), Condition::Always).await.unwrap();
    }

    #[tokio::test]
    async fn keys_are_relative_to_the_prefix() {
        let bucket = bucket();
        put(&bucket, "a/b.txt", "x").await;
        put(&bucket, "c", "yy").await;
        let mut all = bucket.list("").await.unwrap();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(all, [Entry { key: "a/b.txt".into(), bytes: 1 }, Entry { key: "c".into(), bytes: 2 }]);
        assert_eq!(bucket.list("a").await.unwrap(), all[..1]);
        assert_eq!(bucket.path("c").as_ref(), "shop/orders/c");
    }

    #[tokio::test]
    async fn large_objects_are_read_through_the_client_for_streams() {
        let streams = InMemory::new();
        let bucket = bucket();
        streams.put(&bucket.path("dump"), PutPayload::from_static(b"long")).await.unwrap();
        let bucket = bucket.with_streams(streams);
        let pieces: Vec<_> = bucket.stream("dump").await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"long");
        assert!(bucket.get("dump").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn conditional_puts_tell_who_was_first() {
        let bucket = bucket();
        let one = Bytes::from_static(b"one");
        let Put::Done(_) = bucket.put("k", one.clone(), Condition::Absent).await.unwrap() else { panic!() };
        assert!(matches!(bucket.put("k", one.clone(), Condition::Absent).await.unwrap(), Put::Conflict));
        let found = bucket.get("k").await.unwrap().unwrap();
        let unchanged = Condition::Unchanged(found.version);
        assert!(matches!(bucket.put("k", one.clone(), unchanged.clone()).await.unwrap(), Put::Done(_)));
        assert!(matches!(bucket.put("k", one, unchanged).await.unwrap(), Put::Conflict));
    }
}
