//! Restores that succeed, and those that must not begin.

use vertice_catalog::report::FailureReason;

use crate::agent::{Run, Running};
use crate::gateway::Gateway;
use crate::postgres::{PASSWORD, Postgres};
use crate::shop::{self, APP_PASSWORD, WEIRD};
use crate::wait_for;

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

/// Who may set which parameter, and pass that on.
const PARAMETERS: &str = "SELECT parname, a.grantee::regrole, a.privilege_type, a.is_grantable FROM pg_parameter_acl, \
    aclexplode(paracl) a WHERE a.grantee <> 0 ORDER BY 1, 2, 3";

#[test]
fn privileges_on_parameters_come_back_or_are_told() {
    let (source, target, gateway) = (Postgres::start(), Postgres::start(), Gateway::start());
    source.sql(
        "postgres",
        r#"CREATE ROLE app; CREATE ROLE "app of ""x"" to y"; GRANT ALTER SYSTEM ON PARAMETER work_mem TO app;
           GRANT SET ON PARAMETER log_min_duration_statement TO app WITH GRANT OPTION;
           GRANT SET, ALTER SYSTEM ON PARAMETER app.mode TO "app of ""x"" to y"; GRANT SET ON PARAMETER app.mode TO PUBLIC"#,
    );
    // As if the source knew a parameter that the target does not.
    let expected = source.sql("postgres", PARAMETERS);
    source.sql("postgres", "GRANT SET ON PARAMETER wal_level TO app");
    source.sql("postgres", "SET allow_system_table_mods = on; UPDATE pg_parameter_acl SET parname = 'gone' WHERE parname = 'wal_level'");
    Run::backup(&source, &gateway).end().backed_up();
    let ended = Run::restore(&target, &gateway).end();
    for told in [
        "GRANT SET ON PARAMETER gone TO app;",
        r#"invalid parameter name \"gone\""#,
        r#"GRANT SET ON PARAMETER \\\"app.mode\\\" TO PUBLIC;"#,
    ] {
        assert!(ended.output.contains(told), "{told}: {}", ended.output);
    }
    ended.restored();
    assert_eq!(target.sql("postgres", PARAMETERS), expected);
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

/// A restore without `overwrite` into an empty database, and the name under which it fills.
fn restore_into_empty(target: &Postgres, gateway: &Gateway) -> (Running, String) {
    let source = Postgres::start();
    shop::fill(&source, 20_000);
    Run::backup(&source, gateway).with("databases", vec!["orders"]).end().backed_up();
    drop(source);
    target.sql("postgres", "CREATE DATABASE orders");
    let running = Run::restore(target, gateway).start();
    let scratch = wait_for("the restore to begin", || {
        let name =
            target.sql("postgres", "SELECT datname FROM pg_database WHERE datname ~ '^orders_vertice_'");
        (!name.is_empty()).then_some(name)
    });
    (running, scratch)
}

#[test]
fn what_is_written_while_it_restores_is_not_overwritten() {
    let (target, gateway) = (Postgres::start(), Gateway::start());
    let (running, _) = restore_into_empty(&target, &gateway);
    target.sql("orders", "CREATE FUNCTION meanwhile() RETURNS int LANGUAGE sql AS 'SELECT 42'");
    let (reason, message) = running.end().failed();
    assert_eq!(reason, FailureReason::TargetNotEmpty, "{message}");
    assert_eq!(target.sql("orders", "SELECT meanwhile()"), "42");
    assert_eq!(target.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ '_vertice_'"), "0");
}

#[test]
fn what_is_written_at_the_last_moment_is_kept_under_another_name() {
    let (target, gateway) = (Postgres::start(), Gateway::start());
    let (running, scratch) = restore_into_empty(&target, &gateway);
    // A lock that the swap waits for after the last look at the database.
    let hold = format!("BEGIN; COMMENT ON DATABASE {scratch} IS 'held'; SELECT pg_sleep(600)");
    let mut holder = target.psql("postgres", PASSWORD, "postgres").args(["-c", &hold]).spawn().unwrap();
    wait_for("the swap to wait", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^COMMENT ON DATABASE .* IS NULL'";
        (target.sql("postgres", waiting) == "1").then_some(())
    });
    target.sql("orders", "CREATE TABLE meanwhile AS SELECT 42 AS answer");
    target.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^BEGIN; COMMENT'",
    );
    holder.wait().unwrap();
    running.end().restored();
    assert_eq!(target.sql("orders", "SELECT count(*) FROM customers"), "20000");
    let kept = target.sql(
        "postgres",
        "SELECT datname FROM pg_database WHERE datname ~ '^orders_vertice_' AND shobj_description(oid, 'pg_database') IS NULL",
    );
    assert_eq!(target.sql(&kept, "SELECT answer FROM meanwhile"), "42");
}

#[test]
fn bytes_of_no_known_encoding_survive() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    postgres.sql("postgres", "CREATE DATABASE legacy TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    postgres.sql("legacy", r"CREATE TABLE t AS SELECT E'caf\xe9'::text AS a");
    Run::backup(&postgres, &gateway).with("databases", vec!["legacy"]).end().backed_up();
    postgres.sql("postgres", "DROP DATABASE legacy");
    Run::restore(&postgres, &gateway).end().restored();
    assert_eq!(postgres.sql("legacy", "SELECT encode(a::bytea, 'hex') FROM t"), "636166e9");
}
