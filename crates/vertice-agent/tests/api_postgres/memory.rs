//! Memory stays flat.

use std::fs;

use crate::agent::Run;
use crate::gateway::Gateway;
use crate::postgres::Postgres;

const LIMIT_KIB: u64 = 128 * 1024;

/// Resident memory in KiB of a process and all below it.
fn resident(pid: i32) -> u64 {
    let own = fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| {
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let below: u64 = children
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|child| child.parse().ok())
        .map(resident)
        .sum();
    own.unwrap_or_default() + below
}

fn peak(run: Run) -> (u64, crate::agent::Ended) {
    let mut running = run.start();
    let pid = running.pid().as_raw_nonzero().get();
    let mut peak = 0;
    while running.child.try_wait().unwrap().is_none() {
        peak = peak.max(resident(pid));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    (peak, running.end())
}

#[test]
fn a_large_database_goes_through_in_flat_memory_both_ways_however_it_is_compressed() {
    let (postgres, gateway) = (Postgres::start(), Gateway::start());
    postgres.sql("postgres", "CREATE DATABASE large");
    // 2 bytes of a dump for each byte: about 240 MB, in rows of ordinary size.
    postgres.sql("large", "CREATE EXTENSION pgcrypto; CREATE TABLE t AS SELECT n, gen_random_bytes(1000) AS data FROM generate_series(1, 120000) n");
    let hash = postgres.hash("large");

    for (compression, suffix) in [("gzip", ".gz"), ("zstd", ".zst"), ("none", "")] {
        let backup = Run::backup(&postgres, &gateway).with("compression", compression);
        let (peak_of_backup, ended) = peak(backup.with("databases", vec!["large"]));
        let progress = ended.progress();
        let id = ended.backed_up();
        let stored = gateway.objects()[&format!("{id}/databases/0.dump{suffix}")];
        assert!(stored > 100_000_000, "{compression}: {stored}");
        assert!(peak_of_backup < LIMIT_KIB, "{compression}: the backup took {peak_of_backup} KiB");
        assert!(
            progress.iter().any(|line| line.object == "large" && line.expected_bytes.is_some()),
            "{progress:?}"
        );

        postgres.sql("postgres", "DROP DATABASE large");
        let (peak_of_restore, ended) = peak(Run::restore(&postgres, &gateway).with("backupId", id));
        ended.restored();
        assert!(peak_of_restore < LIMIT_KIB, "{compression}: the restore took {peak_of_restore} KiB");
        assert_eq!(postgres.hash("large"), hash);
        println!(
            "{compression}: peak of resident memory with all tools: backup {peak_of_backup} KiB, restore {peak_of_restore} KiB of \
             {stored} bytes"
        );
    }
}
