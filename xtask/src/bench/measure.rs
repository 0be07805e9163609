//! Runs programs and measures what they take.
//!
//! CPU time is what the kernel adds to this process for children that it has waited for, with all that they waited for
//! (`cutime` and `cstime`, <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>): the servers, which go on, are not in
//! it. Nothing else may be waited for meanwhile.

use std::fs::{self, File};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::daemon::tail;
use super::figures::Figures;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(20);
/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(30);

/// How long killed programs may take to go.
const GONE: Duration = Duration::from_secs(10);

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub peak_memory_bytes: u64,
}

impl Usage {
    /// The figures of a run that left so many bytes behind.
    pub fn storing(self, stored_bytes: u64) -> Figures {
        let Self { seconds, cpu_seconds, peak_memory_bytes } = self;
        Figures { seconds, cpu_seconds, peak_memory_bytes, stored_bytes }
    }
}

/// Programs that run at once, each in a process group of its own; dropping it kills those that still run.
struct Running(Vec<Child>);

impl Running {
    /// Commands are dropped as they are started: they hold ends of pipes, which must close when the programs end.
    fn start(commands: Vec<Command>, log: &Path) -> Result<Self> {
        let errors = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut running = Self(Vec::new());
        for mut command in commands {
            command.process_group(0).stderr(errors.try_clone()?);
            running.0.push(command.spawn()?);
        }
        Ok(running)
    }

    fn pids(&self) -> Vec<i32> {
        self.0.iter().filter_map(Child::id).filter_map(|pid| i32::try_from(pid).ok()).collect()
    }

    async fn end(&mut self) -> Result<Vec<ExitStatus>> {
        let mut statuses = Vec::new();
        for child in &mut self.0 {
            statuses.push(child.wait().await?);
        }
        Ok(statuses)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that was waited for has no number any more.
        for group in self.pids().into_iter().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        // They still hold files of a folder that is removed next. The kernel ends them soon, if not at once.
        let deadline = Instant::now() + GONE;
        while self.0.iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs `commands` at once, to their ends, which must be good ones; their errors go to `log`.
pub async fn measure(commands: Vec<Command>, log: &Path) -> Result<Usage> {
    let before = cpu_of_children()?;
    let start = Instant::now();
    let mut running = Running::start(commands, log)?;
    let pids = running.pids();
    let mut peak = 0;
    let mut samples = interval(SAMPLE);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let statuses = {
        let mut ended = std::pin::pin!(timeout(LIMIT, running.end()));
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => break ended.context("it did not end in half an hour")??,
                _ = samples.tick() => peak = peak.max(pids.iter().map(|pid| resident(*pid)).sum()),
            }
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    if let Some(bad) = statuses.iter().find(|status| !status.success()) {
        bail!("{bad}: {}", tail(log));
    }
    let cpu_seconds = cpu_of_children()? - before;
    Ok(Usage { seconds, cpu_seconds, peak_memory_bytes: peak })
}

/// CPU seconds of all children that were waited for.
#[expect(clippy::cast_precision_loss, reason = "ticks are hundredths of seconds")]
fn cpu_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    let ticks = children_ticks(&stat).context("/proc/self/stat does not tell the children's times")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 16 and 17; the name in field 2 may hold spaces and brackets.
fn children_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?)
}

/// Resident bytes of a process and of all below it; one that has ended has none.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(kibibytes).unwrap_or(0);
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let below = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    own + below
        .map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(resident).sum::<u64>())
        .sum::<u64>()
}

/// Bytes of `  1234 kB`.
fn kibibytes(text: &str) -> Option<u64> {
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 0 0 0 11 12 130 14 20 0 1 0 9876 0 0";
        assert_eq!(children_ticks(stat), Some(144));
        assert_eq!(children_ticks("42 (sh) S 7"), None);
    }

    #[tokio::test]
    async fn time_and_memory_of_grandchildren_count() {
        let folder = tempfile::tempdir().unwrap();
        // The loop runs in a child of the shell; tail keeps the 64 MiB, which have no line end, until they are complete.
        let script = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); head -c 67108864 /dev/zero | tail -n 1 | wc -c";
        let mut command = shell(script);
        command.stdout(std::process::Stdio::null());
        let usage = measure(vec![command], &folder.path().join("log")).await.unwrap();
        assert!(usage.cpu_seconds > 0.05 && usage.seconds > 0.05, "{usage:?}");
        assert!(usage.peak_memory_bytes > 32 << 20, "{usage:?}");
    }

    #[tokio::test]
    async fn a_run_that_is_given_up_ends_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = shell("sleep 600 & echo started; wait");
        command.stdout(writer);
        let running = Running::start(vec![command], &folder.path().join("log")).unwrap();
        let mut said = [0; 8];
        std::io::Read::read_exact(&mut reader, &mut said).unwrap();
        drop(running);
        // The end of the pipe comes when nobody holds it any more, the grandchild included.
        assert_eq!(std::io::Read::read(&mut reader, &mut said).unwrap(), 0);
    }

    #[tokio::test]
    async fn one_that_fails_in_a_pipeline_fails_the_run_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut first = shell("echo half; echo it broke >&2; exit 3");
        first.stdout(writer);
        let mut second = shell("cat >/dev/null");
        second.stdin(reader);
        let error = measure(vec![first, second], &folder.path().join("log")).await.unwrap_err().to_string();
        assert_eq!(error, "exit status: 3: it broke");
    }
}
