//! What `/proc` knows about processes, and signals that cannot hit a stranger who got the same number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

/// In the environment of every process of a run: the run's id.
pub(crate) const MARK: &str = "VERTICE_TESTBED";
/// Beside it: the run's folder, so that processes are found even when that folder is gone.
pub(crate) const MARK_DIR: &str = "VERTICE_TESTBED_DIR";

/// A process, told apart from a later one of the same number by its start time (clock ticks since boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    pub(crate) start: u64,
}

impl Identity {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: stat(pid)?.start })
    }

    pub(crate) fn own() -> Option<Self> {
        i32::try_from(std::process::id()).ok().and_then(Self::of)
    }

    /// Whether this very process still runs. A zombie does not.
    pub(crate) fn alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.ended())
    }

    /// Signals this very process, never another one that got its number.
    #[cfg(target_os = "linux")]
    pub(crate) fn signal(self, signal: Signal) {
        use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The handle pins the process, so what is checked now is what the signal reaches.
        if self.alive() {
            let _ = pidfd_send_signal(handle, signal);
        }
    }

    /// Without `/proc` no process is ever found, so there is none to signal.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn signal(self, _: Signal) {}
}

struct Stat {
    parent: i32,
    start: u64,
    state: char,
}

impl Stat {
    fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>; the name in field 2 may hold spaces and brackets.
fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The mark of a live process: run id and folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) identity: Identity,
    pub(crate) run: String,
    pub(crate) dir: String,
}

/// Every live process of any run.
pub(crate) fn marked() -> Vec<Marked> {
    pids().into_iter().filter_map(mark_of).collect()
}

fn mark_of(pid: i32) -> Option<Marked> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variable = |name: &str| {
        environ.split(|byte| *byte == 0).find_map(|entry| {
            let value = std::str::from_utf8(entry).ok()?.strip_prefix(name)?.strip_prefix('=')?;
            Some(value.to_owned())
        })
    };
    let run = variable(MARK)?;
    let identity = Identity::of(pid).filter(|identity| identity.alive())?;
    Some(Marked { identity, run, dir: variable(MARK_DIR).unwrap_or_default() })
}

/// The roots and everything that descends from them.
pub(crate) fn tree(roots: &[i32]) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = stat(pid).filter(|stat| !stat.ended()) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut queue = roots.to_vec();
    while let Some(pid) = queue.pop() {
        if found.insert(pid) {
            queue.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

pub(crate) fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| matches!(stat.state, 'T' | 't'))
}

/// The command line, for messages.
pub(crate) fn command_line(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9876 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.start, stat.state), (7, 9876, 'S'));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Identity::own().unwrap();
        assert!(own.alive());
        assert!(!Identity { start: own.start + 1, ..own }.alive());
    }

    #[test]
    fn marked_processes_are_found_and_a_signal_spares_the_next_bearer_of_the_number() {
        let mut child =
            Command::new("sleep").arg("60").env(MARK, "unit").env(MARK_DIR, "/d").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = crate::wait::until_blocking("the mark", std::time::Duration::from_secs(5), || {
            marked().into_iter().find(|m| m.identity.pid == pid).ok_or_else(|| "none".to_owned())
        })
        .unwrap();
        assert_eq!((found.run.as_str(), found.dir.as_str()), ("unit", "/d"));
        assert!(tree(&[Identity::own().unwrap().pid]).contains(&pid));

        Identity { start: found.identity.start + 1, ..found.identity }.signal(Signal::KILL);
        assert!(child.try_wait().unwrap().is_none(), "a stranger was hit");
        found.identity.signal(Signal::KILL);
        assert!(!child.wait().unwrap().success());
        assert!(!found.identity.alive());
    }
}
