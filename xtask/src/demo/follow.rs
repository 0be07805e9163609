//! Follows a run's progress lines in its pod's log.

use std::process::Stdio;

use anyhow::Result;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use vertice_e2e::kubectl::Kubectl;
use vertice_testbed::ledger::human_bytes;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    kind: String,
    object: String,
    plain_bytes: u64,
    expected_bytes: Option<u64>,
    seconds: f64,
}

/// Tells `listener` how far the run of the pods with `label` is, until its log ends. False: there was no log yet.
pub async fn follow(
    kubectl: &Kubectl,
    namespace: &str,
    label: &str,
    listener: impl Fn(&str),
) -> Result<bool> {
    let mut logs = kubectl.program("kubectl");
    logs.args(["-n", namespace, "logs", "--follow", "--selector", label, "--pod-running-timeout=60s"]);
    let mut child = logs.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(false) };
    let mut lines = BufReader::new(stdout).lines();
    let mut begun = false;
    while let Some(line) = lines.next_line().await? {
        if let Ok(progress) = serde_json::from_str::<Progress>(&line)
            && progress.kind == "progress"
        {
            begun = true;
            listener(&sentence(&progress));
        }
    }
    child.wait().await?;
    Ok(begun)
}

fn sentence(progress: &Progress) -> String {
    let done = human_bytes(progress.plain_bytes);
    let of = progress.expected_bytes.map_or(String::new(), |bytes| format!(" of {}", human_bytes(bytes)));
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shown with one decimal"
    )]
    let rate = human_bytes((progress.plain_bytes as f64 / progress.seconds.max(0.001)) as u64);
    format!("{}: {done}{of}, {rate}/s", progress.object)
}
