//! Control planes alone: an API server each, as many as wanted on one etcd, on free ports of the loopback address.
//!
//! They need neither root nor a network of their own. The same processes, placed in a machine, run a whole cluster.

mod api_server;
mod etcd;
mod managers;
mod place;

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use snafu::{ResultExt, Snafu};

pub use self::api_server::Audit;
pub(crate) use self::api_server::{Address, ApiServer};
pub(crate) use self::etcd::EtcdServer;
pub(crate) use self::managers::Managers;
pub(crate) use self::place::Place;
use crate::parts::{self, Part, Parts};
use crate::paths::Paths;
use crate::pki::{self, Pki};
use crate::process::{self, Process};
use crate::report::Reporter;
use crate::state::{self, Run};
use crate::{ledger, machine, wait};

pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(90);
/// A port that was free when it was looked for may be taken when it is used.
const PORT_ATTEMPTS: u32 = 5;

#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum Error {
    #[snafu(display("{what} did not become ready; the end of its log:\n{tail}"))]
    NotReady { what: String, source: wait::Deadline, tail: String },

    #[snafu(display("failed to find a free port on 127.0.0.1"))]
    Port { source: std::io::Error },

    #[snafu(display("failed to read the kubeconfig {}", path.display()))]
    ReadKubeconfig { path: PathBuf, source: kube::config::KubeconfigError },

    #[snafu(display("failed to make a client from {}", path.display()))]
    Client {
        path: PathBuf,
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },

    #[snafu(display("a thread that builds parts of the testbed ended early"))]
    Thread { source: tokio::task::JoinError },

    #[snafu(display("failed to get the programs of a control plane"))]
    Parts {
        #[snafu(source(from(parts::Error, Box::new)))]
        source: Box<parts::Error>,
    },

    #[snafu(transparent)]
    Pki { source: pki::Error },

    #[snafu(transparent)]
    Process { source: process::Error },

    #[snafu(transparent)]
    Machine { source: machine::Error },

    #[snafu(transparent)]
    State { source: state::Error },
}

/// What an [`Etcd`] is started with.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// Whether etcd waits for the disk. Off by default: a killed process loses nothing by it, a lost machine would.
    pub fsync: bool,
    pub reporter: Reporter,
}

/// An etcd that several control planes share, and the run they belong to.
#[derive(Clone, Debug)]
pub struct Etcd(Arc<Shared>);

/// Fields are dropped in this order: the run last, as it sweeps.
#[derive(Debug)]
struct Shared {
    server: EtcdServer,
    parts: Parts,
    reporter: Reporter,
    run: Arc<Run>,
}

impl Etcd {
    /// Builds what is missing, then starts an etcd that listens on a socket of the run's folder only.
    pub async fn start(paths: &Paths, options: EtcdOptions) -> Result<Self, Error> {
        let (owned, reporter) = (paths.clone(), options.reporter.clone());
        let parts = tokio::task::spawn_blocking(move || {
            parts::ensure(&owned, &[Part::Kubernetes], &ledger::Ledger::open(&owned, reporter))
        });
        let parts = parts.await.context(ThreadSnafu)?.context(PartsSnafu)?;
        let run = Arc::new(Run::create(paths)?);
        let server = EtcdServer::start(&Place::Host(Arc::clone(&run)), &parts, options.fsync)?;
        Ok(Self(Arc::new(Shared { server, parts, reporter: options.reporter, run })))
    }

    pub fn run(&self) -> &Run {
        &self.0.run
    }
}

/// What a [`ControlPlane`] is started with.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    /// Letters, digits and dashes; unique among the control planes of one etcd.
    pub name: String,
    pub audit: Audit,
    /// Runs kube-controller-manager: service accounts, garbage collection, Jobs, endpoints.
    pub controller_manager: bool,
    /// Runs kube-scheduler.
    pub scheduler: bool,
    /// Further flags of kube-apiserver, such as `--feature-gates=…`.
    pub api_server_flags: Vec<String>,
}

impl ControlPlaneOptions {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            audit: Audit::default(),
            controller_manager: false,
            scheduler: false,
            api_server_flags: Vec::new(),
        }
    }
}

/// A control plane without nodes. Dropping it ends its processes; the last one on an etcd ends the run.
pub struct ControlPlane {
    api_server: Process,
    managers: Vec<Process>,
    kubeconfig: PathBuf,
    server: String,
    audit_log: Option<PathBuf>,
    client: kube::Client,
    etcd: Etcd,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane")
            .field("server", &self.server)
            .field("etcd", &self.etcd)
            .finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts a control plane on `etcd` and waits until it answers.
    pub async fn start(etcd: &Etcd, options: ControlPlaneOptions) -> Result<Self, Error> {
        let start = Instant::now();
        let mut attempt = 1;
        let plane = loop {
            match Self::try_start(etcd, &options).await {
                Err(Error::NotReady { tail, .. })
                    if tail.contains("address already in use") && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                outcome => break outcome?,
            }
        };
        etcd.0.reporter.done(&format!("control plane {} ready", options.name), start);
        Ok(plane)
    }

