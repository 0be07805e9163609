//! Which parts there are, and how each is built.

use std::fmt;

use crate::apt;

/// A Go module under `testbed/` and the programs it gives. In the order they are built: what shares packages with
/// its predecessor comes after it, and what most callers wait for comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl.
    Kubernetes,
    /// runc.
    Runc,
    /// The network plugins bridge, ptp, loopback, host-local, portmap.
    Cni,
    /// containerd, its shim, and ctr.
    Containerd,
    /// The first process of every pod.
    Pause,
    /// Tells when a cron expression fires next, as Kubernetes' CronJob controller sees it.
    CronOracle,
    /// An S3 gateway over a folder.
    VersityGw,
    /// Cluster DNS.
    CoreDns,
    /// The resource metrics API.
    MetricsServer,
    /// helm.
    Helm,
    /// What the backup operator is compared with at rest.
    IdleOperator,
}

impl Part {
    pub const ALL: [Self; 11] = [
        Self::Kubernetes,
        Self::Runc,
        Self::Cni,
        Self::Containerd,
        Self::Pause,
        Self::CronOracle,
        Self::VersityGw,
        Self::CoreDns,
        Self::MetricsServer,
        Self::Helm,
        Self::IdleOperator,
    ];

    /// What a cluster of real nodes takes.
    pub const CLUSTER: [Self; 6] =
        [Self::Kubernetes, Self::Runc, Self::Cni, Self::Containerd, Self::Pause, Self::CoreDns];

    pub(super) fn recipe(self) -> &'static Recipe {
        match self {
            Self::Kubernetes => &KUBERNETES,
            Self::Runc => &RUNC,
            Self::Cni => &CNI,
            Self::Containerd => &CONTAINERD,
            Self::Pause => &PAUSE,
            Self::CronOracle => &CRON_ORACLE,
            Self::VersityGw => &VERSITYGW,
            Self::CoreDns => &COREDNS,
            Self::MetricsServer => &METRICS_SERVER,
            Self::Helm => &HELM,
            Self::IdleOperator => &IDLE_OPERATOR,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.recipe().module)
    }
}

/// How a part is built.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The folder under `testbed/`.
    pub(super) module: &'static str,
    /// What a person is told when the build starts.
    pub(super) what: &'static str,
    /// The Go packages to build; `.` is the module's own main package.
    pub(super) packages: &'static [&'static str],
    /// The programs that come of it.
    pub(super) programs: &'static [&'static str],
    /// Set when the one program that is built goes by all the names in `programs`.
    pub(super) multi_call: Option<&'static str>,
    /// Go build tags.
    pub(super) tags: &'static str,
    /// Does it have C code?
    pub(super) cgo: bool,
    /// The upstream module that gives the version.
    pub(super) pin: Option<&'static str>,
    /// Variables for the linker to set: `{version}` is `v1.36.3`, `{major}` `1`, `{minor}` `36`.
    pub(super) variables: &'static [(&'static str, &'static str)],
    /// Debian packages that the build needs.
    pub(super) packages_needed: &'static [apt::Package],
}

impl Recipe {
    /// All that the result depends on, as text. A new field must be judged here: the compiler asks for it.
    pub(super) fn inputs(&self) -> String {
        let Self {
            module,
            what: _,
            packages,
            programs,
            multi_call,
            tags,
            cgo,
            pin,
            variables,
            packages_needed: _,
        } = self;
        format!("{module} {packages:?} {programs:?} {multi_call:?} {tags} {cgo} {pin:?} {variables:?}")
    }
}

/// What most parts have in common.
const PLAIN: Recipe = Recipe {
    module: "",
    what: "",
    packages: &["."],
    programs: &[],
    multi_call: None,
    tags: "",
    cgo: false,
    pin: None,
    variables: &[],
    packages_needed: &[],
};

static KUBERNETES: Recipe = Recipe {
    module: "kubernetes",
    what: "the Kubernetes control plane, kubelet and etcd, from Go modules; about 5 min the first time",
    programs: &[
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    ],
    multi_call: Some("kubernetes"),
    pin: Some("k8s.io/kubernetes"),
    variables: &[
        ("k8s.io/component-base/version.gitVersion", "{version}"),
        ("k8s.io/component-base/version.gitMajor", "{major}"),
        ("k8s.io/component-base/version.gitMinor", "{minor}"),
        ("k8s.io/component-base/version.gitTreeState", "clean"),
    ],
    ..PLAIN
};

static RUNC: Recipe = Recipe {
    module: "runc",
    what: "runc; about 20 s the first time",
    packages: &["github.com/opencontainers/runc"],
    programs: &["runc"],
    tags: "seccomp",
    cgo: true,
    packages_needed: apt::RUNC_BUILD,
    ..PLAIN
};

static CNI: Recipe = Recipe {
    module: "cni",
    what: "the container network plugins; about 10 s the first time",
    packages: &[
        "github.com/containernetworking/plugins/plugins/main/bridge",
        "github.com/containernetworking/plugins/plugins/main/loopback",
        "github.com/containernetworking/plugins/plugins/main/ptp",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ],
    programs: &["bridge", "loopback", "ptp", "host-local", "portmap"],
    pin: Some("github.com/containernetworking/plugins"),
    variables: &[("github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion", "{version}")],
    ..PLAIN
};

static CONTAINERD: Recipe = Recipe {
    module: "containerd",
    what: "containerd; about 1 min the first time",
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
    // Snapshotters for file systems that are not used here; devmapper would need C libraries.
    tags: "no_btrfs,no_zfs,no_devmapper,no_aufs",
    pin: Some("github.com/containerd/containerd/v2"),
    variables: &[("github.com/containerd/containerd/v2/version.Version", "{version}")],
    ..PLAIN
};

static PAUSE: Recipe = Recipe { module: "pause", what: "the pause program", programs: &["pause"], ..PLAIN };

static CRON_ORACLE: Recipe =
    Recipe { module: "oracle", what: "the cron oracle", programs: &["cron-oracle"], ..PLAIN };

static VERSITYGW: Recipe = Recipe {
    module: "versitygw",
    what: "the S3 gateway; about 40 s the first time",
    packages: &["github.com/versity/versitygw/cmd/versitygw"],
    programs: &["versitygw"],
    pin: Some("github.com/versity/versitygw"),
    variables: &[("main.Version", "{version}")],
    ..PLAIN
};

static COREDNS: Recipe = Recipe {
    module: "coredns",
    what: "cluster DNS; about 1 min the first time",
    programs: &["coredns"],
    ..PLAIN
};

static METRICS_SERVER: Recipe = Recipe {
    module: "metrics-server",
    what: "the resource metrics API; about 2 min the first time",
    packages: &["sigs.k8s.io/metrics-server/cmd/metrics-server"],
    programs: &["metrics-server"],
    pin: Some("sigs.k8s.io/metrics-server"),
    variables: &[
        ("k8s.io/client-go/pkg/version.gitVersion", "{version}"),
        ("k8s.io/component-base/version.gitVersion", "{version}"),
    ],
    ..PLAIN
};

static HELM: Recipe = Recipe {
    module: "helm",
    what: "helm; about 2 min the first time",
    packages: &["helm.sh/helm/v4/cmd/helm"],
    programs: &["helm"],
    pin: Some("helm.sh/helm/v4"),
    variables: &[("helm.sh/helm/v4/internal/version.version", "{version}")],
    ..PLAIN
};

static IDLE_OPERATOR: Recipe = Recipe {
    module: "idle-operator",
    what: "the operator on controller-runtime that ours is compared with; about 1 min the first time",
    programs: &["idle-operator"],
    ..PLAIN
};
