//! kube-apiserver: certificates, audit policy, flags.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::{Error, EtcdServer, Place};
use crate::kubeconfig;
use crate::network::Plan;
use crate::parts::Parts;
use crate::pki::{Pair, Pki, Subject};
use crate::process::Process;
use crate::state::{self, Run};

/// What the API server writes to its audit log, for every request of everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audit {
    Off,
    /// Who did what to which object, and the answer's code.
    #[default]
    Metadata,
    /// The bodies as well.
    RequestResponse,
}

impl Audit {
    fn policy(self) -> Option<String> {
        let level = match self {
            Self::Off => return None,
            Self::Metadata => "Metadata",
            Self::RequestResponse => "RequestResponse",
        };
        Some(format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{{level: {level}}}]\n"
        ))
    }
}

/// Where an API server answers, and what it believes about its cluster's network.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    ip: Ipv4Addr,
    port: u16,
    services: String,
    api_service: Ipv4Addr,
    /// Whether it publishes its address as the endpoint of the Service `kubernetes`.
    publish: bool,
}

impl Address {
    /// For a control plane without nodes: nothing in it ever uses a ClusterIP.
    pub(crate) fn loopback(port: u16) -> Self {
        Self {
            ip: Ipv4Addr::LOCALHOST,
            port,
            services: "10.0.0.0/24".to_owned(),
            api_service: Ipv4Addr::new(10, 0, 0, 1),
            publish: false,
        }
    }

    pub(crate) fn of_plan(plan: Plan) -> Self {
        Self {
            ip: plan.control_plane(),
            port: 6443,
            services: plan.services().to_string(),
            api_service: plan.api_service(),
            publish: true,
        }
    }

    /// Names and addresses that the server's certificate is for.
    fn hosts(&self) -> Vec<String> {
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut hosts: Vec<String> = names.into_iter().map(str::to_owned).collect();
        hosts.push("kubernetes.default.svc.cluster.local".to_owned());
        hosts.extend([Ipv4Addr::LOCALHOST, self.ip, self.api_service].map(|ip| ip.to_string()));
        hosts
    }
}

/// An API server to be started.
#[derive(Debug)]
pub(crate) struct ApiServer<'a> {
    pub(crate) name: &'a str,
    pub(crate) dir: &'a Path,
    pub(crate) address: Address,
    pub(crate) etcd: &'a EtcdServer,
    pub(crate) audit: Audit,
    pub(crate) flags: &'a [String],
}

/// A started one; whether it is ready is asked later.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) server: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) audit_log: Option<PathBuf>,
}

impl ApiServer<'_> {
    pub(crate) fn start(&self, place: &Place, parts: &Parts, pki: &Pki) -> Result<Started, Error> {
        let run = place.run();
        let server = format!("https://{}:{}", self.address.ip, self.address.port);
        let kubeconfig = self.dir.join("kubeconfig");
        let admin = pki.user("kubernetes-admin", Some("system:masters"))?;
        let name = format!("vertice-{}", self.name);
        state::write_private(
            &kubeconfig,
            kubeconfig::render(&name, &server, &pki.authority.pair().certificate, &admin),
        )?;

        let mut command = place.command(parts.bin("kube-apiserver"));
        command.args(self.serving(pki)?).args(self.cluster_flags());
        let audit_log = self.audit_log(run)?;
        if let Some(log) = &audit_log {
            command.arg(format!("--audit-policy-file={}", self.dir.join("audit-policy.yaml").display()));
            command.arg(format!("--audit-log-path={}", log.display()));
        }
        command.args(self.flags);
        let process = place.spawn(Some(self.name), "kube-apiserver", command)?;
        Ok(Started { process, server, kubeconfig, audit_log })
    }

    fn audit_log(&self, run: &Run) -> Result<Option<PathBuf>, Error> {
        let Some(policy) = self.audit.policy() else { return Ok(None) };
        state::write_private(&self.dir.join("audit-policy.yaml"), policy)?;
        let log = run.logs().join(format!("{}-audit.log", self.name));
        state::write_private(&log, "")?;
        Ok(Some(log))
    }

    /// Writes certificates and keys, and returns the flags that name them.
    fn serving(&self, pki: &Pki) -> Result<Vec<String>, Error> {
        let hosts = self.address.hosts();
        let serving = Subject { name: "kube-apiserver", group: None, hosts: &hosts };
        let serving = pki.authority.issue(&serving)?;
        let to_kubelets = pki.user("kube-apiserver-kubelet-client", Some("system:masters"))?;
        let to_extensions =
            pki.front_proxy.issue(&Subject { name: "front-proxy-client", ..Subject::default() })?;

        let mut flags = Vec::new();
        let mut file = |flag: &str, name: &str, text: &str| -> Result<(), Error> {
            let path = self.dir.join("pki").join(name);
            state::write_private(&path, text)?;
            flags.push(format!("--{flag}={}", path.display()));
            Ok(())
        };
        let authority = &pki.authority.pair().certificate;
        file("client-ca-file", "ca.crt", authority)?;
        file("kubelet-certificate-authority", "ca.crt", authority)?;
        file("requestheader-client-ca-file", "front-proxy-ca.crt", &pki.front_proxy.pair().certificate)?;
        let mut pair = |flags: [&str; 2], name: &str, pair: &Pair| -> Result<(), Error> {
            file(flags[0], &format!("{name}.crt"), &pair.certificate)?;
            file(flags[1], &format!("{name}.key"), &pair.key)
        };
        pair(["tls-cert-file", "tls-private-key-file"], "apiserver", &serving)?;
        pair(["kubelet-client-certificate", "kubelet-client-key"], "kubelet-client", &to_kubelets)?;
        pair(["proxy-client-cert-file", "proxy-client-key-file"], "front-proxy-client", &to_extensions)?;
        file("service-account-key-file", "sa.pub", &pki.token_key.public)?;
        file("service-account-signing-key-file", "sa.key", &pki.token_key.private)?;
        Ok(flags)
    }

    fn cluster_flags(&self) -> Vec<String> {
        let Address { ip, port, services, publish, .. } = &self.address;
        let mut flags = vec![
            format!("--etcd-servers=unix://{}", self.etcd.socket().display()),
            format!("--etcd-prefix=/{}", self.name),
            format!("--bind-address={ip}"),
            format!("--secure-port={port}"),
            format!("--service-cluster-ip-range={services}"),
        ];
        if *publish {
            flags.push(format!("--advertise-address={ip}"));
        } else {
            // An address must be given, and may not be a loopback one; it is published nowhere.
            flags.extend(
                ["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"].map(str::to_owned),
            );
        }
        flags.extend(COMMON.iter().map(|flag| (*flag).to_owned()));
        flags
    }
}

const COMMON: &[&str] = &[
    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    "--allow-privileged=true",
    "--kubelet-preferred-address-types=InternalIP",
    // Webhooks and extension API servers are called at their pods' addresses, as no kube-proxy runs beside the API server.
    "--enable-aggregator-routing=true",
    "--requestheader-allowed-names=front-proxy-client",
    "--requestheader-username-headers=X-Remote-User",
    "--requestheader-group-headers=X-Remote-Group",
    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    "--profiling=false",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_for_the_service_and_the_address() {
        let hosts = Address::loopback(1).hosts();
        for host in ["kubernetes.default.svc", "127.0.0.1", "10.0.0.1"] {
            assert!(hosts.iter().any(|have| have == host), "{host} is missing in {hosts:?}");
        }
    }
}
