use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::ledger::Work::{Cached, Cold};
use crate::report::Reporter;

struct Here {
    folder: tempfile::TempDir,
    paths: Paths,
    ledger: Ledger,
}

fn here() -> Here {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path(), "target");
    let ledger = Ledger::open(&paths, Reporter::new(|_| {}));
    Here { folder, paths, ledger }
}

impl Here {
    fn make(&self, entries: &[Entry]) -> Image {
        from_files(&self.paths, &self.ledger, "try", entries, &Config::new(NONROOT, "/try")).unwrap()
    }

    fn program(&self, content: &str) -> Entry {
        let file = self.folder.path().join("program");
        fs::write(&file, content).unwrap();
        Entry::program("/try", file)
    }
}

fn contents(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = &files[&format!("blobs/sha256/{digest}")];
    assert_eq!(hex::encode(Sha256::digest(bytes)), digest, "the blob is not what its digest says");
    assert_eq!(descriptor["size"].as_u64().unwrap(), bytes.len() as u64);
    bytes
}

#[test]
fn every_digest_and_size_in_the_archive_is_right() {
    let here = here();
    let image = here.make(&[here.program("#!"), Entry::folder("/data", 0o700, Owner::of(7))]);
    let files = contents(&fs::read(&image.archive).unwrap());
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], image.reference.as_str());
    let manifest: Value = serde_json::from_slice(blob(&files, entry)).unwrap();
    let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).unwrap();
    blob(&files, &manifest["layers"][0]);
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["architecture"], Architecture::host().name());

    let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(docker[0]["RepoTags"][0], image.reference.as_str());
    for named in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
        assert!(files.contains_key(named.as_str().unwrap()), "{named} is not in the archive");
    }
}

#[test]
fn a_layer_has_parents_owners_and_modes() {
    let here = here();
    let image = here.make(&[here.program("#!"), Entry::folder("/var/lib/data", 0o700, Owner::of(7))]);
    let files = contents(&fs::read(&image.archive).unwrap());
    let layer = files.values().find(|bytes| bytes.get(257..262) == Some(b"ustar")).unwrap();
    let listed: Vec<_> = tar::Archive::new(&**layer)
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(header.mtime().unwrap(), 0);
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            format!("{path} {:o} {}:{}", header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap())
        })
        .collect();
    assert_eq!(listed, ["try 755 0:0", "var/ 755 0:0", "var/lib/ 755 0:0", "var/lib/data/ 700 7:7"]);
}

#[test]
fn the_same_input_gives_the_same_bytes_whatever_the_order_and_the_day() {
    let (first, second) = (here(), here());
    let data = || Entry::folder("/data", 0o755, Owner::ROOT);
    let one = first.make(&[first.program("same"), data()]);
    let program = second.program("same");
    fs::File::open(second.folder.path().join("program"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1))
        .unwrap();
    let two = second.make(&[data(), program]);
    assert_eq!(one.reference, two.reference);
    assert!(fs::read(one.archive).unwrap() == fs::read(two.archive).unwrap(), "the archives differ");
}

#[test]
fn changed_content_has_another_name_and_unchanged_content_is_not_made_again() {
    let here = here();
    let one = here.make(&[here.program("one")]);
    assert_eq!(here.make(&[here.program("one")]), one);
    let two = here.make(&[here.program("two")]);
    assert_ne!(one.reference, two.reference);
    assert!(one.reference.starts_with("registry.local/try:"), "{}", one.reference);
    assert_eq!(one.reference.rsplit(':').next().unwrap().len(), 12);

    let work: Vec<_> = here.ledger.entries().unwrap().into_iter().map(|entry| entry.work).collect();
    assert_eq!(work, [Cold, Cached, Cold]);
}

#[test]
fn an_archive_cut_short_by_a_kill_is_made_again() {
    let here = here();
    let image = here.make(&[here.program("whole")]);
    let whole = fs::read(&image.archive).unwrap();
    // Killed between the archive and the note that it is whole.
    fs::remove_file(image.archive.with_extension("json")).unwrap();
    fs::write(&image.archive, "half").unwrap();
    assert_eq!(here.make(&[here.program("whole")]), image);
    assert!(fs::read(&image.archive).unwrap() == whole);
}

#[test]
fn two_entries_of_one_path_are_refused() {
    let here = here();
    let entries = [here.program("a"), Entry::script("try/", "b")];
    let error = from_files(&here.paths, &here.ledger, "try", &entries, &Config::new(0, "/try")).unwrap_err();
    assert!(error.to_string().contains("two entries have the path try"), "{error}");
}

#[test]
fn archives_of_earlier_states_go_when_nobody_can_be_about_to_load_them() {
    let here = here();
    let (long_ago, just_now) = (here.make(&[here.program("old")]), here.make(&[here.program("new")]));
    let six_days = std::time::Duration::from_hours(144);
    let archive = fs::File::options().write(true).open(&long_ago.archive).unwrap();
    archive.set_modified(std::time::SystemTime::now() - six_days).unwrap();
    let current = here.make(&[here.program("newest")]);
    assert!(!long_ago.archive.exists() && just_now.archive.exists() && current.archive.exists());
}
