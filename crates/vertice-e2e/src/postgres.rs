//! A PostgreSQL server with a volume of its own, and the fingerprint of what is in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use snafu::ResultExt;

use crate::kubectl::{AnswerSnafu, Kubectl, Result};

const READY: Duration = Duration::from_mins(3);
const GONE: Duration = Duration::from_secs(90);

/// Where its data lies.
#[derive(Clone, Debug)]
pub enum Volume {
    /// In its pod, gone with it.
    Scratch,
    /// In a volume of its own.
    Claim {
        /// Name of the claim.
        name: String,
        /// Storage class; the cluster's default when absent.
        class: Option<String>,
    },
}

/// A server: StatefulSet, Service and Secret of one name.
#[derive(Clone, Debug)]
pub struct Postgres {
    kubectl: Kubectl,
    /// Its namespace.
    pub namespace: String,
    /// Name of its StatefulSet, Service and Secret.
    pub name: String,
}

/// What a server holds, hashed by its own SQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Every table with its rows and the SHA-256 over every column of every row.
    pub tables: Vec<TableFingerprint>,
    /// SHA-256 over roles, database settings, sequences, large objects, indexes, constraints, views, privileges and comments.
    pub schema: String,
    /// SHA-256 over all of it.
    pub total: String,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFingerprint {
    /// `schema.table`.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// How many columns.
    pub columns: u32,
    /// SHA-256.
    pub sha256: String,
}

impl Fingerprint {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Columns of all tables.
    pub fn columns(&self) -> u32 {
        self.tables.iter().map(|table| table.columns).sum()
    }
}

impl Postgres {
    /// A server of this name, deployed or not.
    pub fn new(kubectl: &Kubectl, namespace: &str, name: &str) -> Self {
        Self { kubectl: kubectl.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Deploys it and waits until it answers.
    pub async fn deploy(&self, image: &str, password: &str, volume: &Volume) -> Result<()> {
        let source = match volume {
            Volume::Scratch => "emptyDir: {}".to_owned(),
            Volume::Claim { name, class } => {
                let class =
                    class.as_ref().map_or(String::new(), |class| format!("storageClassName: {class}"));
                let claim = include_str!("../fixtures/claim.yaml")
                    .replace("$CLAIM", name)
                    .replace("$STORAGE_CLASS", &class);
                self.kubectl.apply(&self.namespace, &claim).await?;
                format!("persistentVolumeClaim: {{claimName: {name}}}")
            }
        };
        let yaml = include_str!("../fixtures/postgres.yaml")
            .replace("$NAME", &self.name)
            .replace("$IMAGE", image)
            .replace("$PASSWORD", password)
            .replace("$VOLUME", &source);
        self.kubectl.apply(&self.namespace, &yaml).await?;
        self.kubectl.rolled_out(&self.namespace, &format!("statefulset/{}", self.name), READY).await
    }

    /// Its only pod.
    pub fn pod(&self) -> String {
        format!("{}-0", self.name)
    }

    /// Runs SQL in a database, stopping at the first error; rows come unaligned, one a line.
    pub async fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let words =
            ["psql", "-U", "postgres", "-d", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"];
        let text = self.kubectl.exec(&self.namespace, &self.pod(), &words, Some(sql.as_bytes())).await?;
        Ok(text.trim().to_owned())
    }

    /// The server's version, such as `15.18`.
    pub async fn version(&self) -> Result<String> {
        let version = self.sql("postgres", "SHOW server_version").await?;
        Ok(version.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Bytes that a database takes on disk.
    pub async fn size(&self, database: &str) -> Result<u64> {
        Ok(self
            .sql("postgres", &format!("SELECT pg_database_size('{database}')"))
            .await?
            .parse()
            .unwrap_or(0))
    }

    /// Names of the databases that are not templates.
    pub async fn databases(&self) -> Result<Vec<String>> {
        let names = self
            .sql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
            .await?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Hashes every column of every table, and everything that surrounds the rows, by SQL in the server itself.
    pub async fn fingerprint(&self, database: &str) -> Result<Fingerprint> {
        let json = self.sql(database, include_str!("../fixtures/fingerprint.sql")).await?;
        serde_json::from_str(&json).context(AnswerSnafu { line: "psql < fingerprint.sql" })
    }

    /// Deletes the server with its claim and waits until pod and claim are gone.
    pub async fn destroy(&self, volume: &Volume) -> Result<()> {
        let Self { kubectl, namespace, name } = self;
        let objects = [format!("statefulset/{name}"), format!("service/{name}"), format!("secret/{name}")];
        let mut words = vec!["-n", namespace, "delete", "--ignore-not-found", "--wait=true"];
        words.extend(objects.iter().map(String::as_str));
        kubectl.run(&words).await?;
        let limit = format!("--timeout={}s", GONE.as_secs());
        kubectl
            .run(&["-n", namespace, "wait", "--for=delete", &format!("pod/{}", self.pod()), &limit])
            .await?;
        if let Volume::Claim { name, .. } = volume {
            kubectl.run(&["-n", namespace, "delete", "pvc", name, "--ignore-not-found", &limit]).await?;
        }
        Ok(())
    }
}
