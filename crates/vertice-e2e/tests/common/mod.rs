//! What every end-to-end test begins with.

#![allow(dead_code, reason = "each test target uses its own part")]

use std::time::Duration;

use serde_json::Value;
use vertice_e2e::harness::{Harness, unique};
use vertice_e2e::postgres::{Postgres, Volume};
use vertice_e2e::s3;

pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const RUN: Duration = Duration::from_mins(3);
pub(crate) const BUCKET: &str = "backups";
pub(crate) const PASSWORD: &str = "it's: a \\ \"test\" pässword";

/// A namespace of its own with a server `db` and a store.
pub(crate) struct Stage {
    pub(crate) harness: Harness,
    pub(crate) namespace: String,
    pub(crate) server: Postgres,
}

impl Stage {
    pub(crate) async fn set(name: &str) -> Self {
        let harness = Harness::from_env().unwrap();
        let namespace = unique(name);
        let kubectl = &harness.kubectl;
        kubectl.create_namespace(&namespace).await.unwrap();
        let server = Postgres::new(kubectl, &namespace, "db");
        let (images, password) = (&harness.images, PASSWORD.replace('\\', "\\\\").replace('"', "\\\""));
        let (store, database) = tokio::join!(
            s3::deploy(kubectl, &namespace, &images.s3, &images.postgres, &[BUCKET]),
            server.deploy(&images.postgres, &password, &Volume::Scratch),
        );
        store.unwrap();
        database.unwrap();
        Self { harness, namespace, server }
    }

    pub(crate) async fn apply(&self, object: &Value) {
        self.harness.kubectl.apply(&self.namespace, &object.to_string()).await.unwrap();
    }

    pub(crate) async fn get(&self, object: &str) -> Value {
        self.harness.kubectl.json(&["-n", &self.namespace, "get", object]).await.unwrap()
    }

    /// The namespace is left as it is when a test failed: `cargo xtask test` collects it.
    pub(crate) async fn strike(self) {
        let words = ["delete", "namespace", self.namespace.as_str(), "--wait=false"];
        self.harness.kubectl.run(&words).await.unwrap();
    }
}
