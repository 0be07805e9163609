//! Restores that are killed in the moments in which little is written down.

use vertice_catalog::report::{FailureReason, Report};

use crate::agent::Run;
use crate::gateway::Gateway;
use crate::postgres::Postgres;
use crate::proxy::{Cut, Proxy};
use crate::{shop, wait_for};

/// A restore through a proxy, killed when it comes to the last of the statements; what it had reported by then.
fn kill_at(run: Run, postgres: &Postgres, statements: &'static [&'static str]) -> Option<Report> {
    let proxy = Proxy::start(postgres.port, statements, Cut::Hold);
    let running = run.with("server/port", proxy.port).start();
    proxy.wait();
    let report = running.kill_late();
    drop(proxy);
    wait_for("its connections to end", || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^vertice-agent'";
        (postgres.sql("postgres", open) == "0").then_some(())
    });
    report
}

/// The databases under names that restores give.
pub(crate) fn left(postgres: &Postgres) -> Vec<String> {
    let names = postgres
        .sql("postgres", "SELECT datname FROM pg_database WHERE datname ~ '_vertice_' ORDER BY datname");
    names.lines().map(str::to_owned).collect()
}

#[test]
fn a_database_that_was_made_and_not_marked_yet_is_dropped_by_the_next() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 100);
    Run::backup(&postgres, &gateway).with("databases", vec!["orders"]).end().backed_up();
    let before = (shop::hashes(&postgres), postgres.databases());
    let restore = || Run::restore(&postgres, &gateway).with("overwrite", true);
    let report = kill_at(restore().pod("first"), &postgres, &["CREATE DATABASE", "COMMENT ON DATABASE"]);
    assert_eq!(report, None);
    let names = left(&postgres);
    assert!(names.len() == 1 && names[0].starts_with("orders_vertice_"), "{names:?}");
    let limit = postgres
        .sql("postgres", &format!("SELECT datconnlimit FROM pg_database WHERE datname = '{}'", names[0]));

    // What a person made looks alike in one way or the other.
    postgres.sql("postgres", "CREATE DATABASE orders_vertice_000001");
    postgres.sql("postgres", &format!("CREATE DATABASE mine CONNECTION LIMIT {limit}"));
    postgres.sql("postgres", &format!("CREATE DATABASE orders_vertice_000002 CONNECTION LIMIT {limit}"));
    postgres.sql("orders_vertice_000002", "CREATE TABLE t AS SELECT 42 AS answer");

    let id = Run::backup(&postgres, &gateway).with("databases", vec![names[0].as_str()]).end().failed();
    assert_eq!(id.0, FailureReason::DatabaseNotFound, "a database under restore is not backed up: {}", id.1);
    restore().pod("second").end().restored();
    assert_eq!(left(&postgres), ["orders_vertice_000001", "orders_vertice_000002"]);
    assert_eq!(postgres.sql("orders_vertice_000002", "SELECT answer FROM t"), "42");
    for name in ["mine", "orders_vertice_000001", "orders_vertice_000002"] {
        postgres.sql("postgres", &format!("DROP DATABASE {name}"));
    }
    assert_eq!((shop::hashes(&postgres), postgres.databases()), before);
}

#[test]
fn a_database_that_another_run_is_just_making_is_left_alone() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 100);
    Run::backup(&postgres, &gateway).with("databases", vec!["orders"]).end().backed_up();
    let restore = || Run::restore(&postgres, &gateway).with("overwrite", true);
    let proxy = Proxy::start(postgres.port, &["CREATE DATABASE", "COMMENT ON DATABASE"], Cut::Hold);
    let first = restore().pod("first").with("server/port", proxy.port).start();
    proxy.wait();
    let of_first = left(&postgres);
    assert_eq!(of_first.len(), 1);
    restore().pod("second").end().restored();
    assert_eq!(left(&postgres), of_first);
    drop(proxy);
    // Its connection broke, and it cleans up after itself.
    first.end().failed();
    assert_eq!(left(&postgres), Vec::<String>::new());
}

#[test]
fn an_empty_database_that_was_replaced_and_not_dropped_yet_goes_unless_it_is_used() {
    for used in [false, true] {
        let (source, target, gateway) = (Postgres::start(), Postgres::start(), Gateway::start());
        shop::fill(&source, 100);
        Run::backup(&source, &gateway).with("databases", vec!["orders"]).end().backed_up();
        target.sql("postgres", "CREATE DATABASE orders");
        let report = kill_at(Run::restore(&target, &gateway).pod("first"), &target, &["DROP DATABASE"]);
        let Some(Report::Restored { databases, .. }) = report else { panic!("{report:?}") };
        assert_eq!(databases, ["orders"]);
        let names = left(&target);
        assert_eq!(names.len(), 1);
        assert_eq!(target.hash("orders"), source.hash("orders"));
        let comment = || {
            target.sql(
                "postgres",
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname ~ '_vertice_'",
            )
        };
        assert!(comment().contains("replaced this empty database"), "{}", comment());
        if used {
            target.sql(&names[0], "CREATE TABLE meanwhile AS SELECT 42 AS answer");
        }

        // The same run, so that its claim is no obstacle.
        let again = Run::restore(&target, &gateway).pod("first").end();
        assert_eq!(again.output.contains("somebody wrote into the database"), used, "{}", again.output);
        assert_eq!(again.failed().0, FailureReason::TargetNotEmpty);
        if used {
            assert_eq!((left(&target), comment().as_str()), (names.clone(), ""));
            assert_eq!(target.sql(&names[0], "SELECT answer FROM meanwhile"), "42");
        } else {
            assert_eq!(left(&target), Vec::<String>::new());
        }
        assert_eq!(target.hash("orders"), source.hash("orders"));
    }
}
