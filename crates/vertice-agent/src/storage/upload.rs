//! One object of unknown length: a single put when it is small, else a multipart upload.
//!
//! S3 takes at most 10,000 parts of an object, so parts grow with their number; the larger they are, the fewer are in flight, so
//! that at most [`BUFFERS`] are in memory.

use bytes::{Bytes, BytesMut};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartId, PutPayload};
use serde::{Deserialize, Serialize};
use snafu::ensure;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::TooLargeSnafu;
use super::{Bucket, Condition, StorageError};
use crate::progress::Progress;

const MIB: usize = 1 << 20;
/// Bytes in memory at most: the part that is being filled, and those in flight.
const BUFFERS: usize = 64 * MIB;
const MAX_IN_FLIGHT: usize = 4;
/// How many parts (the last of the row) have which size.
const PARTS: [(usize, usize); 4] =
    [(1_000, 8 * MIB), (2_000, 16 * MIB), (4_000, 32 * MIB), (10_000, 64 * MIB)];

/// The note from which a later run aborts what a killed one began.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub(super) key: String,
    pub(super) upload_id: MultipartId,
}

/// Size of the part of this number from 0; none when there can be no such part.
fn part_size(number: usize) -> Option<usize> {
    PARTS.iter().find(|(until, _)| number < *until).map(|(_, size)| *size)
}

/// How many parts of a size may be in flight while another is filled.
fn in_flight(size: usize) -> usize {
    (BUFFERS / size - 1).min(MAX_IN_FLIGHT)
}

/// The most that one object can hold.
fn limit() -> u64 {
    (0..).map_while(part_size).map(|size| size as u64).sum()
}

/// Writes what `pieces` brings to `key`. `note` is the key of the note that [`super::discard`] reads when this is cut off.
/// The object exists only when this returns Ok.
pub async fn upload(
    bucket: &Bucket,
    key: &str,
    note: &str,
    mut pieces: mpsc::Receiver<Bytes>,
    progress: &Progress,
) -> Result<(), StorageError> {
    let mut parts = Parts::new(bucket, key, note);
    while let Some(mut piece) = pieces.recv().await {
        progress.add_stored(piece.len() as u64);
        while !piece.is_empty() {
            let room = parts.size()? - parts.buffer.len();
            let taken = piece.split_to(room.min(piece.len()));
            parts.buffer.extend_from_slice(&taken);
            if taken.len() == room {
                parts.send().await?;
            }
        }
    }
    parts.finish().await
}

struct Parts<'a> {
    bucket: &'a Bucket,
    key: &'a str,
    note: &'a str,
    path: Path,
    upload_id: Option<MultipartId>,
    buffer: BytesMut,
    sent: usize,
    tasks: JoinSet<(usize, object_store::Result<PartId>)>,
    done: Vec<(usize, PartId)>,
}

impl<'a> Parts<'a> {
    fn new(bucket: &'a Bucket, key: &'a str, note: &'a str) -> Self {
        Self {
            bucket,
            key,
            note,
            path: bucket.path(key),
            upload_id: None,
            buffer: BytesMut::new(),
            sent: 0,
            tasks: JoinSet::new(),
            done: Vec::new(),
        }
    }

    fn size(&self) -> Result<usize, StorageError> {
        let size = part_size(self.sent);
        ensure!(size.is_some(), TooLargeSnafu { key: self.key, limit: limit() });
        Ok(size.unwrap_or_default())
    }

    /// Starts the upload, and notes it before the first part is sent.
    async fn upload_id(&mut self) -> Result<MultipartId, StorageError> {
        if let Some(id) = &self.upload_id {
            return Ok(id.clone());
        }
        let created = self.bucket.multipart.create_multipart(&self.path).await;
        let upload_id = created.map_err(|error| self.bucket.failed("write", self.key, &error))?;
        let note = Note { key: self.key.to_owned(), upload_id: upload_id.clone() };
        // A struct of two strings always serializes.
        let json = serde_json::to_vec(&note).unwrap_or_default();
        self.bucket.put(self.note, json.into(), Condition::Always).await?;
        self.upload_id = Some(upload_id.clone());
        Ok(upload_id)
    }

    /// Sends the buffer as the next part, and waits until there is memory for another.
    async fn send(&mut self) -> Result<(), StorageError> {
        let size = self.size()?;
        let upload_id = self.upload_id().await?;
        let (store, path, number) = (self.bucket.multipart.clone(), self.path.clone(), self.sent);
        let payload = PutPayload::from(std::mem::take(&mut self.buffer).freeze());
        self.tasks.spawn(async move { (number, store.put_part(&path, &upload_id, number, payload).await) });
        self.sent += 1;
        self.wait_until(in_flight(size)).await
    }

    async fn wait_until(&mut self, running: usize) -> Result<(), StorageError> {
        while self.tasks.len() > running {
            match self.tasks.join_next().await {
                Some(Ok((number, Ok(part)))) => self.done.push((number, part)),
                Some(Ok((_, Err(error)))) => return Err(self.bucket.failed("write", self.key, &error)),
                Some(Err(error)) => return Err(self.bucket.failed("write", self.key, &error.into())),
                None => break,
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), StorageError> {
        if self.upload_id.is_none() {
            let content = std::mem::take(&mut self.buffer).freeze();
            self.bucket.put(self.key, content, Condition::Always).await?;
            return Ok(());
        }
        if !self.buffer.is_empty() {
            self.send().await?;
        }
        self.wait_until(0).await?;
        self.done.sort_by_key(|(number, _)| *number);
        let parts = self.done.drain(..).map(|(_, part)| part).collect();
        let upload_id = self.upload_id().await?;
        let completed = self.bucket.multipart.complete_multipart(&self.path, &upload_id, parts).await;
        completed.map_err(|error| self.bucket.failed("write", self.key, &error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bucket;
    use super::*;

    #[test]
    fn parts_stay_within_the_stores_and_our_limits() {
        assert_eq!((0..).map_while(part_size).count(), 10_000);
        for number in 0..10_000 {
            let size = part_size(number).unwrap();
            assert!(size >= 5 * MIB, "S3 refuses smaller parts");
            assert!(size * (in_flight(size) + 1) <= BUFFERS, "part {number}");
        }
        assert_eq!(limit() / (1 << 30), 460);
    }

    async fn upload_of(bytes: usize) -> (Bucket, Vec<u8>) {
        let bucket = bucket();
        let content: Vec<u8> = (0..bytes).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
        let (send, pieces) = mpsc::channel(2);
        let feed = async {
            for piece in content.chunks(100_003) {
                send.send(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            drop(send);
        };
        let progress = Progress::default();
        let ((), uploaded) = tokio::join!(feed, upload(&bucket, "id/o", "id/upload.json", pieces, &progress));
        uploaded.unwrap();
        assert_eq!(progress.line().stored_bytes, bytes as u64);
        (bucket, content)
    }

    #[tokio::test]
    async fn small_objects_are_put_at_once_and_large_ones_in_parts_in_order() {
        for (bytes, noted) in [(0, false), (3 * MIB, false), (8 * MIB, true), (43 * MIB + 5, true)] {
            let (bucket, content) = upload_of(bytes).await;
            assert!(bucket.get("id/o").await.unwrap().unwrap().content == content, "{bytes}");
            assert_eq!(bucket.get("id/upload.json").await.unwrap().is_some(), noted, "{bytes}");
        }
    }
}
