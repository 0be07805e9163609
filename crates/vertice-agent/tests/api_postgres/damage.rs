//! What lies in the bucket is not what was written.

use vertice_catalog::report::FailureReason;

use crate::agent::Run;
use crate::gateway::Gateway;
use crate::postgres::Postgres;
use crate::shop;

/// Damages a backup, restores it, and sees that the server is as before.
fn refused(compression: &str, damage: impl FnOnce(&Gateway, &str)) -> (FailureReason, String) {
    let (source, target, gateway) = (Postgres::start(), Postgres::start(), Gateway::start());
    shop::fill(&source, 3_000);
    let id = Run::backup(&source, &gateway).with("compression", compression).end().backed_up();
    damage(&gateway, &id);
    let before = (target.databases(), target.roles());
    let failed = Run::restore(&target, &gateway).end().failed();
    assert_eq!((target.databases(), target.roles()), before, "something is half restored");
    failed
}

fn flip(key: &'static str) -> impl Fn(&Gateway, &str) {
    move |gateway, id| {
        gateway.damage(&format!("{id}/{key}"), |content| {
            let middle = content.len() / 2;
            content[middle] ^= 1;
        });
    }
}

#[test]
fn a_flipped_bit_in_a_compressed_dump() {
    let (reason, message) = refused("gzip", flip("databases/0.dump.gz"));
    assert_eq!(reason, FailureReason::ChecksumMismatch);
    assert!(message.contains("databases/0.dump.gz") && message.contains("should be"), "{message}");
}

#[test]
fn a_flipped_bit_in_a_plain_dump() {
    let (reason, message) = refused("none", flip("databases/0.dump"));
    assert_eq!(reason, FailureReason::ChecksumMismatch);
    assert!(message.contains("databases/0.dump "), "{message}");
}

#[test]
fn a_flipped_bit_in_the_roles() {
    let (reason, message) = refused("zstd", flip("globals.sql.zst"));
    assert_eq!(reason, FailureReason::ChecksumMismatch);
    assert!(message.contains("globals.sql.zst"), "{message}");
}

#[test]
fn a_truncated_object() {
    let (reason, message) = refused("gzip", |gateway, id| {
        gateway.damage(&format!("{id}/databases/0.dump.gz"), |content| content.truncate(content.len() - 1));
    });
    assert_eq!(reason, FailureReason::ChecksumMismatch);
    assert!(message.contains("databases/0.dump.gz") && message.contains("cut off"), "{message}");
}

#[test]
fn a_missing_object() {
    let (reason, message) = refused("gzip", |gateway, id| {
        std::fs::remove_file(gateway.prefix().join(format!("{id}/databases/1.dump.gz"))).unwrap();
    });
    assert_eq!(reason, FailureReason::ChecksumMismatch);
    assert!(message.contains("databases/1.dump.gz") && message.contains("missing"), "{message}");
}

#[test]
fn roles_with_privileges_on_parameters_go_when_a_flipped_bit_is_found_after_they_were_made() {
    let (source, target, gateway) = (Postgres::start(), Postgres::start(), Gateway::start());
    source.sql("postgres", "CREATE ROLE app; GRANT SET ON PARAMETER work_mem TO app WITH GRANT OPTION; CREATE TABLE t AS SELECT 42");
    let id = Run::backup(&source, &gateway).end().backed_up();
    flip("databases/0.dump.gz")(&gateway, &id);
    let before = (target.databases(), target.roles());
    let ended = Run::restore(&target, &gateway).end();
    assert!(ended.output.contains("creating roles that do not exist"), "{}", ended.output);
    let (reason, message) = ended.failed();
    assert_eq!(reason, FailureReason::ChecksumMismatch, "{message}");
    assert_eq!((target.databases(), target.roles()), before);
}
