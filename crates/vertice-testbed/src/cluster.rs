//! A whole cluster: a control plane and 1 to 4 real nodes, each a machine of its own on one bridge.

mod start;
mod volumes;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use kube::Api;
use snafu::{OptionExt, ResultExt, Snafu};

use crate::control_plane::{self, Audit};
use crate::images::Image;
use crate::machine::Machine;
use crate::network::MAX_NODES;
use crate::node::{self, Location, Node};
use crate::parts::{self, Parts};
use crate::paths::Paths;
use crate::process::Process;
use crate::report::Reporter;
use crate::state::{self, Run};
use crate::support::{self, Unsupported};
use crate::{addons, apt, clean, failures, images, machine, network, pki, wait};

pub use self::volumes::STORAGE_CLASS;

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("a cluster has 1 to {MAX_NODES} nodes, not {nodes}"))]
    NodeCount { nodes: u8 },

    #[snafu(transparent)]
    Unsupported { source: Unsupported },

    #[snafu(display("the cluster has no node {name}"))]
    NoNode { name: String },

    #[snafu(display("failed to prepare the parts of a cluster"))]
    Parts {
        #[snafu(source(from(parts::Error, Box::new)))]
        source: Box<parts::Error>,
    },

    #[snafu(display("failed to prepare the images of a cluster"))]
    Images {
        #[snafu(source(from(images::Error, Box::new)))]
        source: Box<images::Error>,
    },

    #[snafu(display("failed to prepare the machine for nodes"))]
    Packages { source: apt::Error },

    #[snafu(display("failed to install an addon into the cluster"))]
    Addon {
        #[snafu(source(from(addons::Error, Box::new)))]
        source: Box<addons::Error>,
    },

    #[snafu(display("a thread that sets the cluster up ended early"))]
    Thread { source: tokio::task::JoinError },

    #[snafu(display("node {node} did not become {wanted} (processes of it that have ended: {ended:?})"))]
    Node { node: String, wanted: &'static str, source: wait::Deadline, ended: Vec<String> },

    #[snafu(display("deployment {namespace}/{name} did not become available"))]
    Deployment { namespace: String, name: String, source: wait::Deadline },

    #[snafu(display("failed to {action}"))]
    Api {
        action: String,
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },

    #[snafu(display("failed to make the folder {} of a volume", path.display()))]
    Folder { path: PathBuf, source: std::io::Error },

    #[snafu(display("volume {volume} did not become available"))]
    Volume { volume: String, source: wait::Deadline },

    #[snafu(display("failed to end the cluster"))]
    End {
        #[snafu(source(from(clean::Error, Box::new)))]
        source: Box<clean::Error>,
    },

    #[snafu(transparent)]
    ControlPlane { source: control_plane::Error },

    #[snafu(transparent)]
    Faulty { source: node::Error },

    #[snafu(transparent)]
    Network { source: network::Error },

    #[snafu(transparent)]
    Machine { source: machine::Error },

    #[snafu(transparent)]
    Pki { source: pki::Error },

    #[snafu(transparent)]
    State { source: state::Error },
}

/// What a [`Cluster`] is started with.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Letters, digits and dashes; names the kubeconfig's context (`vertice-<name>`) and the logs.
    pub name: String,
    pub paths: Paths,
    /// One entry a node, 1 to 4.
    pub nodes: Vec<Location>,
    pub audit: Audit,
    /// Whether etcd waits for the disk. Off by default: a killed process loses nothing by it, a lost machine would.
    pub fsync: bool,
    /// Installs cluster DNS.
    pub dns: bool,
    /// Installs the resource metrics API.
    pub metrics_server: bool,
    /// Loaded into every node before the cluster is called ready.
    pub images: Vec<Image>,
    /// How long a node may be silent before it is NotReady; Kubernetes' own default is 50 s.
    pub node_grace: Duration,
    /// Further flags of kube-apiserver, such as `--feature-gates=…`.
    pub api_server_flags: Vec<String>,
    pub reporter: Reporter,
}

impl ClusterOptions {
    /// A cluster of `nodes` nodes, each in a zone of its own (`zone-a`, `zone-b` …) of region `testbed`.
    pub fn new(name: impl Into<String>, nodes: u8) -> Self {
        let location =
            |letter: char| Location { zone: format!("zone-{letter}"), region: "testbed".to_owned() };
        Self {
            name: name.into(),
            paths: Paths::locate(),
            nodes: ('a'..='z').take(nodes.into()).map(location).collect(),
            audit: Audit::default(),
            fsync: false,
            dns: true,
            metrics_server: false,
            images: Vec::new(),
            node_grace: Duration::from_secs(20),
            api_server_flags: Vec::new(),
            reporter: Reporter::default(),
        }
    }

