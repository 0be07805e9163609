//! Cluster add-ons: manifests under `testbed/addons/`, filled in and applied through kubectl.

mod certificate;

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use snafu::{ResultExt, Snafu};

use crate::images::Image;
use crate::tool;

const DNS: &str = include_str!("../../../testbed/addons/coredns.yaml");
const METRICS_SERVER: &str = include_str!("../../../testbed/addons/metrics-server.yaml");

#[derive(Debug, Snafu)]
pub enum Error {
    #[snafu(display("failed to apply the add-on {addon}"))]
    Apply { addon: &'static str, source: tool::Error },

    #[snafu(display("failed to make the certificate of {addon}"))]
    Certificate { addon: &'static str, source: rcgen::Error },

    #[snafu(display("the manifest of {addon} has a blank that nothing fills: {line}"))]
    Blank { addon: &'static str, line: String },
}

/// The kubectl to apply with, and the cluster to apply to.
#[derive(Debug, Clone, Copy)]
pub struct Kubectl<'a> {
    pub program: &'a Path,
    pub kubeconfig: &'a Path,
}

/// How metrics-server judges the certificates of kubelets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeletCertificates {
    /// Signed by the authority of the cluster, which every namespace has in the ConfigMap `kube-root-ca.crt`.
    SignedByCluster,
    /// Anything goes: for clusters of others, whose kubelets sign for themselves.
    Unchecked,
}

/// Installs cluster DNS as Service `kube-system/kube-dns` at `cluster_ip`, for names under `domain`
/// (`cluster.local`). Nodes must have the image. Applying again changes what differs.
pub fn install_dns(
    kubectl: Kubectl<'_>,
    image: &Image,
    cluster_ip: IpAddr,
    domain: &str,
) -> Result<(), Error> {
    let blanks =
        [("IMAGE", image.reference.as_str()), ("CLUSTER_IP", &cluster_ip.to_string()), ("DOMAIN", domain)];
    kubectl.apply("coredns", DNS, &blanks)
}

/// Installs the resource metrics API, with a certificate that the API server checks. Nodes must have the image.
pub fn install_metrics_server(
    kubectl: Kubectl<'_>,
    image: &Image,
    kubelets: KubeletCertificates,
) -> Result<(), Error> {
    let addon = "metrics-server";
    let served =
        certificate::for_service("metrics-server.kube-system.svc").context(CertificateSnafu { addon })?;
    let trust = match kubelets {
        KubeletCertificates::SignedByCluster => "--kubelet-certificate-authority=/cluster-authority/ca.crt",
        KubeletCertificates::Unchecked => "--kubelet-insecure-tls",
    };
    let blanks = [
        ("IMAGE", image.reference.as_str()),
        ("KUBELET_TRUST", trust),
        ("AUTHORITY", &served.authority),
        ("CERTIFICATE", &served.certificate),
        ("KEY", &served.key),
        ("CERTIFICATE_ID", &served.id),
    ];
    kubectl.apply(addon, METRICS_SERVER, &blanks)
}

impl Kubectl<'_> {
    fn apply(self, addon: &'static str, manifest: &str, blanks: &[(&str, &str)]) -> Result<(), Error> {
        let manifest = fill(addon, manifest, blanks)?;
        let mut command = Command::new(self.program);
        command
            .env("KUBECONFIG", self.kubeconfig)
            .args(["apply", "--server-side", "--force-conflicts", "--field-manager=vertice-testbed"])
            .args(["--filename", "-"]);
        tool::run_with(&mut command, &manifest).context(ApplySnafu { addon })?;
        Ok(())
    }
}

/// Replaces each `${NAME}`.
fn fill(addon: &'static str, manifest: &str, blanks: &[(&str, &str)]) -> Result<String, Error> {
    let mut filled = manifest.to_owned();
    for (name, value) in blanks {
        filled = filled.replace(&format!("${{{name}}}"), value);
    }
    match filled.lines().find(|line| line.contains("${")) {
        Some(line) => BlankSnafu { addon, line: line.trim() }.fail(),
        None => Ok(filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_that_nothing_fills_is_an_error_that_shows_it() {
        assert_eq!(fill("x", "a: ${A}\n", &[("A", "1")]).unwrap(), "a: 1\n");
        let error = fill("x", "a: ${A}\nb: ${B}\n", &[("A", "1")]).unwrap_err().to_string();
        assert!(error.ends_with("b: ${B}"), "{error}");
    }

    /// Runs a stand-in for kubectl that fails unless the manifest on its input has every one of `expected`.
    fn applied(expected: &[&str], install: impl FnOnce(Kubectl<'_>) -> Result<(), Error>) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("kubectl");
        let seen = folder.path().join("seen");
        std::fs::write(
            &program,
            format!("#!/bin/sh\necho \"$KUBECONFIG $*\" > {0}\ncat >> {0}\n", seen.display()),
        )
        .unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        install(Kubectl { program: &program, kubeconfig: Path::new("/kube/config") }).unwrap();
        let seen = std::fs::read_to_string(seen).unwrap();
        for text in expected {
            assert!(seen.contains(text), "{text} is not in\n{seen}");
        }
    }

    fn image() -> Image {
        Image { reference: "registry.local/x:012345678901".into(), archive: "/x.tar".into() }
    }

    #[test]
    fn dns_gets_its_address_domain_and_image() {
        let expected = [
            "/kube/config apply --server-side",
            "image: registry.local/x:012345678901",
            "clusterIP: 10.96.0.10",
            "kubernetes cluster.test in-addr.arpa",
        ];
        applied(&expected, |kubectl| install_dns(kubectl, &image(), [10, 96, 0, 10].into(), "cluster.test"));
    }

    #[test]
    fn metrics_server_checks_kubelets_unless_told_otherwise() {
        use KubeletCertificates::{SignedByCluster, Unchecked};
        let signed = ["--kubelet-certificate-authority=/cluster-authority/ca.crt", "caBundle: "];
        applied(&signed, |kubectl| install_metrics_server(kubectl, &image(), SignedByCluster));
        applied(&["--kubelet-insecure-tls"], |kubectl| install_metrics_server(kubectl, &image(), Unchecked));
    }
}
