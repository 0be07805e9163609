//! What resolving needs to know of a namespace's Services and workloads, as plain data.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use vertice_api::vertice_io::TargetKind;

/// All that a target's name may name in one namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    pub(super) services: Vec<ServiceInfo>,
    pub(super) workloads: Vec<Workload>,
}

/// A Service.
#[derive(Clone, Debug)]
pub(super) struct ServiceInfo {
    pub(super) name: String,
    pub(super) selector: BTreeMap<String, String>,
    pub(super) ports: Vec<PortInfo>,
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub(super) struct PortInfo {
    pub(super) name: Option<String>,
    pub(super) port: u16,
    /// The containers' port that it leads to.
    pub(super) leads_to: PortRef,
}

/// A container's port, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortRef {
    Number(u16),
    Name(String),
}

/// A StatefulSet or a Deployment.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) kind: TargetKind,
    pub(super) name: String,
    /// DNS name of its first pod, without the namespace; only StatefulSets with a `serviceName` have one.
    pub(super) first_pod: Option<String>,
    pub(super) pod_labels: BTreeMap<String, String>,
    pub(super) containers: Vec<ContainerInfo>,
    pub(super) pull_secrets: Vec<String>,
}

/// A container of a workload's pods.
#[derive(Clone, Debug)]
pub(super) struct ContainerInfo {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) ports: Vec<(Option<String>, u16)>,
}

impl Candidates {
    /// Takes what is needed from the namespace's objects.
    pub(crate) fn new<'a>(
        services: impl IntoIterator<Item = &'a Service>,
        stateful_sets: impl IntoIterator<Item = &'a StatefulSet>,
        deployments: impl IntoIterator<Item = &'a Deployment>,
    ) -> Self {
        let stateful_sets = stateful_sets.into_iter().filter_map(stateful_set);
        let deployments = deployments.into_iter().filter_map(deployment);
        Self {
            services: services.into_iter().map(service).collect(),
            workloads: stateful_sets.chain(deployments).collect(),
        }
    }
}

impl ServiceInfo {
    /// Whether it selects pods with these labels; a Service without a selector selects none.
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Workload {
    /// `StatefulSet "db"`, for people.
    pub(super) fn title(&self) -> String {
        format!("{:?} {:?}", self.kind, self.name)
    }
}

impl ContainerInfo {
    /// Whether the container says that it listens there.
    pub(super) fn exposes(&self, port: &PortRef) -> bool {
        self.ports.iter().any(|(name, number)| match port {
            PortRef::Number(wanted) => number == wanted,
            PortRef::Name(wanted) => name.as_ref() == Some(wanted),
        })
    }
}

fn service(service: &Service) -> ServiceInfo {
    let spec = service.spec.clone().unwrap_or_default();
    ServiceInfo {
        name: service.name_any(),
        selector: spec.selector.unwrap_or_default(),
        ports: spec.ports.unwrap_or_default().iter().filter_map(service_port).collect(),
    }
}

fn service_port(port: &ServicePort) -> Option<PortInfo> {
    let number = u16::try_from(port.port).ok()?;
    let leads_to = match &port.target_port {
        Some(IntOrString::Int(target)) => PortRef::Number(u16::try_from(*target).ok()?),
        Some(IntOrString::String(target)) => PortRef::Name(target.clone()),
        None => PortRef::Number(number),
    };
    Some(PortInfo { name: port.name.clone(), port: number, leads_to })
}

fn stateful_set(object: &StatefulSet) -> Option<Workload> {
    let spec = object.spec.as_ref()?;
    let ordinal = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let service = spec.service_name.as_ref().filter(|service| !service.is_empty());
    let first_pod = service.map(|service| format!("{}-{ordinal}.{service}", object.name_any()));
    Some(workload(TargetKind::StatefulSet, object.name_any(), first_pod, &spec.template))
}

fn deployment(object: &Deployment) -> Option<Workload> {
    Some(workload(TargetKind::Deployment, object.name_any(), None, &object.spec.as_ref()?.template))
}

fn workload(
    kind: TargetKind,
    name: String,
    first_pod: Option<String>,
    template: &PodTemplateSpec,
) -> Workload {
    let spec = template.spec.clone().unwrap_or_default();
    Workload {
        kind,
        name,
        first_pod,
        pod_labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default(),
        containers: spec.containers.iter().filter_map(container).collect(),
        pull_secrets: spec
            .image_pull_secrets
            .unwrap_or_default()
            .into_iter()
            .map(|secret| secret.name)
            .collect(),
    }
}

fn container(container: &Container) -> Option<ContainerInfo> {
    let ports = container.ports.iter().flatten();
    Some(ContainerInfo {
        name: container.name.clone(),
        image: container.image.clone()?,
        ports: ports
            .filter_map(|port| Some((port.name.clone(), u16::try_from(port.container_port).ok()?)))
            .collect(),
    })
}
