//! Seeded faults of the agent: what the crash matrix must find, or it could find nothing.
//!
//! With the feature `mutants`, which nothing but the matrix turns on, `VERTICE_MUTANT` puts one of them in force. Without the feature
//! [`on`] is a constant, and what depends on it is not even compiled in.

use vertice_catalog::report::Report;

/// The faults.
#[cfg_attr(feature = "mutants", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mutant {
    /// A manifest is written before what it speaks of
    ManifestFirst,
    /// A success is reported before its manifest is written
    ReportBeforeManifest,
    /// The claim is never given up
    ClaimKept,
    /// A claim whose renewal was answered too late is taken for somebody else's
    OwnClaimNotKnown,
    /// An owner's mark whose putting was answered too late is taken for somebody else's
    OwnMarkNotKnown,
    /// What a killed run has left is never removed
    LeftoversKept,
    /// What was read is not compared with what was stored
    ChecksumIgnored,
    /// What a failed restore has made stays
    UndoForgotten,
    /// The database is dropped before the one that takes its place is known to be right
    OldDroppedFirst,
    /// The password is in the log
    PasswordLogged,
    /// The password is in the report of a failure
    PasswordReported,
}

/// Whether a fault is in force: never.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn on(_: Mutant) -> bool {
    false
}

/// Reports at once: nothing.
#[cfg(not(feature = "mutants"))]
pub const fn report(_: &Report) {}

/// Reports at once.
#[cfg(feature = "mutants")]
pub fn report(report: &Report) {
    let path = std::env::var_os("VERTICE_TERMINATION_LOG").unwrap_or_default();
    // Where it cannot be written there is no fault to find.
    let _ = report.to_termination_message().map(|message| std::fs::write(path, message));
}

/// Whether a fault is in force.
#[cfg(feature = "mutants")]
#[must_use]
pub fn on(mutant: Mutant) -> bool {
    use clap::ValueEnum as _;
    static ACTIVE: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    let active = ACTIVE.get_or_init(|| Mutant::from_str(&std::env::var("VERTICE_MUTANT").ok()?, false).ok());
    *active == Some(mutant)
}
