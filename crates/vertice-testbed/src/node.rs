//! A node: containerd, kubelet and kube-proxy in a machine of their own, and what can be done to it.

mod config;
mod faults;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use snafu::{OptionExt, ResultExt, Snafu};

pub use self::faults::{Cut, Way};
use crate::images::Image;
use crate::machine::{self, Machine};
use crate::network::{self, Network};
use crate::parts::Parts;
use crate::pki::{self, Pki, Subject};
use crate::process::{self, Process};
use crate::state::{self, Run};
use crate::{cgroups, kubeconfig, wait};

const CONTAINERD_DEADLINE: Duration = Duration::from_mins(1);

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("node {node} is switched off"))]
    Off { node: String },

    #[snafu(display("node {node} is running already"))]
    On { node: String },

    #[snafu(display("containerd of {node} did not become ready; the end of its log:\n{tail}"))]
    Containerd { node: String, source: wait::Deadline, tail: String },

    #[snafu(display("failed to load image {image} into {node}"))]
    Load {
        node: String,
        image: String,
        #[snafu(source(from(machine::Error, Box::new)))]
        source: Box<machine::Error>,
    },

    #[snafu(display("failed to make the control groups of the pods of {node}"))]
    MakeCgroups { node: String, source: std::io::Error },

    #[snafu(display("failed to remove the control groups of the pods of {node}"))]
    Cgroups { node: String, source: wait::Deadline },

    #[snafu(display("a thread that works on {node} ended early"))]
    Thread { node: String, source: tokio::task::JoinError },

    #[snafu(transparent)]
    Machine { source: machine::Error },

    #[snafu(transparent)]
    Network { source: network::Error },

    #[snafu(transparent)]
    Process { source: process::Error },

    #[snafu(transparent)]
    Pki { source: pki::Error },

    #[snafu(transparent)]
    State { source: state::Error },
}

/// Where a node is said to stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Label `topology.kubernetes.io/zone`.
    pub zone: String,
    /// Label `topology.kubernetes.io/region`.
    pub region: String,
}

/// What all nodes of a cluster share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) run: Arc<Run>,
    pub(crate) parts: Parts,
    pub(crate) network: Network,
    /// Reference of the image that holds a pod's namespaces.
    pub(crate) pause: String,
}

/// A node of a cluster. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    site: Arc<Site>,
    number: u8,
    name: String,
    location: Location,
    dir: PathBuf,
    running: Mutex<Option<Running>>,
}

/// What a power cut ends. The agents go before the machine, so that they are not waited for.
#[derive(Debug)]
struct Running {
    agents: Vec<Process>,
    machine: Machine,
}

