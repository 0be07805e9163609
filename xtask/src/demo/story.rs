//! The demo's steps.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use console::style;
use vertice_e2e::backup::{ended, judged, verticebackup, verticerestore};
use vertice_e2e::kubectl::Kubectl;
use vertice_e2e::operator::{Install, install};
use vertice_e2e::postgres::{Fingerprint, Postgres};
use vertice_e2e::{s3, shop};
use vertice_testbed::ledger::human_bytes;

use super::follow::follow;
use super::ground::Ground;
use super::screen::{Step, headline, quote};

const BUCKET: &str = "demo-backups";
const BACKUP: &str = "shop";
const RESTORE: &str = "shop-is-back";
const SERVER: &str = "postgres";
const PASSWORD: &str = "only-for-the-demo";
const SOON: Duration = Duration::from_mins(1);
const RUN: Duration = Duration::from_mins(15);

/// What was found on both sides.
pub struct Outcome {
    before: Fingerprint,
    after: Fingerprint,
    times: Vec<(&'static str, f64)>,
    location: String,
}

/// Tells the whole story; any step that falls short ends it with an error.
pub async fn tell(ground: &Ground, orders: u32) -> Result<Outcome> {
    let mut times = Vec::new();
    let kubectl = ground.kubectl.clone();
    let namespace = ground.namespace.clone();
    let server = Postgres::new(&kubectl, &namespace, SERVER);

    times.push(("install", install_operator(ground).await?));
    let before = make_shop(ground, &server, orders).await?;
    let location = back_up(ground, &mut times).await?;
    lose(ground, &server, &mut times).await?;
    let after = bring_back(ground, &server, &mut times).await?;

    let step = Step::begin("compare", "");
    if before != after {
        step.failed("what came back differs from what was lost");
        bail!("before: {before:?}\nafter: {after:?}");
    }
    step.done(&format!(
        "equal: {} rows, {} columns, sha256 {}",
        before.rows(),
        before.columns(),
        &after.total[..16]
    ));
    quote(
        "kubectl get verticebackups,verticerestores",
        &kubectl.run(&["-n", &namespace, "get", "verticebackups,verticerestores"]).await?,
    );
    Ok(Outcome { before, after, times, location })
}

async fn install_operator(ground: &Ground) -> Result<f64> {
    let step = Step::begin("operator", "helm install, two replicas");
    let chart = ground.paths.workspace().join("deploy/charts/vertice");
    let images = &ground.images;
    let wanted = Install {
        chart: &chart,
        namespace: &ground.operator_namespace,
        image: &images.operator,
        agent_image: &images.agent,
    };
    install(&ground.kubectl, &wanted).await?;
    Ok(step.done(&format!("2 replicas ready in namespace {}", ground.operator_namespace)))
}

async fn make_shop(ground: &Ground, server: &Postgres, orders: u32) -> Result<Fingerprint> {
    let (kubectl, namespace) = (ground.kubectl.clone(), ground.namespace.clone());
    let step = Step::begin("object store", "an S3 gateway with a bucket");
    s3::deploy(&kubectl, &namespace, &ground.images.s3, &ground.images.postgres, &[BUCKET]).await?;
    step.done(&format!("s3://{BUCKET} at {}", s3::endpoint(&namespace)));

    let step = Step::begin("database", "PostgreSQL with a volume of its own");
    let volume = ground.volume("data-source");
    server.deploy(&ground.images.postgres, PASSWORD, &volume).await?;
    step.done(&format!("PostgreSQL {} in pod {}", server.version().await?, server.pod()));

    let step = Step::begin("data", "customers, products, orders and their lines");
    shop::fill(server, orders).await?;
    let size = server.size(shop::DATABASE).await?;
    step.done(&format!("database {} of {}", shop::DATABASE, human_bytes(size)));

    let step = Step::begin("fingerprint", "every column of every row, hashed by SQL");
    let before = server.fingerprint(shop::DATABASE).await?;
    step.done(&format!(
        "{} rows in {} tables, sha256 {}",
        before.rows(),
        before.tables.len(),
        &before.total[..16]
    ));
    Ok(before)
}

async fn back_up(ground: &Ground, times: &mut Vec<(&'static str, f64)>) -> Result<String> {
    let (kubectl, namespace) = (&ground.kubectl, &ground.namespace);
    let step = Step::begin("schedule", "VerticeBackup, every night at two");
    let object = verticebackup(namespace, BACKUP, SERVER, BUCKET);
    kubectl.apply(namespace, &object.to_string()).await?;
    let found = judged(kubectl, namespace, &format!("verticebackup/{BACKUP}"), SOON).await?;
    let next = found["status"]["nextBackup"]
        .as_str()
        .with_context(|| format!("not scheduled: {}", found["status"]))?;
    step.done(&format!("in force, next run {next}"));

    let step = Step::begin("backup", "");
    step.give_way();
    eprintln!("\n    {} vertice backup run {BACKUP} -n {namespace}", style("$").dim());
    let words = ["backup", "run", BACKUP, "--namespace", namespace];
    let status = kubectl.vertice(&ground.vertice, &words).status().await?;
    eprintln!();
    if !status.success() {
        step.failed("the run failed");
        bail!("vertice backup run {BACKUP}: {status}");
    }
    let what = ["-n", namespace, "get", "verticebackup", BACKUP];
    let last = kubectl
        .wait("the run is told in status", SOON, &what, |found| {
            let last = &found["status"]["lastSuccess"];
            last["backupId"].is_string().then(|| (last.clone(), found["status"]["location"].clone()))
        })
        .await?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
    times.push((
        "backup",
        step.done(&format!("{} stored as {}", text(&last.0["size"]), text(&last.0["backupId"]))),
    ));
    Ok(text(&last.1))
}

/// Pod and volume go for good, and that is shown.
async fn lose(ground: &Ground, server: &Postgres, times: &mut Vec<(&'static str, f64)>) -> Result<()> {
    let (kubectl, namespace) = (ground.kubectl.clone(), ground.namespace.clone());
    let step = Step::begin("destroy", "the server, its pod, its volume");
    let claim = kubectl.json(&["-n", &namespace, "get", "pvc", "data-source"]).await?;
    let volume = claim["spec"]["volumeName"].as_str().context("the claim has no volume")?.to_owned();
    server.destroy(&ground.volume("data-source")).await?;
    kubectl.run(&["wait", "--for=delete", &format!("pv/{volume}"), "--timeout=60s"]).await?;
    times.push(("destroy", step.done("server, pod and volume are gone")));
    for what in
        [&["get", "statefulsets,pods", "-l", "app=postgres"][..], &["get", "pvc"], &["get", "pv", &volume]]
    {
        let shown = kubectl.program("kubectl").args(["-n", &namespace]).args(what).output().await?;
        let text = [shown.stdout, shown.stderr].concat();
        quote(&format!("kubectl {}", what.join(" ")), &String::from_utf8_lossy(&text));
    }

    let step = Step::begin("new server", "PostgreSQL on a new volume");
    server.deploy(&ground.images.postgres, PASSWORD, &ground.volume("data-replacement")).await?;
    let databases = server.databases().await?;
    ensure!(databases == ["postgres"], "the new server is not empty: {databases:?}");
    step.done("empty: no database but `postgres`");
    Ok(())
}

async fn bring_back(
    ground: &Ground,
    server: &Postgres,
    times: &mut Vec<(&'static str, f64)>,
) -> Result<Fingerprint> {
    let (kubectl, namespace) = (&ground.kubectl, &ground.namespace);
    let step = Step::begin("restore", "VerticeRestore of the newest backup");
    let start = Instant::now();
    kubectl.apply(namespace, &verticerestore(RESTORE, BACKUP).to_string()).await?;
    let label = format!("vertice.io/restore={RESTORE}");
    let found = tokio::select! {
        found = ended(kubectl, namespace, RESTORE, RUN) => found?,
        // Following is for the eye only: when it ends early, the wait goes on.
        never = follow_until_ended(kubectl, namespace, &label, step.listener()) => match never {},
    };
    let status = &found["status"];
    if status["phase"] != "Succeeded" {
        step.failed("the restore failed");
        bail!("{status}");
    }
    let text = |field: &str| status[field].as_str().unwrap_or("?").to_owned();
    step.done(&format!("{} put back at {}", text("size"), text("rate")));
    times.push(("restore", start.elapsed().as_secs_f64()));

    let step = Step::begin("fingerprint", "every column of every row, hashed by SQL");
    let after = server.fingerprint(shop::DATABASE).await?;
    step.done(&format!(
        "{} rows in {} tables, sha256 {}",
        after.rows(),
        after.tables.len(),
        &after.total[..16]
    ));
    Ok(after)
}

async fn follow_until_ended(
    kubectl: &Kubectl,
    namespace: &str,
    label: &str,
    listener: impl Fn(&str),
) -> std::convert::Infallible {
    // The pod may not be there yet: then its log is asked for again.
    while !matches!(follow(kubectl, namespace, label, &listener).await, Ok(true)) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    std::future::pending().await
}

/// Where to look while the cluster is up.
pub fn epilogue(ground: &Ground, outcome: &Outcome) {
    headline("Look around");
    if let Some(file) = ground.env_file() {
        eprintln!("  shell      . {}", file.display());
    }
    eprintln!("  backup     kubectl -n {} describe verticebackup {BACKUP}", ground.namespace);
    eprintln!(
        "  bucket     {} at {} (key {} / {})",
        outcome.location,
        s3::endpoint(&ground.namespace),
        s3::ACCESS_KEY,
        s3::SECRET_KEY
    );
    let (operators, lease) = (&ground.operator_namespace, "vertice-operator-backup");
    eprintln!(
        "  metrics    http://127.0.0.1:8080/metrics (figures about backups come from the leader) after"
    );
    eprintln!(
        "             kubectl -n {operators} port-forward \"pod/$(kubectl -n {operators} get lease {lease} -o jsonpath='{{.spec.holderIdentity}}' | cut -d_ -f1)\" 8080"
    );
    eprintln!();
}

impl Outcome {
    /// The summary: the last lines of the demo.
    pub fn print(&self) {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["table", "rows before", "rows after", "columns", "sha256 before", "sha256 after"]);
        for (before, after) in self.before.tables.iter().zip(&self.after.tables) {
            table.add_row([
                before.name.clone(),
                before.rows.to_string(),
                after.rows.to_string(),
                after.columns.to_string(),
                before.sha256[..12].to_owned(),
                after.sha256[..12].to_owned(),
            ]);
        }
        let times =
            self.times.iter().map(|(name, seconds)| format!("{name} {seconds:.1} s")).collect::<Vec<_>>();
        println!("\n{table}");
        println!("times:  {}", times.join(", "));
        println!("rows:   {} before, {} after", self.before.rows(), self.after.rows());
        println!("sha256: {} before", self.before.total);
        println!(
            "        {} after, over all columns, definitions, privileges and roles: equal",
            self.after.total
        );
    }
}
