//! Runs that are cut off, and runs that meet.

use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};
use vertice_catalog::report::FailureReason;

use crate::agent::{Run, Running};
use crate::gateway::Gateway;
use crate::postgres::{PASSWORD, Postgres};
use crate::{shop, wait_for};

/// Holds a lock that `pg_dump` waits for, until dropped.
struct Lock<'a>(Child, &'a Postgres);

impl<'a> Lock<'a> {
    fn hold(postgres: &'a Postgres) -> Self {
        let mut psql: Command = postgres.psql("postgres", PASSWORD, "orders");
        psql.args(["-c", "BEGIN; LOCK TABLE customers; SELECT pg_sleep(600)"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let lock = Self(psql.spawn().unwrap(), postgres);
        wait_for("the lock", || {
            let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'customers'::regclass";
            (postgres.sql("orders", held) == "1").then_some(())
        });
        lock
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // A server does not notice that a sleeping client is gone.
        let sleeper = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^BEGIN; LOCK TABLE customers'";
        let _ = self.1.try_sql("postgres", sleeper);
        let _ = self.0.wait();
    }
}

/// Waits until a run waits for the lock: its roles are stored, its database is not.
fn wait_until_it_hangs(postgres: &Postgres, running: &Running) {
    wait_for("pg_dump to wait for the lock", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'vertice-agent'";
        (postgres.sql("postgres", waiting) != "0" && running.output().contains("\"dump\"")).then_some(())
    });
}

#[test]
fn a_run_killed_in_the_middle_of_an_upload_is_cleaned_up_by_the_next() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 60_000);
    let first = Run::backup(&postgres, &gateway).with("compression", "none").pod("first").start();
    wait_for("the upload", || {
        gateway.objects().keys().any(|key| key.ends_with("/upload.json")).then_some(())
    });
    wait_for("a part", || (gateway.parts() > 0).then_some(()));
    first.kill();
    let left = gateway.folders();
    assert_eq!(left.len(), 1);
    assert!(gateway.parts() > 0);

    let (reason, message) = Run::backup(&postgres, &gateway).pod("second").end().failed();
    assert_eq!(reason, FailureReason::AlreadyRunning);
    assert!(message.contains("run first is writing"), "{message}");

    gateway.expire_claim();
    let id = Run::backup(&postgres, &gateway).pod("second").end().backed_up();
    assert_eq!(gateway.folders(), [id]);
    assert_eq!(gateway.parts(), 0, "parts of the killed run are left");
}

#[test]
fn two_runs_at_once_and_a_termination() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 100);
    let lock = Lock::hold(&postgres);
    let first = Run::backup(&postgres, &gateway).with("databases", vec!["orders"]).pod("first").start();
    wait_until_it_hangs(&postgres, &first);

    let (reason, _) = Run::backup(&postgres, &gateway).pod("second").end().failed();
    assert_eq!(reason, FailureReason::AlreadyRunning);

    assert_eq!(gateway.folders().len(), 1);
    kill_process(first.pid(), Signal::TERM).unwrap();
    let (reason, message) = first.end().failed();
    assert_eq!(reason, FailureReason::Interrupted, "{message}");
    assert_eq!(gateway.folders(), Vec::<String>::new());

    drop(lock);
    // The claim was given up: another pod need not wait.
    Run::backup(&postgres, &gateway).pod("third").end().backed_up();
}

#[test]
fn a_dump_that_breaks_off_is_no_backup() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 100);
    let lock = Lock::hold(&postgres);
    let running = Run::backup(&postgres, &gateway).with("databases", vec!["orders"]).start();
    wait_until_it_hangs(&postgres, &running);
    postgres.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vertice-agent'",
    );
    let (_, message) = running.end().failed();
    assert!(
        message.contains("dump database \"orders\"") && message.contains("terminating connection"),
        "{message}"
    );
    assert_eq!(gateway.folders(), Vec::<String>::new());
    drop(lock);
}

#[test]
fn a_restore_killed_half_way_leaves_the_old_and_is_cleaned_up_by_the_next() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 60_000);
    Run::backup(&postgres, &gateway).with("compression", "none").end().backed_up();
    let before = (shop::hashes(&postgres), postgres.databases());
    let scratch = r"SELECT count(*) FROM pg_database WHERE datname ~ '_vertice_'";

    // Restores of one name in two namespaces: neither is the other's.
    let named = || Run::restore(&postgres, &gateway).with("overwrite", true).pod("back");
    let first = named().namespace("shop").start();
    wait_for("a restore that fills", || {
        let filling =
            "SELECT count(*) FROM pg_stat_activity WHERE datname ~ '^orders_vertice_' AND query ~ '^COPY'";
        (postgres.sql("postgres", filling) != "0").then_some(())
    });
    first.kill();
    assert_ne!(postgres.sql("postgres", scratch), "0");
    assert_eq!(shop::hashes(&postgres), before.0);

    let again = || named().namespace("sales");
    let (reason, message) = again().end().failed();
    assert_eq!(reason, FailureReason::AlreadyRunning);
    assert!(message.contains("run shop/back"), "{message}");

    // The mark runs out.
    postgres.sql(
        "postgres",
        "DO $$ DECLARE d record; BEGIN FOR d IN SELECT datname, shobj_description(oid, 'pg_database') AS mark FROM pg_database \
         WHERE datname ~ '_vertice_' LOOP EXECUTE format('COMMENT ON DATABASE %I IS %L', d.datname, \
         regexp_replace(d.mark, '\"expires\":\"[^\"]*\"', '\"expires\":\"2020-01-01T00:00:00Z\"')); END LOOP; END $$",
    );
    again().end().restored();
    assert_eq!((shop::hashes(&postgres), postgres.databases()), before);
}
