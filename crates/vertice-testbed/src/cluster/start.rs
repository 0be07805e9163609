//! Starting a cluster: what can go on at the same time does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use snafu::ResultExt;
use tokio::task::{JoinSet, spawn_blocking};

use super::{
    AddonSnafu, Cluster, ClusterOptions, DeploymentSnafu, Error, ImagesSnafu, NodeSnafu, PackagesSnafu,
    PartsSnafu, ThreadSnafu, is_ready, nodes_api, volumes,
};
use crate::addons::{self, Kubectl, KubeletCertificates};
use crate::control_plane::{self, Address, ApiServer, EtcdServer, Managers, Place, READY_DEADLINE};
use crate::images::{self, Image};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::network::Network;
use crate::node::{Node, Site};
use crate::parts::{self, Part, Parts};
use crate::pki::Pki;
use crate::state::{self, Run};
use crate::{apt, wait};

const NODE_DEADLINE: Duration = Duration::from_mins(2);
const ADDON_DEADLINE: Duration = Duration::from_mins(2);

/// Everything that is built before anything is started.
struct Prepared {
    parts: Parts,
    pause: Image,
    /// All images to load.
    images: Vec<Image>,
    dns: Option<Image>,
    metrics_server: Option<Image>,
}

pub(super) async fn start(options: ClusterOptions) -> Result<Cluster, Error> {
    let owned = options.clone();
    let prepared = spawn_blocking(move || prepare(&owned)).await.context(ThreadSnafu)??;
    let begin = Instant::now();
    let owned = options.clone();
    let pause = prepared.parts.bin("pause");
    let ground = spawn_blocking(move || Ground::lay(&owned, &pause)).await.context(ThreadSnafu)??;
    let Ground { run, network, machine, pki } = ground;

    let dir = run.dir().join("control-plane");
    let place = Place::Machine(Arc::clone(&machine));
    let etcd = EtcdServer::start(&place, &prepared.parts, options.fsync)?;
    let api_server = ApiServer {
        name: &options.name,
        dir: &dir,
        address: Address::of_plan(network.plan()),
        etcd: &etcd,
        audit: options.audit,
        flags: &options.api_server_flags,
    };
    let api = api_server.start(&place, &prepared.parts, &pki)?;

    let site = Site {
        run: Arc::clone(&run),
        parts: prepared.parts.clone(),
        network: network.clone(),
        pause: prepared.pause.reference.clone(),
    };
    let nodes = make_nodes(&Arc::new(site), &options, &pki, &api.server)?;
    let booting = tokio::spawn(boot(nodes.clone(), prepared.images.clone()));

    let client = control_plane::client(&api.kubeconfig).await?;
    control_plane::ready(&client, &api.process, READY_DEADLINE).await?;
    options.reporter.done("control plane ready", begin);
    let managers = Managers {
        name: &options.name,
        dir: &dir,
        controller_manager: true,
        scheduler: true,
        flags: &[
            format!("--node-monitor-grace-period={}s", options.node_grace.as_secs()),
            "--node-monitor-period=1s".to_owned(),
        ],
    };
    let mut processes = managers.start(&place, &prepared.parts, &pki, &api.server)?;
    processes.extend([api.process, etcd.into_process()]);

    booting.await.context(ThreadSnafu)??;
    options.reporter.done("nodes booted", begin);
    join(&nodes).await?;
    let cluster = Cluster {
        keeper: tokio::spawn(volumes::keep(client.clone(), nodes.clone(), run.id().to_owned())),
        options,
        parts: prepared.parts.clone(),
        kubeconfig: api.kubeconfig,
        audit_log: api.audit_log,
        client,
        nodes,
        processes,
        machine,
        run,
    };
    finish(&cluster, &prepared, &network, begin).await?;
    Ok(cluster)
}

/// What is set up by short-lived programs, before any process of Kubernetes runs.
struct Ground {
    run: Arc<Run>,
    network: Network,
    machine: Arc<Machine>,
    pki: Pki,
}

impl Ground {
    fn lay(options: &ClusterOptions, init: &std::path::Path) -> Result<Self, Error> {
        let run = Arc::new(Run::create(&options.paths)?);
        let network = Network::create(&run, options.node_count()?)?;
        let machine = Arc::new(Machine::boot(&run, "control-plane", init)?);
        network.connect(&run, &machine, None)?;
        Ok(Self { run, network, machine, pki: Pki::new()? })
    }
}

fn prepare(options: &ClusterOptions) -> Result<Prepared, Error> {
    let paths = &options.paths;
    let ledger = Ledger::open(paths, options.reporter.clone());
    apt::ensure(paths, apt::NODES, &options.reporter).context(PackagesSnafu)?;
    let mut wanted = vec![Part::Kubernetes, Part::Runc, Part::Cni, Part::Containerd, Part::Pause];
    wanted.extend(options.dns.then_some(Part::CoreDns));
    wanted.extend(options.metrics_server.then_some(Part::MetricsServer));
    let parts = parts::ensure(paths, &wanted, &ledger).context(PartsSnafu)?;

    let pause = images::pause(paths, &parts).context(ImagesSnafu)?;
    let dns = options.dns.then(|| images::coredns(paths, &parts)).transpose().context(ImagesSnafu)?;
    let metrics_server = options
        .metrics_server
        .then(|| images::metrics_server(paths, &parts))
        .transpose()
        .context(ImagesSnafu)?;
    let mut all = vec![pause.clone()];
    all.extend(dns.iter().chain(&metrics_server).chain(&options.images).cloned());
    Ok(Prepared { parts, pause, images: all, dns, metrics_server })
}

