//! The agent's binary against a real PostgreSQL 15 and a real S3 gateway: it is judged by psql and by the files of the bucket,
//! not by itself.

// clippy.toml allows these in test functions; here the helpers are tests as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod agent;
mod backup;
mod crash;
mod damage;
mod failures;
mod gateway;
mod killed;
mod lost;
mod memory;
mod postgres;
mod proxy;
mod restore;
mod shop;

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A port of the loopback that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `check` gives something.
fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited 60 s for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
