//! `VerticeBackups` that are made and brought to rest.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use vertice_api::vertice_io::VerticeBackup;
use vertice_testbed::wait;

/// How many requests are under way at once.
const AT_ONCE: usize = 32;
/// How many `VerticeBackups` a namespace has.
const IN_A_NAMESPACE: u32 = 100;
/// How many are looked at with one request.
const PAGE: u32 = 500;
/// How long all may take to come to rest.
const AT_REST: Duration = Duration::from_mins(5);

/// Makes `size` `VerticeBackups`, a hundred in a namespace.
pub async fn create(client: &Client, size: u32) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for number in 0..size.div_ceil(IN_A_NAMESPACE) {
        let namespace = serde_json::from_value(json!({"metadata": {"name": namespace(number)}}))?;
        namespaces.create(&PostParams::default(), &namespace).await.context("cannot make a namespace")?;
    }
    let now = Timestamp::now();
    let made = stream::iter(0..size).map(|number| async move {
        let api: Api<VerticeBackup> = Api::namespaced(client.clone(), &namespace(number / IN_A_NAMESPACE));
        let backup = backup(number, now)?;
        api.create(&PostParams::default(), &backup).await.map(drop).context("cannot make a VerticeBackup")
    });
    made.buffer_unordered(AT_ONCE).try_collect().await
}

fn namespace(number: u32) -> String {
    format!("team-{number:03}")
}

/// One that fires once a day, and not within hours of now. Its server has a host: names of Services are looked up anew in every
/// reconcile, which would measure the API server.
fn backup(number: u32, now: Timestamp) -> Result<VerticeBackup> {
    let far = now.saturating_add(SignedDuration::from_hours(12)).context("the clock is at its end")?;
    let hour = far.to_zoned(TimeZone::UTC).hour();
    let backup = json!({
        "apiVersion": "vertice.io/v1alpha1",
        "kind": "VerticeBackup",
        "metadata": {"name": format!("postgres-{number:05}")},
        "spec": {
            "target": {
                "type": "postgresql",
                "name": format!("postgres-{number:05}"),
                "credentials": "postgres-credentials",
                "host": format!("postgres-{number:05}.databases.example.com"),
                "image": "registry.example/postgres:18.1",
            },
            "schedule": format!("{} {hour} * * *", number % 60),
            "timeZone": "Etc/UTC",
            "startingDeadline": "1h",
            "timeout": "4h",
            "storage": {
                "type": "s3",
                "bucket": "company-backups",
                "prefix": format!("production/postgres-{number:05}"),
                "region": "eu-central-1",
                "credentials": "s3-credentials",
            },
            "options": {"compression": {"type": "zstd", "level": 6}},
        },
    });
    serde_json::from_value(backup).context("a VerticeBackup is malformed")
}

/// Waits until all are scheduled.
pub async fn at_rest(client: &Client, size: u32) -> Result<()> {
    let api: Api<VerticeBackup> = Api::all(client.clone());
    let rested = wait::until(format!("{size} VerticeBackups to be scheduled"), AT_REST, || async {
        let seen = scheduled(&api).await.map_err(|error| format!("{error:#}"))?;
        if seen == size { Ok(()) } else { Err(format!("one after the first {seen} is not")) }
    });
    Ok(rested.await?)
}

/// How many are scheduled before the first that is not, in the order of their names.
async fn scheduled(api: &Api<VerticeBackup>) -> Result<u32> {
    let mut seen = 0;
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        for backup in &page.items {
            if backup.status.as_ref().is_none_or(|status| status.next_backup.is_none()) {
                return Ok(seen);
            }
            seen += 1;
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_does_not_fire_while_it_is_watched() {
        let backup = backup(61, "2026-11-21T15:30:00Z".parse().unwrap()).unwrap();
        assert_eq!(backup.spec.schedule, "1 3 * * *");
        assert_eq!(backup.metadata.name.as_deref(), Some("postgres-00061"));
    }
}
