//! What the operator's account may do: the one source of the chart's ClusterRole.
//!
//! The right to renew its Lease belongs to a Role in the operator's own namespace, and is not in this table.

use k8s_openapi::api::rbac::v1::PolicyRule;
use vertice_api::vertice_io::GROUP;

/// The rules, each used by the operator, none with a wildcard.
pub fn rules() -> Vec<PolicyRule> {
    vec![
        // One that was deleted a moment ago is asked for before its CronJob is made.
        rule(GROUP, &["verticebackups"], &["get", "list", "watch"]),
        rule(GROUP, &["verticerestores"], &["list", "watch"]),
        rule(GROUP, &["verticebackups/status", "verticerestores/status"], &["patch"]),
        // Server-side apply is a patch, and a create where the object does not exist.
        rule("batch", &["cronjobs"], &["get", "list", "watch", "create", "patch"]),
        rule("batch", &["jobs"], &["get", "list", "watch", "create", "patch"]),
        rule("", &["pods"], &["list", "watch"]),
        // To find the server that a target names, and the image that it runs.
        rule("", &["services"], &["list", "watch"]),
        rule("apps", &["statefulsets", "deployments"], &["list", "watch"]),
        // The UID of kube-system marks the bucket's prefix as this cluster's.
        PolicyRule {
            resource_names: Some(vec!["kube-system".to_owned()]),
            ..rule("", &["namespaces"], &["get"])
        },
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wildcards_and_no_secrets() {
        for rule in rules() {
            let words = rule.api_groups.iter().chain(&rule.resources).flatten().chain(&rule.verbs);
            for word in words {
                assert!(!word.contains('*') && word != "secrets", "{rule:?}");
            }
        }
    }
}
