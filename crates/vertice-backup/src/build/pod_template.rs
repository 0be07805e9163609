//! The pod of a run: an init container hands the agent over, the engine's own image runs it.
//!
//! It fulfils the `restricted` pod security level (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>) and has
//! no access to the Kubernetes API. Secrets are mounted as optional files: the agent tells in words which one is missing, where the
//! kubelet would only never start the pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, LocalObjectReference,
    ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use vertice_catalog::task;

use crate::names;

/// An unprivileged user that no image needs to know.
const USER: i64 = 65_532;
/// Secrets are readable for that user's group only.
const SECRET_MODE: i32 = 0o440;
/// Time for the agent to abort uploads and give back its claim.
const GRACE_SECONDS: i64 = 30;

const BIN: &str = "agent-bin";
const WORK: &str = "work";
const TARGET_SECRET: &str = "target-credentials";
const STORAGE_SECRET: &str = "storage-credentials";

/// What differs from run to run.
#[derive(Debug)]
pub(crate) struct Workload<'a> {
    /// The agent's image.
    pub(crate) agent_image: &'a str,
    /// The engine's image.
    pub(crate) engine_image: &'a str,
    /// Secrets to pull the engine's image with.
    pub(crate) pull_secrets: &'a [String],
    /// The [`task::Task`] as JSON.
    pub(crate) task: String,
    /// Secret with the database's user and password.
    pub(crate) target_secret: &'a str,
    /// Secret with the store's keys.
    pub(crate) storage_secret: &'a str,
    /// Labels of the pod.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Builds the pod template of a run.
pub(crate) fn pod_template(workload: Workload<'_>) -> PodTemplateSpec {
    let pull_secrets: Vec<_> =
        workload.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    let spec = PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        security_context: Some(pod_security()),
        init_containers: Some(vec![install(workload.agent_image)]),
        containers: vec![agent(workload.engine_image, workload.task)],
        volumes: Some(vec![
            empty_dir(BIN, None, "64Mi"),
            empty_dir(WORK, Some("Memory"), "8Mi"),
            secret(TARGET_SECRET, workload.target_secret),
            secret(STORAGE_SECRET, workload.storage_secret),
        ]),
        ..PodSpec::default()
    };
    let metadata = ObjectMeta { labels: Some(workload.labels), ..ObjectMeta::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// Copies the agent to where the engine's container runs it.
fn install(image: &str) -> Container {
    Container {
        name: names::INSTALL_CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        args: Some(vec!["install".to_owned(), task::AGENT_DIR.to_owned()]),
        resources: Some(requests("10m", "16Mi")),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![mount(BIN, task::AGENT_DIR, false)]),
        ..Container::default()
    }
}

fn agent(image: &str, task_json: String) -> Container {
    let label = |name: &str| format!("metadata.labels['{name}']");
    Container {
        name: names::AGENT_CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        command: Some(vec![format!("{}/vertice-agent", task::AGENT_DIR), "run".to_owned()]),
        env: Some(vec![
            EnvVar { name: task::TASK_ENV.to_owned(), value: Some(task_json), value_from: None },
            of_pod(task::RUN_NAME_ENV, label(names::JOB_NAME_LABEL)),
            of_pod(task::NAMESPACE_ENV, "metadata.namespace".to_owned()),
            of_pod(task::RUN_UID_ENV, label(names::JOB_UID_LABEL)),
        ]),
        resources: Some(requests("100m", "128Mi")),
        security_context: Some(container_security()),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(vec![
            mount(BIN, task::AGENT_DIR, true),
            mount(WORK, task::WORK_DIR, false),
            mount(TARGET_SECRET, task::TARGET_SECRET_DIR, true),
            mount(STORAGE_SECRET, task::STORAGE_SECRET_DIR, true),
        ]),
        ..Container::default()
    }
}

/// A variable with a field of the pod itself.
fn of_pod(name: &str, field_path: String) -> EnvVar {
    // The API server's default: left out, it would look like someone else's change.
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// No limits: a row of a gigabyte is dumped in one piece, and a limit would make such a backup fail.
fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    let requests = [("cpu", cpu), ("memory", memory)]
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    ResourceRequirements { requests: Some(requests.into()), ..ResourceRequirements::default() }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        ..SecurityContext::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn empty_dir(name: &str, medium: Option<&str>, limit: &str) -> Volume {
    let source = EmptyDirVolumeSource {
        medium: medium.map(str::to_owned),
        size_limit: Some(Quantity(limit.to_owned())),
    };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

fn secret(name: &str, secret: &str) -> Volume {
    let source = SecretVolumeSource {
        default_mode: Some(SECRET_MODE),
        optional: Some(true),
        secret_name: Some(secret.to_owned()),
        items: None,
    };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}
