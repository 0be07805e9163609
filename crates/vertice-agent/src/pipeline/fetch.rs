//! From an object to an engine.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use snafu::Snafu;
use tokio::sync::mpsc;
use vertice_catalog::id::BackupId;
use vertice_catalog::layout;
use vertice_catalog::manifest::{Compression, Digest, Object};
use vertice_catalog::report::FailureReason;

use super::codec::{Decoded, Decoder};
use super::{Pieces, queue};
use crate::mutant::{self, Mutant};
use crate::progress::Progress;
use crate::storage::{Bucket, StorageError};

/// An object could not be read back.
#[derive(Debug, Snafu)]
pub enum FetchError {
    /// The store failed.
    #[snafu(transparent)]
    FetchStorage {
        /// How.
        source: StorageError,
    },
    /// It is not what was stored.
    #[snafu(display(
        "{object} is damaged: SHA-256 of its {what} bytes should be {}, is {} ({} of {} bytes); nothing was changed in the server, \
         choose another backup",
        expected.sha256, found.sha256, found.bytes, expected.bytes
    ))]
    Mismatch {
        /// Object, backup and place.
        object: String,
        /// `stored` or `plain`.
        what: &'static str,
        /// Of the manifest.
        expected: Digest,
        /// Of what was read.
        found: Digest,
    },
    /// It is what was stored, and yet cannot be decompressed.
    #[snafu(display("object {object} of backup {id} could not be decompressed: {source}"))]
    Decompress {
        /// The backup.
        id: BackupId,
        /// The object.
        object: String,
        /// Why.
        source: io::Error,
    },
}

impl FetchError {
    /// The reason for conditions and metrics.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::FetchStorage { source } => source.reason(),
            Self::Mismatch { .. } | Self::Decompress { .. } => FailureReason::ChecksumMismatch,
        }
    }
}

/// Gives the plain bytes of `object` to `consume`, and judges them when all were read: Ok means that they are what was stored.
/// When the consumer fails the rest is still read, because damage is told before what the damage led to.
pub async fn fetch<F, T, E>(
    bucket: &Bucket,
    id: &BackupId,
    object: &Object,
    progress: &Arc<Progress>,
    consume: impl FnOnce(mpsc::Receiver<Bytes>) -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: From<FetchError>,
{
    let (stored_in, stored_out) = queue();
    let (plain_in, plain_out) = queue();
    let compression = object.compression;
    let decoding = tokio::task::spawn_blocking(move || decode(compression, stored_out, plain_in));
    let read = read(bucket, id, object, progress, stored_in);
    let (consumed, read, decoded) = tokio::join!(consume(plain_out), read, decoding);
    let storage = |source| E::from(FetchError::FetchStorage { source });
    read.map_err(storage)?;
    let broken = |source| FetchError::Decompress { id: id.clone(), object: object.name.clone(), source };
    let decoded = decoded.map_err(io::Error::other).and_then(|decoded| decoded).map_err(broken)?;
    let differs = |what, expected: &Digest, found: &Digest| FetchError::Mismatch {
        object: format!("object {} of backup {id} in {}", object.name, bucket.url()),
        what,
        expected: expected.clone(),
        found: found.clone(),
    };
    let ignored = mutant::on(Mutant::ChecksumIgnored);
    if decoded.stored != object.stored && !ignored {
        return Err(differs("stored", &object.stored, &decoded.stored).into());
    }
    match decoded.plain {
        // The consumer went away early; it says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && consumed.is_err() => consumed,
        Err(error) => Err(broken(error).into()),
        Ok(plain) if plain != object.plain && !ignored => Err(differs("plain", &object.plain, &plain).into()),
        Ok(_) => consumed,
    }
}

async fn read(
    bucket: &Bucket,
    id: &BackupId,
    object: &Object,
    progress: &Progress,
    to: mpsc::Sender<Bytes>,
) -> Result<(), StorageError> {
    let mut stream = bucket.stream(&layout::object(id, &object.name)).await?;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        progress.add_stored(piece.len() as u64);
        // The decoder reads to the end whatever happens.
        if to.send(piece).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn decode(
    compression: Compression,
    mut stored: mpsc::Receiver<Bytes>,
    plain: mpsc::Sender<Bytes>,
) -> io::Result<Decoded> {
    let mut sink = Pieces::new(plain);
    let mut decoder = Decoder::new(compression, &mut sink)?;
    while let Some(piece) = stored.blocking_recv() {
        decoder.push(&piece);
    }
    let mut result = decoder.finish();
    if result.plain.is_ok()
        && let Err(error) = sink.send()
    {
        result.plain = Err(error);
    }
    Ok(result)
}
