//! Standard output is for results, standard error for everything on the way there.

use std::io::Write as _;

use anyhow::{Context as _, Result};

/// Prints a result.
pub(crate) fn result(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Tells a person something. Nobody may be listening.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One line with all causes.
pub(crate) fn error(error: &anyhow::Error) {
    note(&format!("{} {error:#}", console::style("error:").for_stderr().red().bold()));
}
