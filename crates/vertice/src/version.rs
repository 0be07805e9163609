//! `vertice version`

use anyhow::Result;

use crate::output;

pub(crate) fn run() -> Result<()> {
    output::result(concat!("vertice ", env!("CARGO_PKG_VERSION"), "\n"))
}
