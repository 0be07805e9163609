//! Connections that break in the last step of a restore.

use vertice_catalog::report::FailureReason;

use crate::agent::Run;
use crate::gateway::Gateway;
use crate::killed::left;
use crate::postgres::Postgres;
use crate::proxy::{Cut, Proxy};
use crate::shop;

const LAST_STEP: &[&str] = &["RENAME TO", "COMMIT"];

/// A server whose database was changed since its backup.
fn changed() -> (Postgres, Gateway, String) {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 100);
    Run::backup(&postgres, &gateway).with("databases", vec!["orders"]).end().backed_up();
    let backup = postgres.hash("orders");
    postgres.sql("orders", "DELETE FROM orders");
    (postgres, gateway, backup)
}

fn restore(postgres: &Postgres, gateway: &Gateway, proxy: &Proxy) -> Run {
    Run::restore(postgres, gateway).with("overwrite", true).with("server/port", proxy.port)
}

#[test]
fn a_restore_that_took_its_place_is_reported_though_the_answer_was_lost() {
    let (postgres, gateway, backup) = changed();
    let proxy = Proxy::start(postgres.port, LAST_STEP, Cut::Answer);
    let ended = restore(&postgres, &gateway, &proxy).end();
    proxy.wait();
    assert!(ended.output.contains("the answer of the last step was lost"), "{}", ended.output);
    assert_eq!(ended.restored(), ["orders"]);
    assert_eq!(postgres.hash("orders"), backup);
    assert_eq!(left(&postgres), Vec::<String>::new());
}

#[test]
fn a_restore_that_did_not_take_its_place_is_taken_back() {
    let (postgres, gateway, backup) = changed();
    let before = (postgres.hash("orders"), postgres.databases());
    assert_ne!(before.0, backup);
    let proxy = Proxy::start(postgres.port, LAST_STEP, Cut::Before);
    let ended = restore(&postgres, &gateway, &proxy).end();
    proxy.wait();
    let (reason, message) = ended.failed();
    assert_eq!(reason, FailureReason::HostUnreachable, "{message}");
    assert_eq!((postgres.hash("orders"), postgres.databases()), before);
}

#[test]
fn a_restore_of_which_nobody_knows_says_so() {
    let (postgres, gateway, _) = changed();
    let proxy = Proxy::start(postgres.port, LAST_STEP, Cut::Hold);
    let running = restore(&postgres, &gateway, &proxy).start();
    proxy.wait();
    let port = proxy.port.to_string();
    drop(postgres);
    drop(proxy);
    let (reason, message) = running.end().failed();
    assert_eq!(reason, FailureReason::HostUnreachable);
    insta::assert_snapshot!(message.replace(&port, "PORT"), @r#"the connection to postgres@127.0.0.1:PORT broke while the restored databases took their places, and the server did not come back within 30 s to tell whether they did (psql:<stdin>:23: error: connection to server was lost): look into "orders" when it is back, and restore again if nothing has changed"#);
}
