//! What the demo stands on: a cluster of its own on this machine, or one of the user's.

use std::path::PathBuf;

use anyhow::{Result, bail};
use vertice_e2e::harness::Images;
use vertice_e2e::kubectl::Kubectl;
use vertice_e2e::operator;
use vertice_e2e::postgres::Volume;
use vertice_testbed::cluster::{Cluster, ClusterOptions, STORAGE_CLASS};
use vertice_testbed::external::External;
use vertice_testbed::images::Image;
use vertice_testbed::ledger::{Ledger, human_bytes};
use vertice_testbed::parts::{self, Part, Parts};
use vertice_testbed::paths::Paths;
use vertice_testbed::report::Reporter;

use super::Args;
use super::screen::Step;
use crate::prepare::{self, Built};

/// A place to run the demo in.
pub struct Ground {
    pub paths: Paths,
    pub kubectl: Kubectl,
    pub images: Images,
    /// The `vertice` binary.
    pub vertice: PathBuf,
    pub namespace: String,
    pub operator_namespace: String,
    place: Place,
}

enum Place {
    Ours(Box<Cluster>),
    Theirs { external: Box<External>, had_definitions: bool },
}

impl Ground {
    /// Builds what is missing and makes a cluster, or namespaces in the user's.
    pub async fn prepare(args: &Args) -> Result<Self> {
        let paths = Paths::locate();
        let built = build(&paths, args).await?;
        match &args.context {
            None => Self::ours(paths, built).await,
            Some(context) => Self::theirs(paths, built, context, args.registry.as_deref()).await,
        }
    }

    async fn ours(paths: Paths, built: Built) -> Result<Self> {
        let step = Step::begin("cluster", "a control plane and a node");
        let images = built.all().map(Clone::clone).to_vec();
        let reporter = Reporter::new(step.listener());
        let options = ClusterOptions {
            fsync: true,
            images,
            reporter,
            paths: paths.clone(),
            ..ClusterOptions::new("demo", 1)
        };
        let cluster = Cluster::start(options).await?;
        let kubectl = Kubectl::new(built.parts.path_dir(), Some(cluster.kubeconfig()), None);
        let version = kubectl.json(&["version"]).await?;
        step.done(&format!(
            "Kubernetes {}, 1 node Ready",
            version["serverVersion"]["gitVersion"].as_str().unwrap_or("?")
        ));
        let (namespace, operator_namespace) = ("demo".to_owned(), "vertice-system".to_owned());
        kubectl.create_namespace(&namespace).await?;
        kubectl.create_namespace(&operator_namespace).await?;
        let images = built.references(None);
        let place = Place::Ours(Box::new(cluster));
        Ok(Self {
            images,
            vertice: built.vertice_binary,
            paths,
            kubectl,
            namespace,
            operator_namespace,
            place,
        })
    }

    async fn theirs(paths: Paths, built: Built, context: &str, registry: Option<&str>) -> Result<Self> {
        let step = Step::begin("cluster", "namespaces in your cluster");
        let external = External::from_context(&paths, context).await?;
        let kubectl = Kubectl::new(built.parts.path_dir(), None, Some(context));
        let release = kubectl
            .run(&["get", "clusterroles", "-o", "name", "-l", "app.kubernetes.io/part-of=vertice"])
            .await?;
        if !release.trim().is_empty() {
            bail!(
                "Vertice is installed in context {context} already ({}); the demo would change it: choose another cluster",
                release.trim()
            );
        }
        let had_definitions = kubectl.run(&["get", "crd", "verticebackups.vertice.io"]).await.is_ok();
        let suffix = external.run().id().to_owned();
        let namespace = external.make_namespace(&format!("vertice-demo-{suffix}")).await?;
        let operator_namespace = external.make_namespace(&format!("vertice-system-{suffix}")).await?;
        step.done(&format!("namespaces {namespace} and {operator_namespace} in context {context}"));
        let images = built.references(registry);
        let place = Place::Theirs { external: Box::new(external), had_definitions };
        Ok(Self {
            images,
            vertice: built.vertice_binary,
            paths,
            kubectl,
            namespace,
            operator_namespace,
            place,
        })
    }

    /// A volume by this claim: of our own class, or of the user's default class.
    pub fn volume(&self, claim: &str) -> Volume {
        let class = match self.place {
            Place::Ours(_) => Some(STORAGE_CLASS.to_owned()),
            Place::Theirs { .. } => None,
        };
        Volume::Claim { name: claim.to_owned(), class }
    }

    /// What a person sources to look around.
    pub fn env_file(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Ours(cluster) => Some(cluster.env_file()),
            Place::Theirs { .. } => None,
        }
    }

    /// Leaves the ground as it was found.
    pub async fn leave(self) -> Result<()> {
        match self.place {
            Place::Ours(cluster) => Ok(cluster.shutdown().await?),
            Place::Theirs { external, had_definitions } => {
                let step = Step::begin("clean up", "namespaces, roles and definitions that the demo made");
                operator::uninstall(&self.kubectl, &self.operator_namespace).await?;
                if !had_definitions {
                    let words = [
                        "delete",
                        "crd",
                        "--ignore-not-found",
                        "verticebackups.vertice.io",
                        "verticerestores.vertice.io",
                    ];
                    self.kubectl.run(&words).await?;
                }
                external.shutdown().await?;
                step.done("nothing of the demo is left in your cluster");
                Ok(())
            }
        }
    }
}

async fn build(paths: &Paths, args: &Args) -> Result<Built> {
    let mut wanted = vec![Part::Kubernetes, Part::Helm, Part::VersityGw];
    if args.context.is_none() {
        wanted.extend(Part::CLUSTER);
    }
    let step = Step::begin("programs", "Kubernetes and its companions from Go modules");
    let ledger = Ledger::open(paths, Reporter::new(step.listener()));
    let parts = ensure(paths, wanted, &ledger).await?;
    step.done(&format!("in {}", parts.path_dir().display()));

    let step = Step::begin("images", "operator and agent in release mode, PostgreSQL from Debian packages");
    let ledger = Ledger::open(paths, Reporter::new(step.listener()));
    let built = prepare::images(paths, &parts, &ledger).await?;
    let size = |image: &Image| image.bytes().map(human_bytes);
    step.done(&format!(
        "operator {}, agent {}, PostgreSQL {}",
        size(&built.product.vertice)?,
        size(&built.product.agent)?,
        size(&built.postgres)?
    ));
    Ok(built)
}

async fn ensure(paths: &Paths, wanted: Vec<Part>, ledger: &Ledger) -> Result<Parts> {
    let (paths, ledger) = (paths.clone(), ledger.clone());
    Ok(tokio::task::spawn_blocking(move || parts::ensure(&paths, &wanted, &ledger)).await??)
}
