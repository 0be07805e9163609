//! The network of a cluster: a bridge of the host, and a pair of links to each machine on it.
//!
//! All addresses are out of 198.18.0.0/15, which RFC 2544 keeps for benchmarks: no route of the machine leads there, and
//! nothing is forwarded beyond the bridge. A cluster takes 8 of its 512 networks of 256 addresses:
//! one for the bridge, two for Services, and one for the pods of each of at most 4 nodes.

use std::fmt;
use std::fs::File;
use std::net::Ipv4Addr;

use rustix::fs::{FlockOperation, flock};
use snafu::{OptionExt, ResultExt, Snafu};

use crate::clean::link_prefix;
use crate::machine::{self, Machine};
use crate::state::Run;
use crate::tool;

/// Most nodes of a cluster: there are pod networks for so many.
pub const MAX_NODES: u8 = 4;
const SLOTS: u16 = 64;

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("all {SLOTS} address ranges of the testbed are in use: run `cargo xtask clean`"))]
    Full,

    #[snafu(display("failed to lock /run while an address range is chosen"))]
    Lock { source: std::io::Error },

    #[snafu(display("failed to set up the cluster's network"))]
    Host { source: tool::Error },

    #[snafu(display("failed to read the addresses of the host"))]
    Addresses { source: tool::Error },

    #[snafu(display("failed to set up the network of {machine}"))]
    Inside {
        machine: String,
        #[snafu(source(from(machine::Error, Box::new)))]
        source: Box<machine::Error>,
    },
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: Ipv4Addr,
    /// Number of leading bits that all addresses share.
    bits: u8,
}

impl Range {
    /// The address with this number in the range; 0 is the range's own.
    pub fn address(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + u32::from(number))
    }

    pub fn bits(self) -> u8 {
        self.bits
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, bits) = text.split_once('/').unwrap_or((text, "32"));
        Some(Self { first: first.parse().ok()?, bits: bits.parse().ok().filter(|bits| *bits <= 32)? })
    }

    fn overlaps(self, other: Self) -> bool {
        let shared = u32::from(self.bits.min(other.bits));
        let differing = self.first.to_bits() ^ other.first.to_bits();
        shared == 0 || differing >> (32 - shared) == 0
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// The address plan of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// First network of 256 addresses, counted from 198.18.0.0.
    base: u32,
}

impl Plan {
    fn of_slot(slot: u16) -> Self {
        Self { base: u32::from(slot) * 8 }
    }

    fn range(self, offset: u32, bits: u8) -> Range {
        Range {
            first: Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + ((self.base + offset) << 8)),
            bits,
        }
    }

    /// All addresses of the cluster.
    fn whole(self) -> Range {
        self.range(0, 21)
    }

    /// Addresses of the host, the control plane and the nodes.
    pub fn bridge(self) -> Range {
        self.range(0, 24)
    }

    pub fn host(self) -> Ipv4Addr {
        self.bridge().address(1)
    }

    pub fn control_plane(self) -> Ipv4Addr {
        self.bridge().address(2)
    }

    /// The address of a node; nodes count from 1.
    pub fn node(self, number: u8) -> Ipv4Addr {
        self.bridge().address(10 + number)
    }

    pub fn services(self) -> Range {
        self.range(2, 23)
    }

    /// The ClusterIP of the API server.
    pub fn api_service(self) -> Ipv4Addr {
        self.services().address(1)
    }

    /// The ClusterIP of the cluster's DNS.
    pub fn dns_service(self) -> Ipv4Addr {
        self.services().address(10)
    }

    /// Addresses of all pods.
    pub fn pods(self) -> Range {
        self.range(4, 22)
    }

    /// Addresses of the pods of one node.
    pub fn node_pods(self, number: u8) -> Range {
        self.range(3 + u32::from(number), 24)
    }
}

/// A bridge with its address plan.
#[derive(Clone, Debug)]
pub struct Network {
    plan: Plan,
    prefix: String,
    nodes: u8,
}

