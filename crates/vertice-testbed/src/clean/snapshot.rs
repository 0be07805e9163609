//! What there is on the machine of the kinds that a run makes, to compare before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::dir_names;
use crate::process::procfs;
use crate::{cgroups, tool};

/// Sets of names; two of them are equal when a run left nothing behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Marked processes: number and command line.
    pub processes: BTreeSet<String>,
    /// Network namespaces that a process lives in or that have a name.
    pub network_namespaces: BTreeSet<String>,
    /// Network links of the host.
    pub links: BTreeSet<String>,
    /// Mount points of the host.
    pub mounts: BTreeSet<String>,
    /// nftables tables of the host.
    pub tables: BTreeSet<String>,
    /// Routes of the host.
    pub routes: BTreeSet<String>,
    /// cgroups made by a testbed.
    pub cgroups: BTreeSet<String>,
    /// Folders that container runtimes and kubelets make when nobody keeps them from it.
    pub folders: BTreeSet<String>,
}

impl Snapshot {
    pub fn take() -> Self {
        let marked = procfs::marked();
        Self {
            processes: marked.iter().map(|mark| show(mark.identity.pid)).collect(),
            network_namespaces: network_namespaces(),
            links: dir_names(Path::new("/sys/class/net")).into_iter().collect(),
            mounts: mount_points().iter().map(|path| path.display().to_string()).collect(),
            tables: lines(Command::new("nft").args(["list", "tables"])),
            routes: lines(Command::new("ip").args(["route", "show", "table", "all"])),
            cgroups: cgroups::of_all_runs().iter().map(|path| path.display().to_string()).collect(),
            folders: folders(),
        }
    }

    /// What is in `self` and was not in `before`, one line each; empty when nothing was left behind.
    pub fn added_since(&self, before: &Self) -> Vec<String> {
        let kinds = [
            ("process", &self.processes, &before.processes),
            ("network namespace", &self.network_namespaces, &before.network_namespaces),
            ("link", &self.links, &before.links),
            ("mount", &self.mounts, &before.mounts),
            ("nft table", &self.tables, &before.tables),
            ("route", &self.routes, &before.routes),
            ("cgroup", &self.cgroups, &before.cgroups),
            ("folder", &self.folders, &before.folders),
        ];
        let added = |(kind, now, before): (&str, &BTreeSet<String>, &BTreeSet<String>)| {
            now.difference(before).map(|item| format!("{kind} {item}")).collect::<Vec<_>>()
        };
        kinds.into_iter().flat_map(added).collect()
    }
}

fn show(pid: i32) -> String {
    format!("{pid} {}", procfs::command_line(pid))
}

fn lines(command: &mut Command) -> BTreeSet<String> {
    // A machine without the program has none of its objects.
    tool::run(command).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn network_namespaces() -> BTreeSet<String> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let lived_in = dir_names(Path::new("/proc"))
        .into_iter()
        .filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok())
        .filter(|namespace| Some(namespace) != own.as_ref())
        .map(|namespace| namespace.display().to_string());
    lived_in.chain(dir_names(Path::new("/run/netns"))).collect()
}

/// In the order of mounting.
pub(super) fn mount_points() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(point: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(point.to_owned(), |point, (code, character)| point.replace(code, character))
}

fn folders() -> BTreeSet<String> {
    [
        "/run/containerd",
        "/run/netns",
        "/var/lib/kubelet",
        "/var/lib/cni",
        "/var/log/containers",
        "/var/log/pods",
        "/etc/cni",
    ]
    .into_iter()
    .filter(|path| Path::new(path).exists())
    .map(str::to_owned)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_named_with_its_kind() {
        let before = Snapshot { links: ["lo".to_owned()].into(), ..Snapshot::default() };
        let mut after = before.clone();
        after.links.insert("vt-x".to_owned());
        after.mounts.insert("/m".to_owned());
        assert_eq!(after.added_since(&before), ["link vt-x", "mount /m"]);
        assert_eq!(before.added_since(&after), Vec::<String>::new());
    }

    #[test]
    fn mount_points_with_spaces_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
