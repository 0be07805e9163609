//! What demo and end-to-end tests build before they begin.

use std::path::PathBuf;

use anyhow::Result;
use vertice_e2e::harness::Images;
use vertice_testbed::images::{self, Image, Product, REGISTRY, Triple};
use vertice_testbed::ledger::Ledger;
use vertice_testbed::parts::Parts;
use vertice_testbed::paths::Paths;

/// Everything that is put into a cluster.
pub struct Built {
    pub parts: Parts,
    pub product: Product,
    pub postgres: Image,
    pub s3: Image,
    /// The `vertice` binary of the operator's image, which runs on this machine as well.
    pub vertice_binary: PathBuf,
}

impl Built {
    /// The images that go onto nodes.
    pub fn all(&self) -> [&Image; 4] {
        [&self.product.vertice, &self.product.agent, &self.postgres, &self.s3]
    }

    /// How a cluster calls them: as they are made, or in a registry of the user's.
    pub fn references(&self, registry: Option<&str>) -> Images {
        let name = |image: &Image| match registry {
            None => image.reference.clone(),
            Some(registry) => image.reference.replacen(REGISTRY, registry.trim_end_matches('/'), 1),
        };
        Images {
            operator: name(&self.product.vertice),
            agent: name(&self.product.agent),
            postgres: name(&self.postgres),
            s3: name(&self.s3),
        }
    }
}

/// Builds the images; minutes the first time.
pub async fn images(paths: &Paths, parts: &Parts, ledger: &Ledger) -> Result<Built> {
    let (paths, parts, ledger) = (paths.clone(), parts.clone(), ledger.clone());
    tokio::task::spawn_blocking(move || {
        let triple = Triple::host();
        let product = images::product(&paths, &ledger, &triple)?;
        let postgres = images::postgres15(&paths, &parts)?;
        let s3 = images::versitygw(&paths, &parts)?;
        let vertice_binary =
            paths.target().join(format!("{}-unknown-linux-gnu/release/vertice", std::env::consts::ARCH));
        Ok(Built { parts, product, postgres, s3, vertice_binary })
    })
    .await?
}