impl Network {
    /// Takes free addresses and makes the bridge.
    pub(crate) fn create(run: &Run, nodes: u8) -> Result<Self, Error> {
        // Held until the bridge has its address: two runs, also of two target folders, do not take the same range. The
        // folder itself is locked, so no file is left behind.
        let lock = File::open("/run").context(LockSnafu)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(std::io::Error::from).context(LockSnafu)?;
        let plan = free_plan(&taken(run)?).context(FullSnafu)?;
        let bridge = link_prefix(run.id());
        let lines = [
            format!("link add {bridge} type bridge"),
            format!("address add {}/{} dev {bridge}", plan.host(), plan.bridge().bits()),
            format!("link set {bridge} up"),
            format!("route add {} via {}", plan.services(), plan.node(1)),
        ];
        let pods = (1..=nodes)
            .map(|number| format!("route add {} via {}", plan.node_pods(number), plan.node(number)));
        batch(run, lines.into_iter().chain(pods))?;
        Ok(Self { plan, prefix: bridge, nodes })
    }

    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Gives a machine its link to the bridge and its routes. `own` is the node's number, none for the control plane.
    pub(crate) fn connect(&self, run: &Run, machine: &Machine, own: Option<u8>) -> Result<(), Error> {
        let plan = self.plan;
        let bridge = &self.prefix;
        let outer = own.map_or_else(|| format!("{bridge}c"), |number| format!("{bridge}n{number}"));
        // The pair of a machine that was just switched off may still be there: the kernel removes it in its own time.
        let _ = tool::run(run.command("ip").args(["link", "delete", &outer]));
        let lines = [
            format!("link add {outer} type veth peer name eth0 netns {}", machine.pid()),
            format!("link set {outer} master {bridge} up"),
        ];
        batch(run, lines.into_iter())?;

        let address = own.map_or_else(|| plan.control_plane(), |number| plan.node(number));
        let mut inside = vec![
            "link set lo up".to_owned(),
            format!("address add {address}/{} dev eth0", plan.bridge().bits()),
            "link set eth0 up".to_owned(),
            // There is no default route: nothing leaves the bridge. ClusterIPs need one to be translated at all.
            format!("route add {} dev eth0 src {address}", plan.services()),
        ];
        let others = (1..=self.nodes).filter(|number| Some(*number) != own);
        inside.extend(
            others.map(|number| format!("route add {} via {}", plan.node_pods(number), plan.node(number))),
        );
        machine.ip_batch(&inside.join("\n")).context(InsideSnafu { machine: machine.name() })?;
        if own.is_some() {
            machine.sysctl("net/ipv4/ip_forward", "1").context(InsideSnafu { machine: machine.name() })?;
        }
        Ok(())
    }
}

fn batch(run: &Run, lines: impl Iterator<Item = String>) -> Result<(), Error> {
    let text = lines.collect::<Vec<_>>().join("\n");
    tool::run_with(run.command("ip").args(["-batch", "-"]), &text).context(HostSnafu)?;
    Ok(())
}

/// Every address and route of the host.
fn taken(run: &Run) -> Result<Vec<Range>, Error> {
    let mut ranges = Vec::new();
    for arguments in [["-4", "-o", "address", "show"], ["-4", "-o", "route", "show"]] {
        let text = tool::run(run.command("ip").args(arguments)).context(AddressesSnafu)?;
        ranges.extend(text.split_whitespace().filter_map(Range::parse));
    }
    Ok(ranges)
}

fn free_plan(taken: &[Range]) -> Option<Plan> {
    let free = |plan: &Plan| !taken.iter().any(|range| range.overlaps(plan.whole()));
    (0..SLOTS).map(Plan::of_slot).find(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_plan_are_apart_and_within_the_benchmark_range() {
        let plan = Plan::of_slot(33);
        let mut parts = vec![plan.bridge(), plan.services()];
        parts.extend((1..=MAX_NODES).map(|number| plan.node_pods(number)));
        for (index, part) in parts.iter().enumerate() {
            assert!(part.overlaps(plan.whole()));
            assert!(parts[index + 1..].iter().all(|other| !part.overlaps(*other)), "{part}");
        }
        assert_eq!(plan.bridge().to_string(), "198.19.8.0/24");
        assert_eq!(plan.pods().to_string(), "198.19.12.0/22");
        assert_eq!(plan.node(2).to_string(), "198.19.8.12");
        assert!(Range::parse("198.18.0.0/15").unwrap().overlaps(Plan::of_slot(63).whole()));
        assert!(!Range::parse("198.20.0.0/15").unwrap().overlaps(Plan::of_slot(63).whole()));
    }

    #[test]
    fn a_taken_range_is_passed_over() {
        let taken = [Range::parse("198.18.0.1/24").unwrap(), Range::parse("198.18.13.7").unwrap()];
        assert_eq!(free_plan(&taken), Some(Plan::of_slot(2)));
        let all = [Range::parse("198.18.0.0/15").unwrap()];
        assert_eq!(free_plan(&all), None);
    }
}