impl Node {
    /// Writes the node's configuration and certificates; `number` counts from 1.
    pub(crate) fn create(
        site: &Arc<Site>,
        number: u8,
        location: Location,
        pki: &Pki,
        server: &str,
    ) -> Result<Self, Error> {
        let name = format!("node{number}");
        let dir = site.run.dir().join("nodes").join(&name);
        let node = Self(Arc::new(Inner {
            site: Arc::clone(site),
            number,
            name,
            location,
            dir,
            running: Mutex::default(),
        }));
        node.write_config()?;
        node.write_identity(pki, server)?;
        Ok(node)
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn location(&self) -> &Location {
        &self.0.location
    }

    /// The node's address on the bridge.
    pub fn address(&self) -> std::net::Ipv4Addr {
        self.0.site.network.plan().node(self.0.number)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    fn socket(&self) -> PathBuf {
        self.0.dir.join("containerd.sock")
    }

    /// The control group of everything that runs in pods of this node.
    fn cgroup(&self) -> String {
        format!("{}/{}", cgroups::name_of(self.0.site.run.id()), self.0.name)
    }

    fn write_config(&self) -> Result<(), Error> {
        let dir = self.dir();
        for (file, text) in [
            ("containerd.toml", config::containerd(self)),
            ("kubelet.yaml", config::kubelet(self)),
            ("kube-proxy.yaml", config::kube_proxy(self)),
            ("cni/10-testbed.conflist", config::cni(self)),
        ] {
            state::write_private(&dir.join(file), text)?;
        }
        Ok(state::make_dir(&dir.join("tmp"))?)
    }

    fn write_identity(&self, pki: &Pki, server: &str) -> Result<(), Error> {
        let Inner { dir, name, .. } = &*self.0;
        let authority = &pki.authority.pair().certificate;
        let user = format!("system:node:{name}");
        let hosts = [name.clone(), self.address().to_string()];
        let serving =
            pki.authority.issue(&Subject { name: &user, group: Some("system:nodes"), hosts: &hosts })?;
        let kubelet = kubeconfig::render(name, server, authority, &pki.user(&user, Some("system:nodes"))?);
        let proxy = kubeconfig::render(name, server, authority, &pki.user("system:kube-proxy", None)?);
        for (file, text) in [
            ("ca.crt", authority),
            ("kubelet.crt", &serving.certificate),
            ("kubelet.key", &serving.key),
            ("kubelet.kubeconfig", &kubelet),
            ("kube-proxy.kubeconfig", &proxy),
        ] {
            state::write_private(&dir.join(file), text)?;
        }
        Ok(())
    }

    /// Switches the machine on and starts its container runtime.
    pub(crate) fn boot(&self) -> Result<(), Error> {
        let Inner { site, number, name, dir, .. } = &*self.0;
        let mut running = self.lock();
        if running.is_some() {
            return OnSnafu { node: name }.fail();
        }
        let machine = Machine::boot(&site.run, name, &site.parts.bin("pause"))?;
        site.network.connect(&site.run, &machine, Some(*number))?;
        cgroups::make(&self.cgroup()).context(MakeCgroupsSnafu { node: name })?;
        let mut command = self.agent(&machine, "containerd");
        command.arg("--config").arg(dir.join("containerd.toml"));
        let containerd = machine.spawn("containerd", command)?;
        let socket = self.socket();
        let answered = wait::until_blocking("containerd's socket", CONTAINERD_DEADLINE, || {
            UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string())
        });
        answered.with_context(|_| ContainerdSnafu { node: name, tail: containerd.log_tail(20) })?;
        *running = Some(Running { agents: vec![containerd], machine });
        Ok(())
    }

    /// Starts kubelet and kube-proxy; the API server should answer by now.
    pub(crate) fn join(&self) -> Result<(), Error> {
        let Inner { dir, name, location, .. } = &*self.0;
        let mut running = self.lock();
        let Running { agents, machine } = running.as_mut().context(OffSnafu { node: name })?;
        let file = |flag: &str, file: &str| format!("--{flag}={}", dir.join(file).display());
        let mut command = self.agent(machine, "kubelet");
        command.arg(file("config", "kubelet.yaml")).arg(file("kubeconfig", "kubelet.kubeconfig"));
        command.arg(file("root-dir", "kubelet")).arg(format!("--hostname-override={name}"));
        command.arg(format!("--node-ip={}", self.address()));
        let Location { zone, region } = location;
        command.arg(format!(
            "--node-labels=topology.kubernetes.io/zone={zone},topology.kubernetes.io/region={region}"
        ));
        agents.push(machine.spawn("kubelet", command)?);
        let mut command = self.agent(machine, "kube-proxy");
        command.arg(file("config", "kube-proxy.yaml"));
        agents.push(machine.spawn("kube-proxy", command)?);
        Ok(())
    }

    /// A program of the node, with a `PATH` of our programs and the system's.
    fn agent(&self, machine: &Machine, program: &str) -> Command {
        let Inner { site, dir, .. } = &*self.0;
        let mut command = machine.command(site.parts.bin(program));
        let inherited = std::env::var("PATH").unwrap_or_default();
        let ours = site.parts.path_dir().display();
        command.env("PATH", format!("{ours}:{inherited}:/usr/sbin:/usr/bin:/sbin:/bin"));
        command.env("TMPDIR", dir.join("tmp"));
        command
    }

    /// Imports an image archive; a reference that is there already is replaced.
    pub(crate) fn import(&self, image: &Image) -> Result<(), Error> {
        let Inner { site, name, .. } = &*self.0;
        let running = self.lock();
        let machine = &running.as_ref().context(OffSnafu { node: name })?.machine;
        let ctr = site.parts.bin("ctr");
        let (ctr, socket, archive) = (ctr.to_string_lossy(), self.socket(), image.archive.to_string_lossy());
        let arguments =
            ["--address", &socket.to_string_lossy(), "--namespace", "k8s.io", "images", "import", &archive];
        let loaded = machine.tool(&ctr, &arguments);
        loaded.context(LoadSnafu { node: name, image: &image.reference }).map(drop)
    }

    /// Agents of the node that have ended though nobody ended them, by name.
    pub fn ended(&self) -> Vec<String> {
        let running = self.lock();
        let agents = running.iter().flat_map(|running| &running.agents);
        agents.filter(|agent| agent.exited().is_some()).map(|agent| agent.name().to_owned()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that blocks on a thread that may.
    async fn blocking(
        &self,
        work: impl FnOnce(&Self) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let node = self.clone();
        let outcome = tokio::task::spawn_blocking(move || work(&node)).await;
        outcome.context(ThreadSnafu { node: self.name() })?
    }
}
