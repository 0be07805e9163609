//! VerticeRestores: run once, told once.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use serde_json::json;
use vertice_api::vertice_io::{RestorePhase, VerticeRestore};
use vertice_catalog::report::FailureReason;

use crate::runs::{self, failed, restored};
use crate::stage::Stage;

fn phase(restore: &VerticeRestore) -> Option<RestorePhase> {
    restore.status.as_ref().and_then(|status| status.phase)
}

/// The Job of a restore, once it was let go.
pub(crate) async fn let_go(stage: &Stage, name: &str) -> Job {
    stage
        .until(name, "is let go", |job: &Job| job.spec.as_ref().and_then(|spec| spec.suspend) == Some(false))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_runs_once_and_its_end_is_final() {
    let stage = Stage::set("restore").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.restore("back", "shop").await;
    let job = let_go(&stage, "back-restore").await;
    runs::start(&stage, "back-restore").await;
    let running = stage
        .until("back", "is Running", |found: &VerticeRestore| {
            phase(found) == Some(RestorePhase::Running) && found.status.as_ref().unwrap().start_time.is_some()
        })
        .await;
    assert_eq!(running.status.as_ref().unwrap().job_uid, job.uid());
    assert_eq!(running.status.unwrap().target, Some(format!("db.{}.svc:5432", stage.namespace)));
    runs::finish(&stage, "back-restore", &restored(96_200_000)).await;
    let done: VerticeRestore =
        stage.until("back", "has ended", |found| phase(found) == Some(RestorePhase::Succeeded)).await;
    let status = done.status.as_ref().unwrap();
    assert_eq!((status.size.as_deref(), status.rate.as_deref()), (Some("96.2MB"), Some("48.1MB/s")));
    assert_eq!(status.databases, ["orders"]);
    stage.event("back", "RestoreSucceeded").await;

    runs::delete(&stage, "back-restore").await;
    operator.kill().await;
    let operator = stage.operator();
    // A second restore tells that the operator is at work again.
    stage.restore("probe", "shop").await;
    let_go(&stage, "probe-restore").await;
    assert!(stage.api::<Job>().get_opt("back-restore").await.unwrap().is_none(), "it does not run again");
    assert_eq!(stage.get::<VerticeRestore>("back").await.status, done.status);
    let line = format!(
        r#"vertice_restore_total{{namespace="{}",name="back",outcome="success"}} 1"#,
        stage.namespace
    );
    let scrape = operator.scrape();
    assert!(scrape.contains(&line), "{line} is not in\n{scrape}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_restore_says_why() {
    let stage = Stage::set("refused").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.restore("back", "shop").await;
    let_go(&stage, "back-restore").await;
    runs::start(&stage, "back-restore").await;
    let message = "database orders holds 7 tables: set overwrite: true in a new VerticeRestore to replace it";
    runs::finish(&stage, "back-restore", &failed(FailureReason::TargetNotEmpty, message)).await;
    let done: VerticeRestore =
        stage.until("back", "has ended", |found| phase(found) == Some(RestorePhase::Failed)).await;
    let complete = &done.status.as_ref().unwrap().conditions[1];
    assert_eq!(
        (
            complete.type_.as_str(),
            complete.status.as_str(),
            complete.reason.as_str(),
            complete.message.as_str()
        ),
        ("Complete", "False", "TargetNotEmpty", message)
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_job_is_deleted_fails_and_is_not_repeated() {
    let stage = Stage::set("deleted").await;
    let operator = stage.operator();
    stage.backup("shop", json!({})).await;
    stage.restore("back", "shop").await;
    let_go(&stage, "back-restore").await;
    runs::start(&stage, "back-restore").await;
    runs::delete(&stage, "back-restore").await;
    let done: VerticeRestore =
        stage.until("back", "has ended", |found| phase(found) == Some(RestorePhase::Failed)).await;
    assert_eq!(done.status.unwrap().conditions[1].reason, "NoReport");
    assert!(stage.api::<Job>().get_opt("back-restore").await.unwrap().is_none());
    operator.stop().await;
}
