//! What a process still waits for before it is ready.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// A list of named things that have to be there; ready when none is missing. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<RwLock<BTreeMap<String, String>>>,
}

impl Readiness {
    /// Adds a thing that is not there yet; `reason` is what people read, for example `waiting for the first list of jobs.batch`.
    #[must_use]
    pub fn gate(&self, name: impl Into<String>, reason: impl Into<String>) -> Gate {
        let gate = Gate { readiness: self.clone(), name: name.into() };
        gate.wait(reason);
        gate
    }

    pub(crate) fn wait(&self, name: String, reason: String) {
        self.waiting.write().unwrap_or_else(PoisonError::into_inner).insert(name, reason);
    }

    pub(crate) fn ready(&self, name: &str) {
        self.waiting.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What is waited for, one reason a line; empty when ready.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.waiting.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// One thing that has to be there. It stays as it is when dropped: a task that ended before it was ready is not ready.
#[derive(Debug, Clone)]
pub struct Gate {
    readiness: Readiness,
    name: String,
}

impl Gate {
    /// It is there.
    pub fn ready(&self) {
        self.readiness.ready(&self.name);
    }

    /// It is not there (any more), and this is why.
    pub fn wait(&self, reason: impl Into<String>) {
        self.readiness.wait(self.name.clone(), reason.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_is_missing() {
        let readiness = Readiness::default();
        assert!(readiness.waiting().is_empty());
        let jobs = readiness.gate("jobs", "waiting for the first list of jobs.batch");
        let crd = readiness.gate("crd", "waiting for CustomResourceDefinition x.vertice.io");
        jobs.ready();
        assert_eq!(readiness.waiting(), ["waiting for CustomResourceDefinition x.vertice.io"]);
        crd.ready();
        assert!(readiness.waiting().is_empty());
        jobs.wait("jobs are gone");
        assert_eq!(readiness.waiting(), ["jobs are gone"]);
    }
}
