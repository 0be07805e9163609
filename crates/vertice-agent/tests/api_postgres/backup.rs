//! Backups that succeed.

use std::process::Command;

use vertice_catalog::report::Report;

use crate::agent::Run;
use crate::gateway::Gateway;
use crate::postgres::Postgres;
use crate::shop;

#[test]
fn stored_objects_are_what_other_programs_expect() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 2_000);
    for (compression, suffix, reader) in
        [("gzip", ".gz", "gzip"), ("zstd", ".zst", "zstd"), ("none", "", "cat")]
    {
        let run = Run::backup(&postgres, &gateway).with("compression", compression);
        let id = run.with("databases", vec!["orders"]).end().backed_up();
        let dump = gateway.prefix().join(format!("{id}/databases/0.dump{suffix}"));
        assert!(dump.exists(), "{}", dump.display());
        // Stock tools, without the agent: the way out if all of Vertice were gone.
        let reader = if reader == "cat" { "cat".to_owned() } else { format!("{reader} -dc") };
        let script = format!("{reader} '{}' | /usr/lib/postgresql/15/bin/pg_restore --list", dump.display());
        let listed = Command::new("/bin/sh").arg("-c").arg(script).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("TABLE DATA public customers"), "is {reader} installed? {listed}");
    }
    let kept: Vec<_> = gateway.objects().into_keys().filter(|key| key.ends_with("upload.json")).collect();
    assert_eq!(kept, Vec::<String>::new());
    assert_eq!(gateway.parts(), 0);
}

#[test]
fn the_report_tells_sizes_and_versions() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    let ended = Run::backup(&postgres, &gateway).end();
    let Report::BackedUp { backup_id, stored_bytes, databases, server_version, .. } = &ended.report else {
        panic!("{:?}", ended.report)
    };
    assert_eq!(*databases, 1);
    assert!(server_version.starts_with("15."), "{server_version}");
    let folder = format!("{backup_id}/");
    let on_disk: u64 = gateway
        .objects()
        .iter()
        .filter(|(key, _)| key.starts_with(&folder) && !key.ends_with("manifest.json"))
        .map(|(_, bytes)| bytes)
        .sum();
    assert_eq!(*stored_bytes, on_disk);
}

#[test]
fn a_user_who_may_only_read_makes_a_backup_without_passwords() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 10);
    postgres.sql("postgres", "CREATE ROLE backup LOGIN PASSWORD 'hush'; GRANT pg_read_all_data, reporters TO backup; ALTER DATABASE orders CONNECTION LIMIT -1");
    let run = Run::backup(&postgres, &gateway).with("compression", "none");
    run.secret("target/username", "backup").secret("target/password", "hush\n");
    // Large objects cannot be read by pg_read_all_data in PostgreSQL 15.
    postgres.sql("orders", "SELECT lo_unlink(oid) FROM pg_largeobject_metadata");
    let ended = run.end();
    assert!(ended.output.contains("the backup holds no passwords of roles"), "{}", ended.output);
    let id = ended.backed_up();
    let globals = std::fs::read_to_string(gateway.prefix().join(format!("{id}/globals.sql"))).unwrap();
    assert!(globals.contains("CREATE ROLE shop;") && !globals.contains("SCRAM-SHA-256"), "{globals}");
}
