//! `vertice crdgen`: the definitions of all custom resources, for those who install without the chart.

use anyhow::{Context as _, Result};

use crate::output;

pub(crate) fn run() -> Result<()> {
    for definition in vertice_api::crds() {
        let yaml = serde_saphyr::to_string(&definition).context("cannot write a definition as YAML")?;
        output::result(&format!("---\n{yaml}"))?;
    }
    Ok(())
}