    async fn try_start(etcd: &Etcd, options: &ControlPlaneOptions) -> Result<Self, Error> {
        let Shared { server, parts, run, .. } = &*etcd.0;
        let place = Place::Host(Arc::clone(run));
        let dir = run.dir().join("control-planes").join(&options.name);
        let pki = Pki::new()?;
        let api_server = ApiServer {
            name: &options.name,
            dir: &dir,
            address: Address::loopback(free_port()?),
            etcd: server,
            audit: options.audit,
            flags: &options.api_server_flags,
        };
        let api = api_server.start(&place, parts, &pki)?;
        let client = client(&api.kubeconfig).await?;
        ready(&client, &api.process, READY_DEADLINE).await?;
        let managers = Managers {
            name: &options.name,
            dir: &dir,
            controller_manager: options.controller_manager,
            scheduler: options.scheduler,
            flags: &[],
        };
        let managers = managers.start(&place, parts, &pki, &api.server)?;
        if let Some(manager) = managers.first().filter(|_| options.controller_manager) {
            managers::ready(&client, manager).await?;
        }
        Ok(Self {
            api_server: api.process,
            managers,
            kubeconfig: api.kubeconfig,
            server: api.server,
            audit_log: api.audit_log,
            client,
            etcd: etcd.clone(),
        })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client of the administrator (group `system:masters`).
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The API server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The audit log, one JSON event a line; none when [`Audit::Off`] was asked for.
    pub fn audit_log(&self) -> Option<&Path> {
        self.audit_log.as_deref()
    }

    /// kubectl with this control plane's kubeconfig.
    pub fn kubectl(&self) -> Command {
        kubectl(&self.etcd.0.parts, &self.kubeconfig)
    }

    pub fn run(&self) -> &Run {
        self.etcd.run()
    }

    /// Ends the API server on the spot, as a power cut would. What it stored is in etcd.
    pub fn stop_api_server(&self) {
        self.api_server.kill();
    }

    /// Starts the API server again at the address that it had, after ending it if it runs, and waits until it answers.
    pub async fn restart_api_server(&mut self) -> Result<(), Error> {
        let Shared { run, .. } = &*self.etcd.0;
        self.api_server.restart(run)?;
        ready(&self.client, &self.api_server, READY_DEADLINE).await
    }

    /// Processes that have ended, by name.
    pub fn ended(&self) -> Vec<&str> {
        let processes = std::iter::once(&self.api_server).chain(&self.managers);
        processes.filter(|process| process.exited().is_some()).map(Process::name).collect()
    }
}

pub(crate) fn kubectl(parts: &Parts, kubeconfig: &Path) -> Command {
    let mut command = Command::new(parts.bin("kubectl"));
    command.env("KUBECONFIG", kubeconfig);
    command
}

pub(crate) async fn client(kubeconfig: &Path) -> Result<kube::Client, Error> {
    let config = Kubeconfig::read_from(kubeconfig).context(ReadKubeconfigSnafu { path: kubeconfig })?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    let mut config = config.context(ReadKubeconfigSnafu { path: kubeconfig })?;
    // Our clusters are on this machine: a proxy of the environment does not know them.
    config.proxy_url = None;
    kube::Client::try_from(config).context(ClientSnafu { path: kubeconfig })
}

/// Waits until the API server says so itself.
pub(crate) async fn ready(client: &kube::Client, process: &Process, deadline: Duration) -> Result<(), Error> {
    let answered = wait::until("/readyz", deadline, || async {
        let request = http::Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
        let answer = client.request_text(request).await.map(drop).map_err(|error| error.to_string());
        given_up(process, answer)
    });
    flatten(answered.await, process)
}

/// The outcome of a look at something that `process` does; a process that has ended is not waited for.
pub(crate) fn given_up<T>(process: &Process, answer: Result<T, String>) -> wait::Look<Result<T, String>> {
    match (answer, process.exited()) {
        (Ok(found), _) => Ok(Ok(found)),
        (Err(_), Some(status)) => Ok(Err(format!("it ended with {status}"))),
        (Err(missing), None) => Err(missing),
    }
}

/// Joins the two ways of not becoming ready to one error, with the end of the log.
pub(crate) fn flatten<T>(
    outcome: Result<Result<T, String>, wait::Deadline>,
    process: &Process,
) -> Result<T, Error> {
    let deadline = match outcome {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(last)) => wait::Deadline::missed(process.name(), Duration::ZERO, last),
        Err(deadline) => deadline,
    };
    Err(deadline).context(NotReadySnafu { what: process.name(), tail: process.log_tail(20) })
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(PortSnafu)?;
    Ok(listener.local_addr().context(PortSnafu)?.port())
}
