//! The operator is killed before and after each of its writes, and started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use serde_json::json;
use tokio::sync::Notify;
use vertice_api::vertice_io::{RestorePhase, VerticeBackup, VerticeRestore};
use vertice_controller::client::{After, Before, Call, Interceptor};
use vertice_controller::manager::Options;

use crate::restore::let_go;
use crate::runs::{self, backed_up, restored};
use crate::stage::Stage;

/// Stops the operator for ever at one write, before it is sent or after it took effect.
#[derive(Debug)]
struct Stopper {
    /// Number of the write, from 0.
    at: u64,
    after: bool,
    seen: AtomicU64,
    reached: Notify,
}

impl Stopper {
    fn new(at: u64, after: bool) -> Arc<Self> {
        Arc::new(Self { at, after, seen: AtomicU64::new(0), reached: Notify::new() })
    }

    async fn stop_here(&self) {
        self.reached.notify_one();
        futures::future::pending::<()>().await;
    }

    /// Events are for people: a crash may lose one.
    fn counts(call: &Call) -> bool {
        call.is_write() && call.resource != "events"
    }
}

impl Interceptor for Stopper {
    fn before<'a>(&'a self, call: &'a Call, _: u64) -> BoxFuture<'a, Before> {
        Box::pin(async move {
            if Self::counts(call) && !self.after && self.seen.fetch_add(1, Ordering::SeqCst) == self.at {
                self.stop_here().await;
            }
            Before::Send
        })
    }

    fn after<'a>(&'a self, call: &'a Call, _: u64, status: http::StatusCode) -> BoxFuture<'a, After> {
        Box::pin(async move {
            let took_effect = Self::counts(call) && self.after && status.is_success();
            if took_effect && self.seen.fetch_add(1, Ordering::SeqCst) == self.at {
                self.stop_here().await;
            }
            After::Deliver
        })
    }
}

/// A backup's run and a restore, from nothing to their ends; the operator is killed at one of its writes, if it comes so far.
async fn story(at: u64, after: bool) -> bool {
    let stage = Stage::set("crash").await;
    let stopper = Stopper::new(at, after);
    let options =
        Options { interceptor: Some(Arc::clone(&stopper) as Arc<dyn Interceptor>), ..Options::default() };
    let operator = stage.operator_with(options);
    let mut first = Some(operator);
    let mut second = None;
    let play = async {
        stage.backup("shop", json!({})).await;
        let cronjob = stage.cronjob("shop").await;
        runs::run(&stage, &cronjob, "shop-1", &backed_up(17)).await;
        stage
            .backup_until("shop", "has counted its run", |found: &VerticeBackup| {
                found.status.as_ref().is_some_and(|status| status.last_success.is_some())
            })
            .await;
        stage.restore("back", "shop").await;
        let job = let_go(&stage, "back-restore").await;
        runs::start(&stage, "back-restore").await;
        runs::finish(&stage, "back-restore", &restored(23)).await;
        let done: VerticeRestore = stage
            .until("back", "has ended", |found: &VerticeRestore| {
                found.status.as_ref().and_then(|status| status.phase) == Some(RestorePhase::Succeeded)
            })
            .await;
        (job, done)
    };
    tokio::pin!(play);
    let mut killed = false;
    let (job, done) = loop {
        tokio::select! {
            end = &mut play => break end,
            () = stopper.reached.notified(), if !killed => {
                killed = true;
                if let Some(operator) = first.take() {
                    operator.kill().await;
                }
                second = Some(stage.operator());
            }
        }
    };
    assert_eq!(done.status.unwrap().job_uid, job.uid(), "write {at}");
    assert_eq!(
        stage.get::<Job>("back-restore").await.uid(),
        job.uid(),
        "write {at}: the Job that ran is the only one"
    );
    let totals = stage.get::<VerticeBackup>("shop").await.status.unwrap().totals.unwrap();
    assert_eq!((totals.runs, totals.succeeded), (1, 1), "write {at}");
    for operator in first.into_iter().chain(second) {
        operator.kill().await;
    }
    killed
}

/// Kills at one write after the other until the story has no more writes.
async fn every_write(after: bool) {
    let mut at = 0;
    while story(at, after).await {
        at += 1;
    }
    assert!(
        at >= 7,
        "CronJob, Job, its resumption and several statuses are written, only {at} writes were seen"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_any_write_nothing_is_lost_or_done_twice() {
    every_write(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_any_write_nothing_is_lost_or_done_twice() {
    every_write(true).await;
}
