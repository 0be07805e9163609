//! Whose prefix it is.

use snafu::Snafu;
use vertice_catalog::claim::Owner;
use vertice_catalog::layout;

use super::{Bucket, Condition, Put, StorageError};
use crate::mutant::{self, Mutant};

/// The prefix cannot be used.
#[derive(Debug, Snafu)]
pub enum OwnerError {
    /// It is somebody else's.
    #[snafu(display(
        "{url} belongs to {found}, not to {ours}: give this VerticeBackup a prefix of its own in spec.storage.prefix (or, if the \
         cluster was rebuilt and should go on there, delete {url}/owner.json)"
    ))]
    NotOurs {
        /// The prefix.
        url: String,
        /// Whose it is.
        found: String,
        /// Who we are.
        ours: String,
    },
    /// The store failed.
    #[snafu(transparent)]
    OwnerStorage {
        /// How.
        source: StorageError,
    },
}

/// Whether the prefix is free (false) or ours already (true).
pub async fn check_owner(bucket: &Bucket, ours: &Owner) -> Result<bool, OwnerError> {
    let Some(found) = bucket.get(layout::OWNER).await? else { return Ok(false) };
    match serde_json::from_slice::<Owner>(&found.content) {
        Ok(found) if found == *ours => Ok(true),
        Ok(found) => Err(not_ours(bucket, found.to_string(), ours)),
        Err(_) => Err(not_ours(bucket, "somebody whose mark cannot be read".to_owned(), ours)),
    }
}

/// Makes a free prefix ours.
pub async fn mark_owner(bucket: &Bucket, ours: &Owner) -> Result<(), OwnerError> {
    if check_owner(bucket, ours).await? {
        return Ok(());
    }
    // A struct of three strings always serializes.
    let json = serde_json::to_vec_pretty(ours).unwrap_or_default();
    match bucket.put(layout::OWNER, json.into(), Condition::Absent).await? {
        Put::Done(_) => Ok(()),
        Put::Conflict if mutant::on(Mutant::OwnMarkNotKnown) => Err(not_ours(bucket, ours.to_string(), ours)),
        // Another was quicker: it may be us after a retried request.
        Put::Conflict => check_owner(bucket, ours).await.map(|_| ()),
    }
}

fn not_ours(bucket: &Bucket, found: String, ours: &Owner) -> OwnerError {
    OwnerError::NotOurs { url: bucket.url(), found, ours: ours.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bucket;
    use super::*;

    fn owner(cluster: &str) -> Owner {
        Owner { cluster: cluster.into(), namespace: "shop".into(), name: "orders".into() }
    }

    #[tokio::test]
    async fn the_first_to_come_keeps_the_prefix() {
        let bucket = bucket();
        assert!(!check_owner(&bucket, &owner("one")).await.unwrap());
        mark_owner(&bucket, &owner("one")).await.unwrap();
        mark_owner(&bucket, &owner("one")).await.unwrap();
        let refused = mark_owner(&bucket, &owner("clone")).await.unwrap_err();
        insta::assert_snapshot!(refused, @"s3://backups/shop/orders belongs to shop/orders of cluster one, not to shop/orders of cluster clone: give this VerticeBackup a prefix of its own in spec.storage.prefix (or, if the cluster was rebuilt and should go on there, delete s3://backups/shop/orders/owner.json)");
    }
}
