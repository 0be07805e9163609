//! Seeded faults of the controllers: what the crash matrix must find, or it could find nothing.
//!
//! With the feature `mutants`, which nothing but the matrix turns on, a thread can be given one of them, and with it all that runs
//! in an operator's runtime. Without the feature [`on`] is a constant, and what depends on it is not even compiled in.

#[cfg(feature = "mutants")]
pub use active::{activate, on, remember, remembers};
#[cfg(not(feature = "mutants"))]
pub use inactive::{activate, on, remember, remembers};

/// The faults.
#[cfg_attr(feature = "mutants", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mutant {
    /// A status is written without the version that it was computed from, so that an outdated one is not refused
    StatusWithoutVersion,
    /// A status is written in every reconcile
    StatusAlwaysWritten,
    /// A status that was refused as outdated counts as written
    ConflictSwallowed,
    /// Every object is applied in every reconcile, changed or not
    AppliedAlways,
    /// A reconcile that failed is not tried again
    ErrorNotRetried,
    /// An object whose spec changed is not looked at
    GenerationIgnored,
    /// An object that a watch calls deleted stays in the cache
    DeletionIgnored,
    /// An object that a new list lacks wakes nobody
    RelistedDeletionIgnored,

    /// The status of a VerticeBackup is written before its CronJob
    StatusBeforeCronJob,
    /// A CronJob that could not be written counts as written
    CronJobErrorSwallowed,
    /// A CronJob has no owner
    CronJobWithoutOwner,
    /// A CronJob has a finalizer that nobody removes
    FinalizerForgotten,
    /// A CronJob says when it was looked at
    Heartbeat,
    /// Since when a schedule is in force is kept in memory
    InForceInMemory,
    /// A starting deadline that a spec no longer has stays
    DeadlineKept,
    /// A VerticeBackup is suspended only when it is made
    SuspendIgnored,
    /// News of a run is told in an event and not in the status
    EventInsteadOfStatus,
    /// Runs of an earlier VerticeBackup of the same name count
    OwnerByName,
    /// The report of a run is looked for only in the cache
    ReportFromCacheOnly,
    /// Which runs were counted is kept in memory
    CountedInMemory,
    /// The last success is kept in memory
    LastSuccessInMemory,
    /// Runs are told apart by the names of their Jobs
    CountedByName,
    /// Totals are those of the Jobs that can be seen
    TotalsOfVisibleJobs,
    /// A run that failed counts as a success
    FailureCountedAsSuccess,
    /// The last success is the last run, whatever became of it
    LastSuccessIsLastRun,

    /// The Job of a VerticeRestore is not suspended when it is made
    JobNotSuspended,
    /// The Job of a VerticeRestore loses its owner when it is let go
    JobWithoutOwner,
    /// A Job whose making was throttled counts as made
    ThrottledJobCountsAsMade,
    /// A Job whose start failed counts as started
    StartErrorSwallowed,
    /// A Job that another process made is left alone
    OwnJobsInMemory,
    /// Only the process that made a Job lets it go
    StartedByMakerOnly,
    /// A Job is let go by its name, whichever Job that is by now
    StartedByName,
    /// That a VerticeRestore ended is kept in memory, by its name
    EndedByName,
    /// The Job of an earlier VerticeRestore of the same name is taken for one's own
    JobOfSameName,
}

#[cfg(not(feature = "mutants"))]
mod inactive {
    use super::Mutant;

    /// Puts nothing in force.
    pub const fn activate(_: Option<&str>) {}

    /// Whether a fault is in force: never.
    #[must_use]
    pub const fn on(_: Mutant) -> bool {
        false
    }

    /// Keeps nothing. Returns whether it is new.
    pub const fn remember(_: &str) -> bool {
        true
    }

    /// Whether it was remembered: never.
    #[must_use]
    pub const fn remembers(_: &str) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
mod active {
    use std::{
        cell::{Cell, RefCell},
        collections::HashSet,
    };

    use clap::ValueEnum as _;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
        static MEMORY: RefCell<HashSet<String>> = RefCell::default();
    }

    /// Puts the fault of this name in force, for this thread; none when nothing here has the name. For the threads of a runtime:
    /// `tokio::runtime::Builder::on_thread_start`.
    pub fn activate(name: Option<&str>) {
        ACTIVE.set(name.and_then(|name| Mutant::from_str(name, false).ok()));
    }

    /// Whether a fault is in force in this thread.
    #[must_use]
    pub fn on(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }

    /// Keeps something in memory only: the thread's, which ends with the operator's runtime. Returns whether it is new.
    pub fn remember(what: &str) -> bool {
        MEMORY.with_borrow_mut(|memory| memory.insert(what.to_owned()))
    }

    /// Whether it was remembered.
    #[must_use]
    pub fn remembers(what: &str) -> bool {
        MEMORY.with_borrow(|memory| memory.contains(what))
    }
}
