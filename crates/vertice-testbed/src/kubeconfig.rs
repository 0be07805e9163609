//! kubeconfig files with everything embedded, so that one file is all a person or a process needs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pki::Pair;

/// The text of a kubeconfig with one context, named `name`.
pub fn render(name: &str, server: &str, authority: &str, user: &Pair) -> String {
    let [authority, certificate, key] =
        [authority, &user.certificate, &user.key].map(|pem| STANDARD.encode(pem.as_bytes()));
    format!(
        "\
apiVersion: v1
kind: Config
current-context: {name}
contexts:
- name: {name}
  context: {{cluster: {name}, user: {name}}}
clusters:
- name: {name}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {name}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;
    use crate::pki::Pki;

    #[test]
    fn a_client_reads_it_and_finds_everything_embedded() {
        let pki = Pki::new().unwrap();
        let user = pki.user("admin", Some("system:masters")).unwrap();
        let text = render("demo", "https://192.0.2.1:6443", &pki.authority.pair().certificate, &user);
        let config = Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("demo"));
        let cluster = config.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://192.0.2.1:6443"));
        assert_eq!(cluster.insecure_skip_tls_verify, None);
        let authority = STANDARD.decode(cluster.certificate_authority_data.unwrap()).unwrap();
        assert_eq!(authority, pki.authority.pair().certificate.as_bytes());
    }
}
