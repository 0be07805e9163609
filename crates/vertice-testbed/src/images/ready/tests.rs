//! The image's entrypoint, with stand-ins for the programs of PostgreSQL that note how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Makes a cluster as initdb does, as far as the entrypoint looks; a cluster that cannot be finished on request.
const INITDB: &str = r#"
data=${1#--pgdata=}
mkdir -p "$data"
cat > "$data/password"
echo "$@" > "$data/arguments"
[ ! -e "$STUBS/fail" ] || exit 1
echo 15 > "$data/PG_VERSION"
"#;

/// In single-user mode it keeps the statement, else it shows how it was called.
const POSTGRES: &str = r#"
if [ "${1:-}" = --single ]; then cat > "$3/statement"; exit; fi
echo "serving: $* password: ${POSTGRES_PASSWORD:-none}"
"#;

struct Here {
    folder: tempfile::TempDir,
}

fn here() -> Here {
    let here = Here { folder: tempfile::tempdir().unwrap() };
    here.stub("id", "echo 999"); // tests may run as root
    here.stub("initdb", INITDB);
    here.stub("postgres", POSTGRES);
    here
}

impl Here {
    fn stub(&self, name: &str, text: &str) {
        let file = self.folder.path().join(name);
        fs::write(&file, format!("#!/bin/sh\nset -eu\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("volume/pgdata")
    }

    fn start(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testbed/images/postgres/entrypoint.sh");
        Command::new("sh")
            .arg(script)
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.folder.path().display()))
            .env("STUBS", self.folder.path())
            .env("PGDATA", self.data())
            .envs(settings.iter().copied())
            .output()
            .unwrap()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.data().join(file)).unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_first_start_makes_the_cluster_and_serves_it() {
    let here = here();
    let settings =
        [("POSTGRES_USER", "app"), ("POSTGRES_PASSWORD", "it's \"secret\""), ("POSTGRES_DB", "or\"ders")];
    let started = here.start(&["postgres", "-c", "fsync=on"], &settings);
    assert!(started.status.success(), "{}", said(&started));
    assert_eq!(said(&started), "serving: -c fsync=on password: none\n");
    assert_eq!(here.read("password"), "it's \"secret\"\n");
    assert!(here.read("arguments").contains("--username=app"));
    assert_eq!(here.read("statement"), "CREATE DATABASE \"or\"\"ders\"\n");
    assert!(here.read("pg_hba.conf").contains("host all all all scram-sha-256"));
    assert!(here.read("postgresql.conf").contains("listen_addresses = '*'"));
}

#[test]
fn a_later_start_needs_no_password_and_keeps_the_cluster() {
    let here = here();
    here.start(&[], &[("POSTGRES_PASSWORD", "first")]);
    let again = here.start(&[], &[]);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(here.read("password"), "first\n");
}

#[test]
fn the_password_may_come_from_a_file_but_not_twice() {
    let here = here();
    let file = here.folder.path().join("secret");
    fs::write(&file, "from a file").unwrap();
    let file = file.to_str().unwrap();
    let both = here.start(&[], &[("POSTGRES_PASSWORD", "x"), ("POSTGRES_PASSWORD_FILE", file)]);
    assert!(!both.status.success() && said(&both).contains("not both"), "{}", said(&both));
    assert!(here.start(&[], &[("POSTGRES_PASSWORD_FILE", file)]).status.success());
    assert_eq!(here.read("password"), "from a file\n");
}

#[test]
fn without_a_password_nothing_is_made() {
    let here = here();
    let started = here.start(&[], &[]);
    assert!(
        !started.status.success() && said(&started).contains("set POSTGRES_PASSWORD"),
        "{}",
        said(&started)
    );
    assert!(!here.data().exists());
}

#[test]
fn a_cluster_that_was_not_finished_is_not_served_and_made_anew() {
    let here = here();
    fs::write(here.folder.path().join("fail"), "").unwrap();
    let killed = here.start(&[], &[("POSTGRES_PASSWORD", "one")]);
    assert!(!killed.status.success() && !here.data().exists(), "{}", said(&killed));
    fs::remove_file(here.folder.path().join("fail")).unwrap();
    assert!(here.start(&[], &[("POSTGRES_PASSWORD", "two")]).status.success());
    assert_eq!(here.read("password"), "two\n");
}

#[test]
fn files_that_are_no_cluster_are_left_alone() {
    let here = here();
    fs::create_dir_all(here.data()).unwrap();
    fs::write(here.data().join("precious"), "keep me").unwrap();
    let started = here.start(&[], &[("POSTGRES_PASSWORD", "x")]);
    assert!(
        !started.status.success() && said(&started).contains("nor an empty folder"),
        "{}",
        said(&started)
    );
    assert_eq!(here.read("precious"), "keep me");
}

#[test]
fn another_program_runs_as_it_is() {
    let ran = here().start(&["echo", "pg_dump"], &[]);
    assert_eq!(said(&ran), "pg_dump\n");
}
