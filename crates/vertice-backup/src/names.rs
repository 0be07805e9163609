//! Names, labels and annotations of everything this operator makes; the command line finds runs by them.

use std::collections::BTreeMap;

/// Field manager of the VerticeBackup controller, and source of its events.
pub const BACKUP_CONTROLLER: &str = "vertice-backup";
/// Field manager of the VerticeRestore controller, and source of its events.
pub const RESTORE_CONTROLLER: &str = "vertice-restore";

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "vertice";
/// The object's part: `schedule`, `backup` or `restore`.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// On a CronJob, its Jobs and their pods: name of the VerticeBackup.
pub const BACKUP_LABEL: &str = "vertice.io/backup";
/// On a Job and its pod: name of the VerticeRestore.
pub const RESTORE_LABEL: &str = "vertice.io/restore";
/// On Jobs and pods: UID of the VerticeBackup or VerticeRestore, so that those of an earlier object of the same name are
/// not mistaken for this one's.
pub const OWNER_UID_LABEL: &str = "vertice.io/owner-uid";
/// Label that Kubernetes puts on the pods of a Job: the Job's name.
pub const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// Label that Kubernetes puts on the pods of a Job: the Job's UID.
pub const JOB_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// On a Job that a person started (as `kubectl create job --from=cronjob/…` does): [`MANUAL`].
pub const INSTANTIATE_ANNOTATION: &str = "cronjob.kubernetes.io/instantiate";
/// Value of [`INSTANTIATE_ANNOTATION`].
pub const MANUAL: &str = "manual";
/// On a CronJob whose schedule was changed or resumed: since when it is in force; firings before that are not caught up.
pub const IN_FORCE_SINCE_ANNOTATION: &str = "vertice.io/in-force-since";

/// The container that runs the agent in the engine's image.
pub const AGENT_CONTAINER: &str = "agent";
/// The init container that copies the agent out of its own image.
pub const INSTALL_CONTAINER: &str = "install-agent";

/// Name of a VerticeBackup's CronJob: at most 52 characters, as the API server asks.
pub fn cronjob(backup: &str) -> String {
    format!("{backup}-backup")
}

/// Name of a VerticeRestore's Job.
pub fn restore_job(restore: &str) -> String {
    format!("{restore}-restore")
}

/// Labels of an object whose part is `component`, made for the object `name` with `uid`.
pub(crate) fn labels(component: &str, key: &str, name: &str, uid: &str) -> BTreeMap<String, String> {
    [(MANAGED_BY_LABEL, MANAGED_BY), (COMPONENT_LABEL, component), (key, name), (OWNER_UID_LABEL, uid)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
