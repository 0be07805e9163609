//! What the tests against an API server share.

#![allow(dead_code, reason = "each test target uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::Value;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

pub(crate) fn kubeconfig() -> String {
    std::env::var("VERTICE_TEST_KUBECONFIG")
        .expect("VERTICE_TEST_KUBECONFIG must name a kubeconfig: run this through `cargo xtask test api`")
}

pub(crate) async fn config() -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig()).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

pub(crate) async fn client() -> Client {
    Client::try_from(config().await).unwrap()
}

/// A client that acts as somebody else.
pub(crate) async fn client_as(user: &str) -> Client {
    let mut config = config().await;
    config.headers.push(("impersonate-user".parse().unwrap(), user.parse().unwrap()));
    Client::try_from(config).unwrap()
}

/// A name that no other test of any run has.
pub(crate) fn unique(stem: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = jiff::Timestamp::now().as_millisecond();
    format!("{stem}-{now:x}-{}-{count}", std::process::id())
}

pub(crate) async fn namespace(client: &Client, stem: &str) -> String {
    let name = unique(stem);
    let object = serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap();
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
    // Pods need it, and no controller manager makes it.
    let account = serde_json::from_value(serde_json::json!({"metadata": {"name": "default"}})).unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &name);
    match accounts.create(&PostParams::default(), &account).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        created => drop(created.unwrap()),
    }
    name
}

/// Installs the definitions and waits until they are served.
pub(crate) async fn install_definitions(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in vertice_api::crds() {
        let name = definition.name_any();
        let apply = PatchParams::apply("tests").force();
        api.patch(&name, &apply, &Patch::Apply(&definition)).await.unwrap();
        eventually(&format!("{name} is established"), async || {
            let found = api.get(&name).await.unwrap();
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(())
        })
        .await;
    }
}

/// Tries again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Any kind by its group, version and plural.
pub(crate) fn dynamic(
    client: &Client,
    object: &Value,
    plural: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let api_version = object["apiVersion"].as_str().unwrap();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: object["kind"].as_str().unwrap().to_owned(),
        plural: plural.to_owned(),
    };
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// `helm` with these words.
pub(crate) fn helm(words: &[&str]) -> Output {
    let folder = std::env::var_os("VERTICE_TEST_BIN")
        .expect("VERTICE_TEST_BIN must name the folder with the testbed's programs: run this through `cargo xtask test api`");
    Command::new(PathBuf::from(folder).join("helm")).args(words).current_dir(root()).output().unwrap()
}

/// The chart's objects, as YAML; or what helm says against it.
pub(crate) fn render(settings: &[&str]) -> Result<String, String> {
    let mut words = vec!["template", "vertice", "deploy/charts/vertice", "--namespace", "vertice-system"];
    for setting in settings {
        words.extend(["--set", setting]);
    }
    let output = helm(&words);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The two settings without which nothing is rendered.
pub(crate) const IMAGES: [&str; 2] = [
    "image.reference=registry.example.com/vertice:1.2.3",
    "agent.image.reference=registry.example.com/agent:4.5.6",
];

/// The objects of a YAML text.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|object| !object.is_null()).collect()
}
