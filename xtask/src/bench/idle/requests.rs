//! Requests by account and sort, as the API server counts them.
//!
//! Its `apiserver_request_total` does not tell accounts apart, and the server asks itself things all the time. What it counts by
//! account is the flow of API priority and fairness (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>):
//! a flow schema here for each account and sort of request, all of the level `exempt`, which limits nothing.

use anyhow::{Context, Result};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use serde_json::json;

use super::operator::Program;

const METRIC: &str = "apiserver_flowcontrol_dispatched_requests_total";

/// How many requests of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// They change something, and are neither for the Lease nor events.
    pub writes: u64,
    /// They tell an event.
    pub events: u64,
    /// They change nothing; opening a watch is one.
    pub reads: u64,
}

impl Requests {
    pub fn all(&self) -> u64 {
        self.writes + self.events + self.reads
    }

    /// Those after `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            writes: self.writes - before.writes,
            events: self.events - before.events,
            reads: self.reads - before.reads,
        }
    }

    /// Reads the API server's metrics.
    pub fn parse(metrics: &str, program: Program) -> Result<Self> {
        let of = |sort: &str| {
            let schema = format!("flow_schema={:?}", schema(program, sort));
            let series = metrics.lines().filter(|line| line.starts_with(METRIC) && line.contains(&schema));
            let counts = series.map(|line| {
                let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
                count.with_context(|| format!("the API server's metrics have no count in {line:?}"))
            });
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            counts.sum::<Result<f64>>().map(|count| count as u64)
        };
        Ok(Self { writes: of("writes")?, events: of("events")?, reads: of("reads")? })
    }
}

fn schema(program: Program, sort: &str) -> String {
    format!("bench-{}-{sort}", program.name())
}

/// The flow schemas of a program's account.
pub fn schemas(program: Program, namespace: &str) -> Result<Vec<FlowSchema>> {
    let resources = |verbs: &[&str], group: &str, resource: &str| json!({"verbs": verbs, "apiGroups": [group], "resources": [resource], "namespaces": ["*"], "clusterScope": true});
    let writes = ["create", "update", "patch", "delete", "deletecollection"];
    let sorts = [
        // The first that fits counts.
        ("leases", resources(&["*"], "coordination.k8s.io", "leases"), json!([])),
        ("events", resources(&writes, "*", "events"), json!([])),
        ("writes", resources(&writes, "*", "*"), json!([])),
        ("reads", resources(&["*"], "*", "*"), json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}])),
    ];
    let mut schemas = Vec::new();
    for (order, (sort, resource_rule, other_rules)) in sorts.into_iter().enumerate() {
        let account = json!({"name": program.name(), "namespace": namespace});
        let schema = serde_json::from_value(json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": "FlowSchema",
            "metadata": {"name": schema(program, sort)},
            "spec": {
                "priorityLevelConfiguration": {"name": "exempt"},
                "matchingPrecedence": 100 + order,
                "rules": [{
                    "subjects": [{"kind": "ServiceAccount", "serviceAccount": account}],
                    "resourceRules": [resource_rule],
                    "nonResourceRules": other_rules,
                }],
            },
        }));
        schemas.push(schema.context("a flow schema is malformed")?);
    }
    Ok(schemas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_account_are_added_up_by_sort() {
        let metrics = r#"
# TYPE apiserver_flowcontrol_dispatched_requests_total counter
apiserver_flowcontrol_dispatched_requests_total{flow_schema="bench-vertice-leases",priority_level="exempt"} 100
apiserver_flowcontrol_dispatched_requests_total{flow_schema="bench-vertice-events",priority_level="exempt"} 3
apiserver_flowcontrol_dispatched_requests_total{flow_schema="bench-vertice-reads",priority_level="exempt"} 20
apiserver_flowcontrol_dispatched_requests_total{flow_schema="bench-vertice-reads",priority_level="other"} 1
apiserver_flowcontrol_dispatched_requests_total{flow_schema="bench-controller-runtime-writes",priority_level="exempt"} 7
apiserver_flowcontrol_rejected_requests_total{flow_schema="bench-vertice-reads",priority_level="exempt"} 900
"#;
        let ours = Requests::parse(metrics, Program::Vertice).unwrap();
        assert_eq!(ours, Requests { writes: 0, events: 3, reads: 21 });
        let theirs = Requests::parse(metrics, Program::ControllerRuntime).unwrap();
        assert_eq!(theirs, Requests { writes: 7, events: 0, reads: 0 });
        assert_eq!(ours.since(&Requests { reads: 1, ..Requests::default() }).all(), 23);
    }

    #[test]
    fn every_sort_has_a_schema_and_leases_come_first() {
        let schemas = schemas(Program::Vertice, "ns").unwrap();
        let names: Vec<_> = schemas.iter().filter_map(|schema| schema.metadata.name.as_deref()).collect();
        assert_eq!(
            names,
            ["bench-vertice-leases", "bench-vertice-events", "bench-vertice-writes", "bench-vertice-reads"]
        );
        let order = schemas.iter().map(|schema| schema.spec.as_ref().unwrap().matching_precedence.unwrap());
        assert!(order.is_sorted());
    }
}
