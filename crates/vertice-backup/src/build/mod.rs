//! What both kinds build: the pod of a run.

mod pod_template;

pub(crate) use pod_template::{Workload, pod_template};