    fn node_count(&self) -> Result<u8, Error> {
        let nodes = u8::try_from(self.nodes.len()).unwrap_or(u8::MAX);
        if (1..=MAX_NODES).contains(&nodes) { Ok(nodes) } else { NodeCountSnafu { nodes }.fail() }
    }
}

/// A running cluster. Dropping it ends everything that it started.
pub struct Cluster {
    options: ClusterOptions,
    parts: Parts,
    kubeconfig: PathBuf,
    audit_log: Option<PathBuf>,
    client: kube::Client,
    nodes: Vec<Node>,
    processes: Vec<Process>,
    /// Makes and destroys volumes.
    keeper: tokio::task::JoinHandle<()>,
    machine: Arc<Machine>,
    run: Arc<Run>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, nodes, machine, run, .. } = self;
        f.debug_struct("Cluster")
            .field("name", &options.name)
            .field("run", &run.id())
            .field("machine", machine)
            .field("nodes", nodes)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Builds what is missing, starts a cluster and waits until its nodes are Ready and its addons available.
    pub async fn start(options: ClusterOptions) -> Result<Self, Error> {
        options.node_count()?;
        support::check()?;
        start::start(options).await
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client of the administrator (group `system:masters`).
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// kubectl with this cluster's kubeconfig.
    pub fn kubectl(&self) -> Command {
        control_plane::kubectl(&self.parts, &self.kubeconfig)
    }

    /// The built programs, helm and kubectl among them when they were asked for.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// A file for a shell to source: `KUBECONFIG`, and a `PATH` with the built programs.
    pub fn env_file(&self) -> PathBuf {
        self.run.dir().join("env")
    }

    /// The audit log, one JSON event a line; none when [`Audit::Off`] was asked for.
    pub fn audit_log(&self) -> Option<&Path> {
        self.audit_log.as_deref()
    }

    pub fn run(&self) -> &Run {
        &self.run
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by name: `node1` to `node4`.
    pub fn node(&self, name: &str) -> Result<&Node, Error> {
        self.nodes.iter().find(|node| node.name() == name).context(NoNodeSnafu { name })
    }

    /// Loads an image into all nodes that run, at the same time.
    pub async fn load(&self, image: &Image) -> Result<(), Error> {
        start::load(&self.nodes, std::slice::from_ref(image)).await
    }

    /// Waits until the control plane calls a node Ready, or not.
    pub async fn wait_node(&self, name: &str, ready: bool, deadline: Duration) -> Result<(), Error> {
        start::wait_node(&self.client, self.node(name)?, ready, deadline).await
    }

    /// Makes a volume of storage class [`STORAGE_CLASS`] on one node and waits until claims can bind to it. When its claim is deleted, or
    /// the volume itself, its data is destroyed. Claims of that class for which there is none get one made.
    ///
    /// `size` is a Kubernetes quantity such as `1Gi`; it is not enforced.
    pub async fn add_volume(&self, name: &str, size: &str, node: &str) -> Result<(), Error> {
        let volume = volumes::Volume { name, size, node: self.node(node)?, claim: None, modes: None };
        volume.create(&self.client, self.run.id()).await?;
        volumes::wait_available(&self.client, name).await
    }

    /// Gathers what helps to see why a test failed; returns the folder.
    pub async fn collect_failure(&self, test: &str, namespaces: &[&str]) -> PathBuf {
        let source = failures::Source {
            paths: self.options.paths.clone(),
            logs: Some(self.run.logs()),
            kubectl: self.parts.bin("kubectl"),
            kubeconfig: Some(self.kubeconfig.clone()),
            context: None,
        };
        failures::collect(&source, test, namespaces).await
    }

    /// Processes of the control plane and of nodes that have ended though nobody ended them, by name.
    pub fn ended(&self) -> Vec<String> {
        let of_plane = self.processes.iter().filter(|process| process.exited().is_some());
        let of_plane = of_plane.map(|process| process.name().to_owned());
        of_plane.chain(self.nodes.iter().flat_map(Node::ended)).collect()
    }

    /// Ends everything that the cluster started and removes its folder.
    pub async fn shutdown(self) -> Result<(), Error> {
        let dir = self.run.dir().to_owned();
        self.keeper.abort();
        let ended = tokio::task::spawn_blocking(move || {
            let ended = clean::end(&dir);
            drop(self);
            ended
        });
        ended.await.context(ThreadSnafu)?.context(EndSnafu)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
        // All at once, instead of one process after another as the fields are dropped.
        if let Err(error) = clean::end(self.run.dir()) {
            tracing::warn!(run = %self.run.id(), %error, "failed to end the cluster");
        }
    }
}

/// The condition Ready of a node, as its status says.
fn is_ready(node: &core::Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn nodes_api(client: &kube::Client) -> Api<core::Node> {
    Api::all(client.clone())
}
