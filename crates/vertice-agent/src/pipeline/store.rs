//! From an engine to an object.

use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use snafu::Snafu;
use tokio::sync::mpsc;
use vertice_catalog::id::BackupId;
use vertice_catalog::layout;
use vertice_catalog::manifest::{Compression, Digest, Object, Role};

use super::codec::Encoder;
use super::{Pieces, queue};
use crate::progress::Progress;
use crate::storage::{Bucket, StorageError, upload};

/// Where the objects of a backup go.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The prefix.
    pub bucket: &'a Bucket,
    /// The backup.
    pub id: &'a BackupId,
    /// How objects are compressed.
    pub compression: Compression,
    /// How hard.
    pub level: Option<i32>,
    /// Where bytes are counted.
    pub progress: &'a Arc<Progress>,
}

/// An object could not be stored.
#[derive(Debug, Snafu)]
pub enum StoreError {
    /// The store failed.
    #[snafu(transparent)]
    StoreStorage {
        /// How.
        source: StorageError,
    },
    /// The compressor failed.
    #[snafu(display("{object} could not be compressed: {source}"))]
    Compress {
        /// The object.
        object: String,
        /// Why.
        source: io::Error,
    },
}

/// Stores what `feed` sends as the object `name` (the compression's suffix is appended). `feed` must keep its sender until it
/// knows that all went well: when it returns an error, there is no object.
pub async fn store<F, E>(
    to: &Destination<'_>,
    name: &str,
    role: Role,
    feed: impl FnOnce(mpsc::Sender<Bytes>) -> F,
) -> Result<Object, E>
where
    F: Future<Output = Result<(), E>>,
    E: From<StoreError>,
{
    let name = format!("{name}{}", to.compression.suffix());
    let (plain_in, plain_out) = queue();
    let (stored_in, stored_out) = queue();
    let (compression, level) = (to.compression, to.level);
    let key = layout::object(to.id, &name);
    let note = layout::upload(to.id);

    let progress = to.progress.clone();
    let encoding = tokio::task::spawn_blocking(move || {
        let encoder = Encoder::new(compression, level, Pieces::new(stored_in))?;
        encode(encoder, plain_out, &progress)
    });
    let encoded = async {
        let encoded = encoding.await.map_err(io::Error::other).and_then(|encoded| encoded);
        match encoded {
            // The other end is gone: whoever ended it tells why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::future::pending().await,
            encoded => {
                encoded.map_err(|source| E::from(StoreError::Compress { object: name.clone(), source }))
            }
        }
    };
    let feeding = feed(plain_in);
    let uploaded = async {
        let uploaded = upload(to.bucket, &key, &note, stored_out, to.progress).await;
        uploaded.map_err(|source| E::from(StoreError::StoreStorage { source }))
    };
    let ((plain, stored), (), ()) = tokio::try_join!(encoded, feeding, uploaded)?;
    Ok(Object { name, role, compression, plain, stored })
}

fn encode(
    mut encoder: Encoder<Pieces>,
    mut plain: mpsc::Receiver<Bytes>,
    progress: &Progress,
) -> io::Result<(Digest, Digest)> {
    while let Some(piece) = plain.blocking_recv() {
        encoder.write_all(&piece)?;
        progress.add_plain(piece.len() as u64);
    }
    let mut result = encoder.finish()?;
    result.sink.send()?;
    Ok((result.plain, result.stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{FetchError, fetch};
    use crate::storage::tests::bucket;

    fn id() -> BackupId {
        "20261121T020000Z-3f9a1c".parse().unwrap()
    }

    async fn stored(bucket: &Bucket, compression: Compression, content: &[u8]) -> Object {
        let progress = Arc::default();
        let to = Destination { bucket, id: &id(), compression, level: None, progress: &progress };
        let object = store(&to, "o.dump", Role::Dump, async |pieces| {
            for piece in content.chunks(70_001) {
                pieces.send(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
        assert_eq!(progress.line().plain_bytes, content.len() as u64);
        object
    }

    async fn fetched(bucket: &Bucket, object: &Object) -> Result<Vec<u8>, FetchError> {
        let progress = Arc::default();
        fetch(bucket, &id(), object, &progress, async |mut pieces| {
            let mut all = Vec::new();
            while let Some(piece) = pieces.recv().await {
                all.extend_from_slice(&piece);
            }
            Ok::<_, FetchError>(all)
        })
        .await
    }

    fn content() -> Vec<u8> {
        (0..3_000_000_u32).flat_map(|n| (n / 7 * 31).to_le_bytes()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_stored_is_fetched() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let bucket = bucket();
            let object = stored(&bucket, compression, &content()).await;
            assert_eq!(object.name, format!("o.dump{}", compression.suffix()));
            let key = layout::object(&id(), &object.name);
            assert_eq!(bucket.size(&key).await.unwrap(), Some(object.stored.bytes));
            assert!(fetched(&bucket, &object).await.unwrap() == content());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flipped_bit_is_a_checksum_mismatch_and_not_what_it_did_to_the_format() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let bucket = bucket();
            let object = stored(&bucket, compression, &content()).await;
            let key = layout::object(&id(), &object.name);
            let mut damaged = bucket.get(&key).await.unwrap().unwrap().content.to_vec();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 4;
            bucket.put(&key, damaged.into(), crate::storage::Condition::Always).await.unwrap();
            let error = fetched(&bucket, &object).await.unwrap_err();
            let FetchError::Mismatch { expected, found, .. } = error else { panic!("{error}") };
            assert_eq!(expected, object.stored);
            assert_ne!(found, expected);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_feed_that_fails_leaves_no_object() {
        let bucket = bucket();
        let progress = Arc::default();
        let id = id();
        let to = Destination {
            bucket: &bucket,
            id: &id,
            compression: Compression::None,
            level: None,
            progress: &progress,
        };
        let result = store(&to, "o.dump", Role::Dump, async |pieces| {
            pieces.send(Bytes::from_static(b"half")).await.unwrap();
            let source = io::Error::other("the engine died");
            Err(StoreError::Compress { object: "o".into(), source })
        })
        .await;
        assert!(result.unwrap_err().to_string().ends_with("the engine died"));
        assert_eq!(bucket.list("").await.unwrap(), []);
    }
}
