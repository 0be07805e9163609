//! The keys in a bucket, all relative to its prefix.
//!
//! ```text
//! <prefix>/owner.json                 whose prefix this is
//! <prefix>/claim.json                 the run that is under way
//! <prefix>/<id>/manifest.json         written last: a backup exists only with it
//! <prefix>/<id>/upload.json           the multipart upload that is under way; gone once there is a manifest
//! <prefix>/<id>/globals.sql.gz        roles and other objects outside of databases
//! <prefix>/<id>/databases/<n>.dump.gz one a database, named in the manifest
//! <prefix>/wal/<timeline>/<segment>   continuous archive (physical method)
//! ```

use crate::id::BackupId;

/// Key of the owner's mark.
pub const OWNER: &str = "owner.json";
/// Key of the claim.
pub const CLAIM: &str = "claim.json";
/// Name of the manifest in a backup's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the note of an upload in a backup's folder: with it a later run can abort what a killed one began.
pub const UPLOAD: &str = "upload.json";

/// Key of a backup's manifest.
pub fn manifest(id: &BackupId) -> String {
    format!("{id}/{MANIFEST}")
}

/// Key of the note of a backup's multipart upload.
pub fn upload(id: &BackupId) -> String {
    format!("{id}/{UPLOAD}")
}

/// Key of an object of a backup; `name` as it stands in the manifest.
pub fn object(id: &BackupId, name: &str) -> String {
    format!("{id}/{name}")
}

/// The backup that a key belongs to, if any.
pub fn backup_of(key: &str) -> Option<BackupId> {
    key.split_once('/').and_then(|(first, _)| first.parse().ok())
}

/// `<prefix>/<key>`; an empty prefix is the bucket's root.
pub fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") }
}
