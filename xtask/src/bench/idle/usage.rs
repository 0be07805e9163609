//! What a process uses, by the kernel's books.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Time on processors of all its threads, user and system, in steps of a clock tick (10 ms).
pub fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks(&stat).with_context(|| format!("{path} does not tell the process's times"))?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Fields 14 and 15; the name in field 2 may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Bytes that reside in memory.
pub fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("{path} does not tell the resident memory"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 0 0 0 11 12 130 14 20 0 1 0 9876 0 0";
        assert_eq!(ticks(stat), Some(23));
        assert_eq!(ticks("42 (sh) S 7"), None);
    }

    #[test]
    fn this_process_resides_somewhere_and_one_that_is_gone_nowhere() {
        assert!(resident(std::process::id()).unwrap() > 1 << 20);
        assert!(cpu(std::process::id()).is_ok());
        assert!(resident(u32::MAX).is_err() && cpu(u32::MAX).is_err());
    }
}
