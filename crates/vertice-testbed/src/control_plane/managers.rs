//! kube-controller-manager and kube-scheduler. They serve no port; each is a client of the API server only.

use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;

use super::{Error, Place, READY_DEADLINE, flatten, given_up};
use crate::kubeconfig;
use crate::parts::Parts;
use crate::pki::Pki;
use crate::process::Process;
use crate::{state, wait};

/// The managers to be started.
#[derive(Debug)]
pub(crate) struct Managers<'a> {
    pub(crate) name: &'a str,
    pub(crate) dir: &'a Path,
    pub(crate) controller_manager: bool,
    pub(crate) scheduler: bool,
    /// Further flags of kube-controller-manager.
    pub(crate) flags: &'a [String],
}

impl Managers<'_> {
    /// The controller manager comes first.
    pub(crate) fn start(
        &self,
        place: &Place,
        parts: &Parts,
        pki: &Pki,
        server: &str,
    ) -> Result<Vec<Process>, Error> {
        let mut started = Vec::new();
        let pki_dir = self.dir.join("pki");
        if self.controller_manager {
            state::write_private(&pki_dir.join("ca.key"), &pki.authority.pair().key)?;
            let file = |flag: &str, name: &str| format!("--{flag}={}", pki_dir.join(name).display());
            let mut flags = vec![
                file("root-ca-file", "ca.crt"),
                file("cluster-signing-cert-file", "ca.crt"),
                file("cluster-signing-key-file", "ca.key"),
                file("service-account-private-key-file", "sa.key"),
                "--use-service-account-credentials=true".to_owned(),
                // The defaults spread the start over seconds; here is one cluster, and nobody else to spare.
                "--kube-api-qps=500".to_owned(),
                "--kube-api-burst=1000".to_owned(),
            ];
            flags.extend_from_slice(self.flags);
            started.push(self.spawn(place, parts, pki, server, "kube-controller-manager", &flags)?);
        }
        if self.scheduler {
            started.push(self.spawn(place, parts, pki, server, "kube-scheduler", &[])?);
        }
        Ok(started)
    }

    fn spawn(
        &self,
        place: &Place,
        parts: &Parts,
        pki: &Pki,
        server: &str,
        program: &str,
        flags: &[String],
    ) -> Result<Process, Error> {
        let user = format!("system:{program}");
        let text =
            kubeconfig::render(program, server, &pki.authority.pair().certificate, &pki.user(&user, None)?);
        let path = self.dir.join(format!("{program}.kubeconfig"));
        state::write_private(&path, text)?;
        let mut command = place.command(parts.bin(program));
        command.arg(format!("--kubeconfig={}", path.display()));
        command.args(["--leader-elect=false", "--secure-port=0", "--profiling=false"]).args(flags);
        place.spawn(Some(self.name), program, command)
    }
}

/// Waits until pods could be made: the namespace `default` has its service account and the authority's certificate.
pub(crate) async fn ready(client: &kube::Client, manager: &Process) -> Result<(), Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let both = wait::until("the default service account", READY_DEADLINE, || async {
        let look = async {
            accounts.get("default").await?;
            maps.get("kube-root-ca.crt").await.map(drop)
        };
        given_up(manager, look.await.map_err(|error: kube::Error| error.to_string()))
    });
    flatten(both.await, manager)
}
