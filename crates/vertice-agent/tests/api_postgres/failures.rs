//! What a person reads when something is wrong outside of the agent.

use vertice_catalog::report::FailureReason;

use crate::agent::Run;
use crate::gateway::{Gateway, PREFIX};
use crate::postgres::Postgres;
use crate::{free_port, shop};

/// Runs it, and takes out what differs from run to run.
fn told(run: Run, ports: &[u16]) -> String {
    let (reason, mut message) = run.end().failed();
    for port in ports {
        message = message.replace(&port.to_string(), "PORT");
    }
    format!("{}: {message}", reason.as_str())
}

#[test]
fn failures_read_well_and_leave_nothing() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    shop::fill(&postgres, 10);
    postgres.sql("postgres", "CREATE ROLE limited LOGIN PASSWORD 'hush'");
    let closed = free_port();
    let ports = [postgres.port, gateway.port, closed];
    let backup = || Run::backup(&postgres, &gateway);
    let limited = backup();
    limited.secret("target/username", "limited").secret("target/password", "hush");
    let wrong_password = backup();
    wrong_password.secret("target/password", "wrong");
    let wrong_key = backup();
    wrong_key.secret("storage/AWS_SECRET_ACCESS_KEY", "wrong");
    let unknown_key = backup();
    unknown_key.secret("storage/AWS_ACCESS_KEY_ID", "nobody");
    let runs = [
        ("wrong password", wrong_password),
        ("unreachable host", backup().with("server/port", closed)),
        ("unresolvable host", backup().with("server/host", "no-such-host.invalid")),
        ("no permission", limited),
        ("no such database", backup().with("databases", vec!["orders", "nope"])),
        ("missing secret", backup().without("target/username").without("target/password")),
        ("missing key of a secret", backup().without("target/password")),
        ("missing store secret", backup().without("storage/AWS_SECRET_ACCESS_KEY")),
        ("missing bucket", backup().with("storage/bucket", "no-such-bucket")),
        ("wrong secret key", wrong_key),
        ("unknown access key", unknown_key),
        ("unreachable store", backup().with("storage/endpoint", format!("http://127.0.0.1:{closed}"))),
        ("unresolvable store", backup().with("storage/endpoint", "http://no-such-store.invalid:7070")),
        ("unknown engine", backup().with("server/engine", "redis")),
        ("nothing to restore", Run::restore(&postgres, &gateway)),
    ];
    let told: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = runs
            .into_iter()
            .map(|(what, run)| {
                (
                    what,
                    scope.spawn(move || {
                        told(
                            run.with("storage/prefix", format!("{PREFIX}/{}", what.replace(' ', "-"))),
                            &ports,
                        )
                    }),
                )
            })
            .collect();
        threads.into_iter().map(|(what, thread)| format!("# {what}\n{}\n", thread.join().unwrap())).collect()
    });
    insta::assert_snapshot!(told.join("\n"));
    // Each run has a prefix of its own, in which the owner's mark and an ended claim may stay.
    let left = gateway.objects().into_keys();
    let left: Vec<_> =
        left.filter(|key| !key.ends_with("/owner.json") && !key.ends_with("/claim.json")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn another_owners_prefix_is_left_alone() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    Run::backup(&postgres, &gateway).end().backed_up();
    let before = gateway.objects();
    let clone = Run::backup(&postgres, &gateway).with("owner/cluster", "cloned-cluster");
    let (reason, message) = clone.end().failed();
    assert_eq!(reason, FailureReason::PrefixNotOurs);
    assert!(message.contains("shop/orders of cluster test-cluster"), "{message}");
    assert_eq!(gateway.objects(), before);
}
