//! What can befall a node: no power, no time, no network.

use snafu::{OptionExt, ResultExt};

use super::{CgroupsSnafu, Error, Node, OffSnafu, Running};
use crate::cgroups;
use crate::machine::Machine;
use crate::network::MAX_NODES;

/// Whom a node is cut from. Nothing is refused: what is sent is lost, as when a cable is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The control plane.
    ApiServer,
    /// The other nodes and their pods.
    Peers,
    /// The host, and so every client that runs on it.
    Clients,
    /// Everybody.
    All,
}

/// Which way nothing passes any more, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
    Both,
}

const TABLE: &str = "testbed_cut";

impl Node {
    /// Cuts the power: agents and containers end at once, the disk stays.
    pub async fn stop(&self) -> Result<(), Error> {
        self.blocking(|node| {
            let Running { machine, agents } = node.lock().take().context(OffSnafu { node: node.name() })?;
            machine.power_off()?;
            drop((agents, machine));
            cgroups::remove(&node.cgroup()).context(CgroupsSnafu { node: node.name() })
        })
        .await
    }

    /// Switches a stopped node on again. It becomes Ready in its own time.
    pub async fn start(&self) -> Result<(), Error> {
        self.blocking(|node| {
            node.boot()?;
            node.join()
        })
        .await
    }

    /// Stops time on the node: each of its processes, in pods as well. Its connections stay open.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.blocking(|node| node.on_machine(|machine| Ok(machine.freeze()?))).await
    }

    /// Lets a frozen node go on.
    pub async fn thaw(&self) -> Result<(), Error> {
        self.blocking(|node| node.on_machine(|machine| Ok(machine.thaw()?))).await
    }

    /// Cuts the network both ways. Cuts add up until [`Node::heal`].
    pub async fn cut(&self, cut: Cut) -> Result<(), Error> {
        self.cut_way(cut, Way::Both).await
    }

    /// Cuts the network one way or both.
    pub async fn cut_way(&self, cut: Cut, way: Way) -> Result<(), Error> {
        self.blocking(move |node| {
            let rules = node.rules(cut, way);
            node.on_machine(|machine| Ok(machine.tool_with("nft", &["-f", "-"], &rules).map(drop)?))
        })
        .await
    }

    /// Takes all cuts back.
    pub async fn heal(&self) -> Result<(), Error> {
        let rules = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
        self.blocking(move |node| {
            node.on_machine(|machine| Ok(machine.tool_with("nft", &["-f", "-"], &rules).map(drop)?))
        })
        .await
    }

    fn on_machine(&self, work: impl FnOnce(&Machine) -> Result<(), Error>) -> Result<(), Error> {
        let running = self.lock();
        work(&running.as_ref().context(OffSnafu { node: self.name() })?.machine)
    }

    /// The far ends of a cut, as an nftables set; none when they are all.
    fn far_ends(&self, cut: Cut) -> Option<String> {
        let plan = self.0.site.network.plan();
        let ends: Vec<String> = match cut {
            Cut::All => return None,
            Cut::ApiServer => vec![plan.control_plane().to_string()],
            Cut::Clients => vec![plan.host().to_string()],
            Cut::Peers => (1..=MAX_NODES)
                .filter(|number| *number != self.0.number)
                .flat_map(|number| [plan.node(number).to_string(), plan.node_pods(number).to_string()])
                .collect(),
        };
        Some(format!("{{ {} }}", ends.join(", ")))
    }

    /// Packets are matched before translation on their way in and after it on their way out, so that Services are cut as
    /// well; and in both cases also when they are forwarded to or from pods.
    fn rules(&self, cut: Cut, way: Way) -> String {
        let ends = self.far_ends(cut);
        let address =
            |field: &str| ends.as_ref().map(|ends| format!("ip {field} {ends} ")).unwrap_or_default();
        let mut rules = vec![
            format!("add table inet {TABLE}"),
            format!("add chain inet {TABLE} in {{ type filter hook prerouting priority raw; }}"),
            format!("add chain inet {TABLE} out {{ type filter hook postrouting priority 300; }}"),
        ];
        if way != Way::Out {
            rules.push(format!("add rule inet {TABLE} in iifname eth0 {}drop", address("saddr")));
        }
        if way != Way::In {
            rules.push(format!("add rule inet {TABLE} out oifname eth0 {}drop", address("daddr")));
        }
        rules.join("\n") + "\n"
    }
}
