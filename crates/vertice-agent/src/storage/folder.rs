//! The folder of one backup, while it is not one yet or no more.

use vertice_catalog::id::BackupId;
use vertice_catalog::layout;

use super::error::is_missing_object;
use super::upload::Note;
use super::{Bucket, StorageError, survey};

/// Removes all of a backup: the upload that was under way, the manifest first of the objects, so that none ever lacks objects.
pub async fn discard(bucket: &Bucket, id: &BackupId) -> Result<(), StorageError> {
    if let Some(found) = bucket.get(&layout::upload(id)).await?
        && let Ok(note) = serde_json::from_slice::<Note>(&found.content)
    {
        let aborted = bucket.multipart.abort_multipart(&bucket.path(&note.key), &note.upload_id).await;
        match aborted {
            // The upload was completed or aborted before.
            Ok(()) => {}
            Err(error) if is_missing_object(&error) => {}
            Err(error) => return Err(bucket.failed("abort the upload of", &note.key, &error)),
        }
    }
    bucket.delete(&layout::manifest(id)).await?;
    for entry in bucket.list(id.as_str()).await? {
        bucket.delete(&entry.key).await?;
    }
    Ok(())
}

/// Removes what killed runs left: folders without a manifest. Only for the holder of the claim: nobody else is writing then.
pub async fn discard_leftovers(bucket: &Bucket) -> Result<Vec<BackupId>, StorageError> {
    discard_incomplete(bucket, survey(bucket).await?.incomplete).await
}

/// A listing alone is not believed: one that is late or cut off would cost a whole backup.
async fn discard_incomplete(bucket: &Bucket, listed: Vec<BackupId>) -> Result<Vec<BackupId>, StorageError> {
    let mut discarded = Vec::new();
    for id in listed {
        if bucket.size(&layout::manifest(&id)).await?.is_some() {
            tracing::warn!(%id, "the store's listing lacks the manifest of a backup, which is there: nothing is removed");
            continue;
        }
        tracing::warn!(%id, "removing what a run that was killed has left");
        discard(bucket, &id).await?;
        discarded.push(id);
    }
    Ok(discarded)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bucket, put};
    use super::*;

    #[tokio::test]
    async fn a_backup_whose_manifest_was_not_listed_is_kept() {
        let bucket = bucket();
        let id: BackupId = "20261121T020000Z-3f9a1c".parse().unwrap();
        put(&bucket, &layout::manifest(&id), "{}").await;
        assert_eq!(discard_incomplete(&bucket, vec![id]).await.unwrap(), []);
        assert_eq!(bucket.list("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn only_folders_without_a_manifest_are_left_over() {
        let bucket = bucket();
        let (whole, half) = ("20261121T020000Z-3f9a1c", "20261121T030000Z-000000");
        for key in ["owner.json", "claim.json", "note-of-a-person.txt", "wal/1/2"] {
            put(&bucket, key, "kept").await;
        }
        put(&bucket, &format!("{whole}/manifest.json"), "{}").await;
        put(&bucket, &format!("{whole}/databases/0.dump.gz"), "kept").await;
        put(&bucket, &format!("{half}/databases/0.dump.gz"), "left").await;
        let upload = bucket.multipart.create_multipart(&bucket.path("x")).await.unwrap();
        let note = Note { key: "x".into(), upload_id: upload };
        let json = serde_json::to_vec(&note).unwrap();
        bucket
            .put(&format!("{half}/upload.json"), json.into(), super::super::Condition::Always)
            .await
            .unwrap();

        assert_eq!(discard_leftovers(&bucket).await.unwrap(), [half.parse().unwrap()]);
        let mut kept: Vec<_> = bucket.list("").await.unwrap().into_iter().map(|entry| entry.key).collect();
        kept.sort();
        assert_eq!(
            kept,
            [
                "20261121T020000Z-3f9a1c/databases/0.dump.gz",
                "20261121T020000Z-3f9a1c/manifest.json",
                "claim.json",
                "note-of-a-person.txt",
                "owner.json",
                "wal/1/2",
            ]
        );
    }
}
