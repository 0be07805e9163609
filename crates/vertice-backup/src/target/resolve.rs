//! The rules by which a target's name becomes an address and an image.

use snafu::{OptionExt as _, ensure};
use vertice_api::vertice_io::{Engine, Target, TargetKind};

use super::error::{
    ManyImagesSnafu, ManyPortsSnafu, ManyServicesSnafu, NoContainerSnafu, NoImageSnafu, NoServiceNameSnafu,
    NoServiceSnafu, NoWorkloadSnafu, NotFoundSnafu, PortSnafu, TargetError,
};
use super::objects::{Candidates, PortRef, ServiceInfo, Workload};

/// A database server and the image that has its client tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// DNS name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// The engine's image.
    pub(crate) image: String,
    /// Names of the Secrets with which the database's own pods pull that image.
    pub(crate) pull_secrets: Vec<String>,
}

/// An image with the pull secrets of the workload that it was found in.
struct Image {
    name: String,
    pull_secrets: Vec<String>,
}

/// What is asked for, where.
struct Question<'a> {
    target: &'a Target,
    namespace: &'a str,
    field: &'a str,
    found: &'a Candidates,
}

/// Resolves `target`, which stands at the path `field` of its resource in `namespace`.
pub(crate) fn resolve(
    target: &Target,
    namespace: &str,
    field: &str,
    found: &Candidates,
) -> Result<Resolved, TargetError> {
    let question = Question { target, namespace, field, found };
    if let Some(host) = &target.host {
        let image = target.image.clone().context(NoImageSnafu { field })?;
        let port = question.port()?.unwrap_or(target.r#type.default_port());
        return Ok(Resolved { host: host.clone(), port, image, pull_secrets: Vec::new() });
    }
    question.by_name()
}

impl Question<'_> {
    fn by_name(&self) -> Result<Resolved, TargetError> {
        let wanted = |kind| self.target.kind.is_none_or(|only| only == kind);
        if wanted(TargetKind::Service)
            && let Some(service) = self.found.services.iter().find(|service| service.name == self.target.name)
        {
            return self.service(service);
        }
        for kind in [TargetKind::StatefulSet, TargetKind::Deployment] {
            let mut same = self.found.workloads.iter().filter(|one| wanted(kind) && one.kind == kind);
            if let Some(workload) = same.find(|workload| workload.name == self.target.name) {
                return match kind {
                    TargetKind::Deployment => self.deployment(workload),
                    TargetKind::Service | TargetKind::StatefulSet => self.stateful_set(workload),
                };
            }
        }
        let wanted = self
            .target
            .kind
            .map_or_else(|| "Service, StatefulSet or Deployment".to_owned(), |kind| format!("{kind:?}"));
        let Target { name, .. } = self.target;
        NotFoundSnafu { field: self.field, wanted, name, namespace: self.namespace }.fail()
    }

    /// The port that the user set.
    fn port(&self) -> Result<Option<u16>, TargetError> {
        let Some(port) = self.target.port else { return Ok(None) };
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => PortSnafu { field: self.field, port }.fail(),
        }
    }

    fn service(&self, service: &ServiceInfo) -> Result<Resolved, TargetError> {
        let (port, leads_to) = self.service_port(service)?;
        let image = match &self.target.image {
            Some(image) => {
                given_image(image, self.found.workloads.iter().find(|w| service.selects(&w.pod_labels)))
            }
            None => self.image_behind(service, port, &leads_to)?,
        };
        let host = format!("{}.{}.svc", service.name, self.namespace);
        Ok(Resolved { host, port, image: image.name, pull_secrets: image.pull_secrets })
    }

    /// The user's port; else the one called as the engine; else the engine's own; else the only one.
    fn service_port(&self, service: &ServiceInfo) -> Result<(u16, PortRef), TargetError> {
        let engine = self.target.r#type;
        if let Some(port) = self.port()? {
            let known = service.ports.iter().find(|one| one.port == port);
            return Ok((port, known.map_or(PortRef::Number(port), |one| one.leads_to.clone())));
        }
        let named =
            service.ports.iter().find(|one| one.name.as_deref().is_some_and(|name| is_name(engine, name)));
        let usual = || service.ports.iter().find(|one| one.port == engine.default_port());
        if let Some(one) = named.or_else(usual) {
            return Ok((one.port, one.leads_to.clone()));
        }
        match &service.ports[..] {
            [] => Ok((engine.default_port(), PortRef::Number(engine.default_port()))),
            [only] => Ok((only.port, only.leads_to.clone())),
            many => {
                let found: Vec<_> = many.iter().map(|one| one.port.to_string()).collect();
                ManyPortsSnafu { field: self.field, name: &service.name, found }.fail()
            }
        }
    }

    fn image_behind(
        &self,
        service: &ServiceInfo,
        port: u16,
        leads_to: &PortRef,
    ) -> Result<Image, TargetError> {
        let behind = self.found.workloads.iter().filter(|workload| service.selects(&workload.pod_labels));
        let mut images: Vec<Image> = Vec::new();
        for workload in behind {
            let image = self.image_of(workload, port, leads_to)?;
            if !images.iter().any(|known| known.name == image.name) {
                images.push(image);
            }
        }
        let object = format!("Service {:?}", service.name);
        let found: Vec<_> = images.iter().map(|image| image.name.clone()).collect();
        ensure!(images.len() < 2, ManyImagesSnafu { field: self.field, object, found });
        images.pop().context(NoWorkloadSnafu {
            field: self.field,
            name: &service.name,
            namespace: self.namespace,
        })
    }

    fn stateful_set(&self, workload: &Workload) -> Result<Resolved, TargetError> {
        let first = workload.first_pod.as_ref();
        let first = first.context(NoServiceNameSnafu { field: self.field, name: &workload.name })?;
        let port = match self.port()? {
            Some(port) => port,
            None => self.exposed_port(workload),
        };
        let image = match &self.target.image {
            Some(image) => given_image(image, Some(workload)),
            None => self.image_of(workload, port, &PortRef::Number(port))?,
        };
        let host = format!("{first}.{}.svc", self.namespace);
        Ok(Resolved { host, port, image: image.name, pull_secrets: image.pull_secrets })
    }

    /// The port that a container of the workload calls as the engine, else the engine's own.
    fn exposed_port(&self, workload: &Workload) -> u16 {
        let engine = self.target.r#type;
        let mut ports = workload.containers.iter().flat_map(|container| &container.ports);
        ports
            .find(|(name, _)| name.as_deref().is_some_and(|name| is_name(engine, name)))
            .map_or(engine.default_port(), |(_, port)| *port)
    }

    fn deployment(&self, workload: &Workload) -> Result<Resolved, TargetError> {
        let services: Vec<_> =
            self.found.services.iter().filter(|service| service.selects(&workload.pod_labels)).collect();
        let (field, name) = (self.field, &workload.name);
        match services[..] {
            [] => NoServiceSnafu { field, name, namespace: self.namespace }.fail(),
            [only] => self.service(only),
            _ => {
                let found: Vec<_> = services.iter().map(|service| format!("{:?}", service.name)).collect();
                ManyServicesSnafu { field, name, found }.fail()
            }
        }
    }

    /// The image of the container that exposes the port, or of the only container.
    fn image_of(&self, workload: &Workload, port: u16, leads_to: &PortRef) -> Result<Image, TargetError> {
        let exposing = workload.containers.iter().find(|container| container.exposes(leads_to));
        let only = || match &workload.containers[..] {
            [only] => Some(only),
            _ => None,
        };
        let container = exposing.or_else(only).with_context(|| NoContainerSnafu {
            field: self.field,
            object: workload.title(),
            port,
            found: workload
                .containers
                .iter()
                .map(|container| format!("{:?}", container.name))
                .collect::<Vec<_>>(),
        })?;
        Ok(Image { name: container.image.clone(), pull_secrets: workload.pull_secrets.clone() })
    }
}

/// An image that the user chose is pulled with the secrets of the database's pods, too.
fn given_image(image: &str, workload: Option<&Workload>) -> Image {
    let pull_secrets = workload.map(|workload| workload.pull_secrets.clone()).unwrap_or_default();
    Image { name: image.to_owned(), pull_secrets }
}

/// Whether a port of this name is the engine's.
fn is_name(engine: Engine, name: &str) -> bool {
    match engine {
        Engine::Postgresql => matches!(name, "postgres" | "postgresql" | "tcp-postgres" | "tcp-postgresql"),
    }
}
