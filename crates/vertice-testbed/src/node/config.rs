//! The files that a node's agents read. Each setting that is not plain was found by a failure without it.

use super::Node;

/// containerd: <https://github.com/containerd/containerd/blob/main/docs/cri/config.md>.
pub(super) fn containerd(node: &Node) -> String {
    let bin = node.0.site.parts.path_dir().display();
    let dir = node.dir().display();
    // The state folder is on the machine's own /run, which is empty at boot, as a container runtime expects.
    // restrict_oom_score_adj: on small virtual machines even root may not lower a score.
    format!(
        r#"version = 3
root = "{dir}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{socket}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{bin}"]
  conf_dir = "{dir}/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = "{bin}/runc"
    SystemdCgroup = false
"#,
        socket = node.socket().display(),
        pause = node.0.site.pause,
    )
}

/// kubelet: <https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/>.
pub(super) fn kubelet(node: &Node) -> String {
    let dir = node.dir().display();
    let plan = node.0.site.network.plan();
    // Control groups: of pods only, below a group of the run; both versions of the kernel's interface serve.
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {dir}/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {dir}/kubelet.crt
tlsPrivateKeyFile: {dir}/kubelet.key
containerRuntimeEndpoint: unix://{socket}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
clusterDNS: [{dns}]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: {dir}/pod-logs
volumePluginDir: {dir}/volume-plugins
serializeImagePulls: false
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
"#,
        address = node.address(),
        socket = node.socket().display(),
        cgroup = node.cgroup(),
        dns = plan.dns_service(),
    )
}

/// kube-proxy: <https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/>.
pub(super) fn kube_proxy(node: &Node) -> String {
    // maxPerCore 0: the limit belongs to the host, and cannot be set from a network namespace.
    format!(
        r"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: {pods}
hostnameOverride: {name}
clientConnection: {{kubeconfig: {dir}/kube-proxy.kubeconfig}}
conntrack: {{maxPerCore: 0}}
",
        pods = node.0.site.network.plan().pods(),
        name = node.name(),
        dir = node.dir().display(),
    )
}

/// A link pair for each pod, an address out of the node's range, host ports.
pub(super) fn cni(node: &Node) -> String {
    let range = node.0.site.network.plan().node_pods(node.0.number).to_string();
    let config = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "testbed",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    // Below /run: after a power cut no pod holds an address.
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": range}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{config:#}\n")
}
