//! Keeps made images: an archive is found by a key over all that goes into it, and never half written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use snafu::ResultExt;

use super::archive::Config;
use super::layer::{Content, Entry, digest_of};
use super::{Error, Image, ReadSnafu, WriteSnafu, file_name, with_folder};
use crate::ledger::{Ledger, Work};
use crate::paths::Paths;

/// An archive of an earlier state is kept this long, for a cluster that is about to load it.
const STALE_AFTER: Duration = Duration::from_hours(6);

/// Twelve digits over a base (a name or a digest), the entries with their content, and the configuration.
pub(super) fn key(base: &str, entries: &[Entry], config: &Config) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(base.as_bytes());
    field(format!("{config:?}").as_bytes());
    for entry in entries {
        field(entry.describe().as_bytes());
        match &entry.content {
            Content::Folder => field(b"folder"),
            Content::Bytes(bytes) => field(bytes),
            Content::File(file) => {
                let (digest, _) = digest_of(file).context(ReadSnafu { image: base, path: file })?;
                field(digest.as_bytes());
            }
        }
    }
    Ok(hex::encode(hash.finalize())[..12].to_owned())
}

/// The image of that key, made by `make` (given a path to write the archive to) when it is not there.
pub(super) fn image(
    paths: &Paths,
    ledger: &Ledger,
    name: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<Image, Error>,
) -> Result<Image, Error> {
    let started = Instant::now();
    let archive = paths.images().join(name).join(format!("{key}.tar"));
    let _lock = lock(paths, name)?;
    let label = format!("image {name}");
    if let Some(image) = load::<Image>(&archive) {
        let image = Image { archive, ..image };
        ledger.record(&label, started.elapsed(), Work::Cached, image.bytes()?)?;
        return Ok(image);
    }
    let scratch = archive.with_extension("making");
    let image = make(&scratch)?;
    remove_layer(name, &scratch.with_extension("layer"))?;
    let image = Image { archive: archive.clone(), ..image };
    store(name, &scratch, &archive, &image)?;
    remove_stale(&archive);
    ledger.record(&label, started.elapsed(), Work::Cold, image.bytes()?)?;
    Ok(image)
}

fn remove_layer(name: &str, layer: &Path) -> Result<(), Error> {
    match fs::remove_file(layer) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(WriteSnafu { image: name, path: layer })
        }
        _ => Ok(()),
    }
}

/// One maker at a time of what is called `name`. Held until dropped, or until this process dies.
pub(super) fn lock(paths: &Paths, name: &str) -> Result<File, Error> {
    let path = with_folder(name, paths.images().join(name).join("lock"))?;
    let file = File::create(&path).context(WriteSnafu { image: name, path: &path })?;
    file.lock().context(WriteSnafu { image: name, path: &path })?;
    Ok(file)
}

/// What was stored about `file`, if it was stored whole.
pub(super) fn load<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let note = fs::read(note_of(file)).ok()?;
    file.is_file().then(|| serde_json::from_slice(&note).ok()).flatten()
}

/// Moves `scratch` to `file`, then notes `what` about it: the note says that the file is whole.
pub(super) fn store(name: &str, scratch: &Path, file: &Path, what: &impl Serialize) -> Result<(), Error> {
    let note = note_of(file);
    let fresh = note.with_extension("json.making");
    let stored = || -> io::Result<()> {
        fs::rename(scratch, file)?;
        fs::write(&fresh, serde_json::to_vec(what)?)?;
        fs::rename(&fresh, &note)
    };
    stored().context(WriteSnafu { image: name, path: file })
}

fn note_of(file: &Path) -> PathBuf {
    file.with_extension("json")
}

/// Removes files of earlier states of what `current` is (an archive, or a root file system). One that cannot be
/// removed costs space and nothing else.
pub(super) fn remove_stale(current: &Path) {
    let Some(entries) = current.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    let is_root_file_system = |path: &Path| file_name(path).starts_with(super::debian::ROOT_FILE_SYSTEM);
    for path in entries.flatten().map(|entry| entry.path()) {
        let same_kind = path.extension().is_some_and(|extension| extension == "tar")
            && is_root_file_system(&path) == is_root_file_system(current);
        if same_kind && path != current && age(&path) > STALE_AFTER {
            let _ = fs::remove_file(note_of(&path));
            let _ = fs::remove_file(&path);
        }
    }
}

/// Since when `file` is as it is; nothing when that cannot be told.
fn age(file: &Path) -> Duration {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok()).unwrap_or_default()
}
