//! A cluster of the user's, by its kubeconfig context. Only namespaces that are made here are touched, and removed again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, ResourceExt};
use snafu::{ResultExt, Snafu};

use crate::clean::{self, RUN_LABEL};
use crate::failures;
use crate::paths::Paths;
use crate::state::{self, Record, Run};
use crate::tool;

const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display(
        "there is no usable context {context} in your kubeconfig (`kubectl config get-contexts` lists them)"
    ))]
    Context { context: String, source: KubeconfigError },

    #[snafu(display("failed to make a client for context {context}"))]
    Client {
        context: String,
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },

    #[snafu(display("the cluster of context {context} does not answer: {reason}"))]
    Silent { context: String, reason: String },

    #[snafu(display("failed to make namespace {namespace} in the cluster of context {context}"))]
    MakeNamespace {
        namespace: String,
        context: String,
        #[snafu(source(from(kube::Error, Box::new)))]
        source: Box<kube::Error>,
    },

    #[snafu(display("a thread that cleans up ended early"))]
    Thread { source: tokio::task::JoinError },

    #[snafu(display("failed to remove what was made in the cluster of context {context}"))]
    End {
        context: String,
        #[snafu(source(from(clean::Error, Box::new)))]
        source: Box<clean::Error>,
    },

    #[snafu(transparent)]
    State { source: state::Error },
}

/// A cluster that is not ours. Dropping it without [`External::shutdown`] removes what was made there as well.
pub struct External {
    context: String,
    client: kube::Client,
    kubectl: PathBuf,
    kubeconfig: Option<PathBuf>,
    run: Run,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External")
            .field("context", &self.context)
            .field("run", &self.run.id())
            .finish_non_exhaustive()
    }
}

impl External {
    /// Connects to the cluster of a context of the user's kubeconfig (`KUBECONFIG`, else `~/.kube/config`), and asks it for
    /// its version.
    pub async fn from_context(paths: &Paths, context: &str) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let config = kube::Config::from_kubeconfig(&options).await.context(ContextSnafu { context })?;
        Self::connect(paths, config, std::env::var_os("KUBECONFIG").map(PathBuf::from), context).await
    }

    /// As [`External::from_context`], with the context in a file.
    pub async fn from_file(paths: &Paths, file: &Path, context: &str) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let config = Kubeconfig::read_from(file).context(ContextSnafu { context })?;
        let config =
            kube::Config::from_custom_kubeconfig(config, &options).await.context(ContextSnafu { context })?;
        Self::connect(paths, config, Some(file.to_owned()), context).await
    }

    async fn connect(
        paths: &Paths,
        config: kube::Config,
        kubeconfig: Option<PathBuf>,
        context: &str,
    ) -> Result<Self, Error> {
        let client = kube::Client::try_from(config).context(ClientSnafu { context })?;
        let answer = tokio::time::timeout(ANSWER_DEADLINE, client.apiserver_version()).await;
        match answer {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return SilentSnafu { context, reason: error.to_string() }.fail(),
            Err(_) => {
                let reason = format!("nothing came within {} s", ANSWER_DEADLINE.as_secs());
                return SilentSnafu { context, reason }.fail();
            }
        }
        let run = Run::create(paths)?;
        // Before the first namespace is made: whoever ends this run looks there for all that bear its label.
        run.record(&Record::External { kubeconfig: kubeconfig.clone(), context: context.to_owned() })?;
        Ok(Self {
            context: context.to_owned(),
            client,
            kubectl: tool::kubectl(&paths.bin()),
            kubeconfig,
            run,
        })
    }

    pub fn context(&self) -> &str {
        &self.context
    }

    /// A client of the user.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// kubectl of the user, in this context.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(["--context", &self.context]);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command
    }

    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Makes a namespace that is removed at the end. A namespace of that name that is there already is an error.
    pub async fn make_namespace(&self, name: &str) -> Result<String, Error> {
        let labels = [(RUN_LABEL.to_owned(), self.run.id().to_owned())].into();
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        let api: Api<Namespace> = Api::all(self.client.clone());
        let made = api.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await;
        let made = made.context(MakeNamespaceSnafu { namespace: name, context: &self.context })?;
        Ok(made.name_any())
    }

    /// Gathers what helps to see why a test failed; returns the folder.
    pub async fn collect_failure(&self, test: &str, namespaces: &[&str]) -> PathBuf {
        let source = failures::Source {
            paths: self.run.paths().clone(),
            logs: None,
            kubectl: self.kubectl.clone(),
            kubeconfig: self.kubeconfig.clone(),
            context: Some(self.context.clone()),
        };
        failures::collect(&source, test, namespaces).await
    }

    /// Removes all namespaces that were made, and waits until they are gone.
    pub async fn shutdown(self) -> Result<(), Error> {
        let (dir, context) = (self.run.dir().to_owned(), self.context.clone());
        let ended = tokio::task::spawn_blocking(move || end(&dir, self)).await.context(ThreadSnafu)?;
        ended.context(EndSnafu { context })
    }
}

fn end(dir: &Path, external: External) -> Result<(), clean::Error> {
    let ended = clean::end(dir);
    drop(external);
    ended
}
