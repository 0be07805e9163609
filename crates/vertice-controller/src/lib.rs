//! What every Vertice controller shares: the run loop, the connection to the API server, server-side apply, conditions, events, leader
//! election, the admin server and telemetry. Nothing here knows any one kind.
//!
//! # How a controller is wired
//!
//! ```no_run
//! use std::{error::Error, sync::Arc};
//!
//! use k8s_openapi::api::{batch::v1::CronJob, core::v1::ConfigMap};
//! use kube::{Api, Resource, core::PartialObjectMeta, runtime::{reflector::Store, watcher}};
//! use vertice_controller::{
//!     Context, Controller, Manager, MetadataWatch, Next, ObjectKey, Reconciler, RunConfig, Watch, apply, manager,
//!     telemetry,
//! };
//!
//! struct Nightly {
//!     cron_jobs: Store<PartialObjectMeta<CronJob>>,
//! }
//!
//! impl Reconciler for Nightly {
//!     type Object = ConfigMap;
//!     type Error = apply::ApplyError;
//!     const NAME: &'static str = "nightly";
//!
//!     async fn reconcile(&self, object: Arc<ConfigMap>, context: &Context) -> Result<Next, Self::Error> {
//!         let key = ObjectKey::of(object.as_ref());
//!         let namespace = key.namespace.as_deref().unwrap_or_default();
//!         // observe: from the caches
//!         let observed = self.cron_jobs.find(|cron_job| ObjectKey::of(cron_job) == key);
//!         // plan: pure
//!         let mut wanted = CronJob::default();
//!         wanted.metadata.name = Some(key.name.clone());
//!         wanted.metadata.namespace = key.namespace.clone();
//!         wanted.metadata.owner_references = object.controller_owner_ref(&()).map(|owner| vec![owner]);
//!         // apply: nothing is sent when nothing changed
//!         let api = Api::namespaced(context.client.clone(), namespace);
//!         let metadata = observed.as_ref().map(|observed| &observed.metadata);
//!         context.applier.apply(&api, object.as_ref(), &wanted, metadata).await?;
//!         Ok(Next::Await)
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn Error>> {
//!     let _telemetry = telemetry::init(&telemetry::Options::from_env("vertice-nightly"))?;
//!     let mut manager = Manager::new(kube::Config::infer().await?, manager::Options::default());
//!     let context = manager.context(Nightly::NAME)?;
//!     let selector = watcher::Config::default().labels("app.kubernetes.io/managed-by=vertice");
//!     let cron_jobs = MetadataWatch::<CronJob>::new(Api::all(context.client.clone()), selector.clone());
//!     let objects = Watch::new(Api::all(context.client.clone()), selector);
//!     let nightly = Nightly { cron_jobs: cron_jobs.store() };
//!     let controller = Controller::new(nightly, objects, context, RunConfig::default(), manager.readiness());
//!     manager.controller(controller.owns(cron_jobs));
//!     Ok(manager.run(manager::stop_on_signals()?).await?)
//! }
//! ```
//!
//! # What a reconciler can rely on
//!
//! - It is never run twice at once for one object, and at most [`RunConfig::concurrency`] run at all.
//! - A burst of events makes one reconcile ([`RunConfig::debounce`]); an error is retried with exponential backoff and jitter; a panic
//!   is caught, counted and backed off.
//! - Its status writes do not wake it; changes of what it owns do, and so does every deletion.
//! - Every call has a deadline; writes are refused once the lease is lost, and its future is dropped then.
//! - With the time from [`Context::clock`] and nothing kept in memory, tests can move its clock and kill it anywhere.

pub mod admin;
pub mod apply;
pub mod backoff;
pub mod client;
pub mod clock;
pub mod conditions;
pub mod cron;
pub mod events;
pub mod leader;
pub mod manager;
pub mod metrics;
pub mod mutant;
pub mod readiness;
pub mod run;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod text;

pub use self::{
    clock::{Clock, ManualClock, SharedClock, SystemClock},
    manager::Manager,
    run::{Config as RunConfig, Context, Controller, MetadataWatch, Next, ObjectKey, Reconciler, Watch},
};