fn make_nodes(
    site: &Arc<Site>,
    options: &ClusterOptions,
    pki: &Pki,
    server: &str,
) -> Result<Vec<Node>, Error> {
    let numbered = (1..).zip(&options.nodes);
    numbered
        .map(|(number, location)| Ok(Node::create(site, number, location.clone(), pki, server)?))
        .collect()
}

async fn boot(nodes: Vec<Node>, images: Vec<Image>) -> Result<(), Error> {
    each(&nodes, move |node| {
        node.boot()?;
        images.iter().try_for_each(|image| node.import(image))
    })
    .await
}

async fn join(nodes: &[Node]) -> Result<(), Error> {
    each(nodes, Node::join).await
}

pub(super) async fn load(nodes: &[Node], images: &[Image]) -> Result<(), Error> {
    let images = images.to_vec();
    each(nodes, move |node| images.iter().try_for_each(|image| node.import(image))).await
}

/// Does the same with all nodes at the same time.
async fn each<F>(nodes: &[Node], work: F) -> Result<(), Error>
where
    F: Fn(&Node) -> Result<(), crate::node::Error> + Clone + Send + 'static,
{
    let mut threads = JoinSet::new();
    for node in nodes {
        let (work, node) = (work.clone(), node.clone());
        threads.spawn_blocking(move || work(&node));
    }
    while let Some(ended) = threads.join_next().await {
        ended.context(ThreadSnafu)??;
    }
    Ok(())
}

/// Installs what runs in the cluster, and waits for all of it.
async fn finish(
    cluster: &Cluster,
    prepared: &Prepared,
    network: &Network,
    begin: Instant,
) -> Result<(), Error> {
    let reporter = cluster.options.reporter.clone();
    cluster.write_env()?;
    volumes::install_class(&cluster.client).await?;
    install_addons(cluster, prepared, network).await?;
    for node in &cluster.nodes {
        wait_node(&cluster.client, node, true, NODE_DEADLINE).await?;
    }
    reporter.done(&format!("{} node(s) Ready", cluster.nodes.len()), begin);
    if prepared.dns.is_some() {
        wait_deployment(&cluster.client, "kube-system", "coredns").await?;
        reporter.done("cluster DNS ready", begin);
    }
    if prepared.metrics_server.is_some() {
        wait_deployment(&cluster.client, "kube-system", "metrics-server").await?;
        reporter.done("metrics ready", begin);
    }
    Ok(())
}

async fn install_addons(cluster: &Cluster, prepared: &Prepared, network: &Network) -> Result<(), Error> {
    let (kubeconfig, program) = (cluster.kubeconfig.clone(), prepared.parts.bin("kubectl"));
    let address = network.plan().dns_service();
    let (dns, metrics_server) = (prepared.dns.clone(), prepared.metrics_server.clone());
    let installed = spawn_blocking(move || {
        let kubectl = Kubectl { program: &program, kubeconfig: &kubeconfig };
        if let Some(image) = dns {
            addons::install_dns(kubectl, &image, address.into(), "cluster.local")?;
        }
        if let Some(image) = metrics_server {
            addons::install_metrics_server(kubectl, &image, KubeletCertificates::SignedByCluster)?;
        }
        Ok(())
    });
    installed.await.context(ThreadSnafu)?.context(AddonSnafu)
}

impl Cluster {
    fn write_env(&self) -> Result<(), Error> {
        let text = format!(
            "export KUBECONFIG='{}'\nexport PATH='{}':\"$PATH\"\n",
            self.kubeconfig.display(),
            self.parts.path_dir().display()
        );
        Ok(state::write_private(&self.env_file(), text)?)
    }
}

pub(super) async fn wait_node(
    client: &kube::Client,
    node: &Node,
    ready: bool,
    deadline: Duration,
) -> Result<(), Error> {
    let wanted = if ready { "Ready" } else { "NotReady" };
    let api = nodes_api(client);
    let seen = wait::until(format!("node {} to be {wanted}", node.name()), deadline, || async {
        let found = api.get_opt(node.name()).await.map_err(|error| error.to_string())?;
        let found = found.ok_or_else(|| "it has not registered".to_owned())?;
        if is_ready(&found) == ready { Ok(()) } else { Err(conditions(&found)) }
    });
    seen.await.with_context(|_| NodeSnafu { node: node.name(), wanted, ended: node.ended() })
}

fn conditions(node: &k8s_openapi::api::core::v1::Node) -> String {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let shown = conditions.map(|condition| {
        format!(
            "{}={} {}",
            condition.type_,
            condition.status,
            condition.message.as_deref().unwrap_or_default()
        )
    });
    shown.collect::<Vec<_>>().join("; ")
}

async fn wait_deployment(client: &kube::Client, namespace: &str, name: &str) -> Result<(), Error> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let available = wait::until(format!("{namespace}/{name}"), ADDON_DEADLINE, || async {
        let status = api.get(name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let (wanted, available) = (status.replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
        if wanted > 0 && wanted == available {
            Ok(())
        } else {
            Err(format!("{available} of {wanted} available"))
        }
    });
    available.await.context(DeploymentSnafu { namespace, name })
}
