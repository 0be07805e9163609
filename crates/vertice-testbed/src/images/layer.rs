//! One layer: a tar file whose bytes depend on its entries and on nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snafu::{ResultExt, ensure};
use tar::{EntryType, Header};

use super::{DuplicateSnafu, Error, ReadSnafu, WriteSnafu};

/// A user and a group id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    pub const ROOT: Self = Self { user: 0, group: 0 };

    /// A user with a group of the same number.
    #[must_use]
    pub const fn of(id: u32) -> Self {
        Self { user: id, group: id }
    }
}

/// A file or a folder in an image.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Absolute, in the image.
    path: String,
    pub(super) content: Content,
    mode: u32,
    owner: Owner,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Folder,
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Entry {
    /// A program, copied from `source`.
    pub fn program(path: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), content: Content::File(source.into()), mode: 0o755, owner: Owner::ROOT }
    }

    /// A script or other executable text.
    pub fn script(path: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), content: Content::Bytes(text.into()), mode: 0o755, owner: Owner::ROOT }
    }

    /// A file that everyone may read, copied from `source`.
    pub fn file(path: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), content: Content::File(source.into()), mode: 0o644, owner: Owner::ROOT }
    }

    /// An empty folder.
    pub fn folder(path: impl Into<String>, mode: u32, owner: Owner) -> Self {
        Self { path: path.into(), content: Content::Folder, mode, owner }
    }

    /// Path, permissions and owner as text, for keys.
    pub(super) fn describe(&self) -> String {
        format!("{} {:o} {} {}", self.path, self.mode, self.owner.user, self.owner.group)
    }

    fn relative_path(&self) -> &str {
        self.path.trim_matches('/')
    }
}

/// A layer in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    pub(super) file: PathBuf,
    /// SHA-256, in hexadecimal digits.
    pub(super) digest: String,
    pub(super) bytes: u64,
}

impl Layer {
    /// Measures a tar file that is there.
    pub(super) fn of_file(image: &str, file: &Path) -> Result<Self, Error> {
        let (digest, bytes) = digest_of(file).context(ReadSnafu { image, path: file })?;
        Ok(Self { file: file.to_owned(), digest, bytes })
    }
}

/// SHA-256 in hexadecimal digits, and the length.
pub(super) fn digest_of(file: &Path) -> io::Result<(String, u64)> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex::encode(hash.finalize()), bytes));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// What is done about folders that entries lie in and that are not entries themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parents {
    /// They are added, owned by root: for a layer with nothing below it.
    Added,
    /// They are left as the layers below have them.
    Kept,
}

/// Writes `entries` as a layer to `file`.
pub(super) fn write(image: &str, entries: &[Entry], parents: Parents, file: &Path) -> Result<Layer, Error> {
    let mut sorted: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in entries {
        let path = entry.relative_path();
        ensure!(sorted.insert(path, entry).is_none(), DuplicateSnafu { image, path });
    }
    let parents = match parents {
        Parents::Added => missing_parents(&sorted),
        Parents::Kept => Vec::new(),
    };
    sorted.extend(parents.iter().map(|folder| (folder.relative_path(), folder)));

    let output = File::create(file).context(WriteSnafu { image, path: file })?;
    let mut archive = tar::Builder::new(io::BufWriter::new(output));
    for entry in sorted.values() {
        append(&mut archive, entry).context(WriteSnafu { image, path: source_of(entry, file) })?;
    }
    let finished = archive.into_inner().and_then(|mut output| output.flush());
    finished.context(WriteSnafu { image, path: file })?;
    Layer::of_file(image, file)
}

/// The file to name when copying an entry fails.
fn source_of<'a>(entry: &'a Entry, output: &'a Path) -> &'a Path {
    match &entry.content {
        Content::File(source) => source,
        _ => output,
    }
}

fn missing_parents(entries: &BTreeMap<&str, &Entry>) -> Vec<Entry> {
    let mut parents = BTreeMap::new();
    for path in entries.keys() {
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            if !entries.contains_key(parent) {
                parents.insert(parent.to_owned(), Entry::folder(parent, 0o755, Owner::ROOT));
            }
        }
    }
    parents.into_values().collect()
}

fn append(archive: &mut tar::Builder<impl Write>, entry: &Entry) -> io::Result<()> {
    let path = entry.relative_path();
    match &entry.content {
        Content::Folder => {
            archive.append_data(&mut header(entry, EntryType::Directory, 0), format!("{path}/"), io::empty())
        }
        Content::Bytes(bytes) => {
            archive.append_data(&mut header(entry, EntryType::Regular, bytes.len() as u64), path, &**bytes)
        }
        Content::File(source) => {
            let mut file = File::open(source)?;
            let bytes = file.seek(io::SeekFrom::End(0))?;
            file.rewind()?;
            // No more than was announced, should the file grow meanwhile.
            archive.append_data(&mut header(entry, EntryType::Regular, bytes), path, file.take(bytes))
        }
    }
}

/// All that could differ from one machine or moment to the next (times, names of users) is left out.
fn header(entry: &Entry, kind: EntryType, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.user.into());
    header.set_gid(entry.owner.group.into());
    header.set_mtime(0);
    header.set_size(bytes);
    header
}
