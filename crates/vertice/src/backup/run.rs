//! `vertice backup run NAME`: a run at once, beside the schedule, followed live.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use vertice_api::duration;
use vertice_api::vertice_io::VerticeBackup;
use vertice_backup::names;

use super::display::Display;
use super::follow::{Ended, Follower};
use super::{job, outcome};
use crate::cluster::{Cluster, Place, call};
use crate::output;

/// How long a VerticeBackup that was applied just now may take to come into force.
const SETTLING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);
const FIELD_MANAGER: &str = "vertice-cli";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the VerticeBackup.
    name: String,
    #[command(flatten)]
    place: Place,
    /// Start the run and return.
    #[arg(long)]
    no_follow: bool,
    /// Stop following after this long, such as 30m, with an error; the run itself goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_positive, conflicts_with = "no_follow")]
    timeout: Option<SignedDuration>,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster = args.place.connect().await?;
    let backup = in_force(&cluster, &args.name).await?;
    let cronjob = cronjob(&cluster, &backup).await?;
    let wanted = job::manual(&cronjob, &job::suffix())?;
    let jobs = Api::<Job>::namespaced(cluster.client.clone(), &cluster.namespace);
    let post = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let job = call(jobs.create(&post, &wanted))
        .await
        .with_context(|| format!("cannot create a Job in namespace {}", cluster.namespace))?;
    let look = format!("kubectl -n {} logs -f job/{}", cluster.namespace, job.name_any());
    if args.no_follow {
        return output::result(&format!("job/{} created; look at it with: {look}\n", job.name_any()));
    }
    output::note(&format!("job/{} created in namespace {}", job.name_any(), cluster.namespace));
    let limit = args.timeout.and_then(|limit| Duration::try_from(limit).ok()).unwrap_or(Duration::MAX);
    let mut display = Display::new();
    let follower = Follower::new(&cluster, &job);
    let ended = tokio::select! {
        ended = follower.to_the_end(&mut display) => ended?,
        () = tokio::time::sleep(limit) => {
            display.clear();
            bail!("the run did not end within {}; it goes on, look at it with: {look}", duration_text(args.timeout))
        }
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("cannot listen for Ctrl-C")?;
            display.clear();
            output::note(&format!("no longer following; the run goes on, look at it with: {look}"));
            return Ok(());
        }
    };
    display.clear();
    tell(&cluster, &backup, &job, ended).await
}

/// The last line: what was made, or why not.
async fn tell(cluster: &Cluster, backup: &VerticeBackup, job: &Job, ended: Ended) -> Result<()> {
    let name = backup.name_any();
    if let Some(line) = outcome::success(&name, &ended, outcome::location(job).as_deref()) {
        return output::result(&line);
    }
    // The operator judges a run that left no report; its words are those that the conditions show.
    let told = outcome::status_of(cluster, &name, &job.uid().unwrap_or_default()).await;
    match outcome::judged(&name, told.as_ref(), &ended) {
        Ok(line) => output::result(&line),
        Err(why) => Err(anyhow!("backup {name} failed: {why}")),
    }
}

/// The VerticeBackup, once the operator has put its present spec in force.
async fn in_force(cluster: &Cluster, name: &str) -> Result<VerticeBackup> {
    let backups = Api::<VerticeBackup>::namespaced(cluster.client.clone(), &cluster.namespace);
    let namespace = &cluster.namespace;
    let deadline = tokio::time::Instant::now() + SETTLING;
    loop {
        let found = call(backups.get_opt(name))
            .await
            .with_context(|| format!("cannot read VerticeBackup {name} in namespace {namespace}"))?;
        let Some(backup) = found else { bail!("there is no VerticeBackup {name} in namespace {namespace}") };
        let generation = backup.metadata.generation;
        let conditions = backup.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        match ready.filter(|condition| condition.observed_generation == generation) {
            Some(condition) if condition.status == "True" => return Ok(backup),
            Some(condition) if condition.status == "False" => {
                bail!("VerticeBackup {name} is not in force: {}: {}", condition.reason, condition.message)
            }
            _ if tokio::time::Instant::now() >= deadline => bail!(
                "no operator has looked at VerticeBackup {name} for {} s: is vertice-operator-backup running?",
                SETTLING.as_secs()
            ),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

async fn cronjob(cluster: &Cluster, backup: &VerticeBackup) -> Result<CronJob> {
    let cronjobs = Api::<CronJob>::namespaced(cluster.client.clone(), &cluster.namespace);
    let name = names::cronjob(&backup.name_any());
    let found = call(cronjobs.get_opt(&name)).await.with_context(|| format!("cannot read CronJob {name}"))?;
    let ours = |cronjob: &CronJob| {
        cronjob.owner_references().iter().any(|owner| Some(&owner.uid) == backup.metadata.uid.as_ref())
    };
    found.filter(ours).ok_or_else(|| {
        anyhow!(
            "CronJob {name} of VerticeBackup {} does not exist; the operator makes it again shortly",
            backup.name_any()
        )
    })
}

fn duration_text(limit: Option<SignedDuration>) -> String {
    duration::format(limit.unwrap_or_default())
}
