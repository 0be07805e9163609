//! Restores that succeed, and those that must not begin.

use vertice_catalog::report::FailureReason;

use crate::agent::Run;
use crate::gateway::Gateway;
use crate::postgres::Postgres;
use crate::shop::{self, APP_PASSWORD, WEIRD};

#[test]
fn everything_is_back_after_the_source_is_destroyed() {
    let (source, gateway) = (Postgres::start(), Gateway::start());
    // About 20 MB of what cannot be compressed away: more than two parts of an upload.
    shop::fill(&source, 20_000);
    let before = (shop::hashes(&source), source.databases(), source.roles());
    let id = Run::backup(&source, &gateway).with("compression", "zstd").end().backed_up();
    let largest = gateway.objects().into_values().max().unwrap();
    assert!(largest > 10_000_000, "one object must exceed a part: {largest}");
    drop(source);

    let target = Postgres::start();
    let ended = Run::restore(&target, &gateway).with("backupId", id).end();
    let mut restored = ended.restored();
    restored.sort();
    assert_eq!(restored, ["orders", "postgres", WEIRD]);
    assert_eq!((shop::hashes(&target), target.databases(), target.roles()), before);
    let login = target.psql("shop", APP_PASSWORD, "postgres").args(["-c", "SELECT 1"]).output().unwrap();
    assert!(login.status.success(), "roles keep their passwords: {}", String::from_utf8_lossy(&login.stderr));
    assert_eq!(target.sql("orders", "SELECT count(*) FROM pg_extension"), "3");
}

#[test]
fn a_database_in_use_is_replaced_only_when_told_to() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 100);
    let before = (shop::hashes(&postgres), postgres.databases(), postgres.roles());
    Run::backup(&postgres, &gateway).end().backed_up();
    postgres.sql("orders", "DELETE FROM orders; INSERT INTO customers (name) VALUES ('later'); ALTER ROLE shop PASSWORD 'changed'");
    let roles = postgres.roles();
    let changed = shop::hashes(&postgres);

    let (reason, message) = Run::restore(&postgres, &gateway).end().failed();
    assert_eq!(reason, FailureReason::TargetNotEmpty);
    assert!(message.contains("\"orders\"") && message.contains("spec.overwrite"), "{message}");
    assert_eq!(shop::hashes(&postgres), changed);

    // A client that stays connected must not stop it.
    let mut client = postgres
        .psql("postgres", crate::postgres::PASSWORD, "orders")
        .args(["-c", "SELECT pg_sleep(600)"])
        .spawn()
        .unwrap();
    crate::wait_for("the client", || {
        (postgres.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'")
            == "1")
            .then_some(())
    });
    Run::restore(&postgres, &gateway).with("overwrite", true).end().restored();
    assert!(!client.wait().unwrap().success());
    assert_eq!((shop::hashes(&postgres), postgres.databases()), (before.0, before.1));
    assert_eq!(postgres.roles(), roles, "existing roles are left alone");
}

#[test]
fn one_database_of_several() {
    let (source, target, gateway) = (Postgres::start(), Postgres::start(), Gateway::start());
    shop::fill(&source, 50);
    Run::backup(&source, &gateway).end().backed_up();
    let restored = Run::restore(&target, &gateway).with("databases", vec!["orders"]).end().restored();
    assert_eq!(restored, ["orders"]);
    assert_eq!(target.hash("orders"), source.hash("orders"));
    assert_eq!(target.sql("postgres", "SELECT to_regclass('in_postgres') IS NULL"), "t");

    let (reason, message) = Run::restore(&target, &gateway).with("databases", vec!["nope"]).end().failed();
    assert_eq!(reason, FailureReason::DatabaseNotFound);
    assert!(message.contains("\"nope\"") && message.contains("\"orders\""), "{message}");
}
