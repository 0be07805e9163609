use std::sync::Mutex;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::*;
use crate::testing::{FakeServer, config_map, until};

/// A running watch and the names that it woke, `-name` for a deletion.
struct Running {
    server: FakeServer,
    store: Store<ConfigMap>,
    woken: Arc<Mutex<Vec<String>>>,
    readiness: Readiness,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(server: FakeServer, changed: fn(&ConfigMap, &ConfigMap) -> bool) -> Self {
        Self::start_with(server, changed, watcher::Config::default())
    }

    fn start_with(
        server: FakeServer,
        changed: fn(&ConfigMap, &ConfigMap) -> bool,
        config: watcher::Config,
    ) -> Self {
        let watch: Watch<ConfigMap> = Watch::new(Api::namespaced(server.client(), "ns"), config);
        let store = watch.store();
        let (woken, readiness) = (Arc::<Mutex<Vec<String>>>::default(), Readiness::default());
        let names = Arc::clone(&woken);
        watch.share().listen(changed, move |change| {
            let name = |object: &ConfigMap| object.metadata.name.clone().unwrap();
            let text = match (change.before, change.after) {
                (Some(before), None) => format!("-{}", name(before)),
                (_, after) => name(after.unwrap()),
            };
            names.lock().unwrap().push(text);
        });
        let future = watch.run("vertice-test".into(), &readiness);
        Self { server, store, woken, readiness, task: tokio::spawn(future) }
    }

    /// Waits for as many wakes, and takes them, sorted.
    async fn wakes(&self, count: usize) -> Vec<String> {
        until(&format!("{count} wakes"), || self.woken.lock().unwrap().len() >= count).await;
        let mut woken = std::mem::take(&mut *self.woken.lock().unwrap());
        woken.sort();
        woken
    }

    async fn event(&self, type_: &str, object: &serde_json::Value) {
        until("an open watch", || self.server.event("BOOKMARK", &bookmark()) > 0).await;
        self.server.event(type_, object);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bookmark() -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "1"}})
}

#[tokio::test]
async fn changes_and_deletions_wake_and_repetitions_do_not() {
    let running = Running::start(FakeServer::with_config_maps(&["a", "b"]), any_change);
    assert_eq!(running.wakes(2).await, ["a", "b"]);
    assert!(running.readiness.waiting().is_empty());
    running.event("MODIFIED", &config_map("a", 1)).await;
    running.event("MODIFIED", &config_map("a", 2)).await;
    assert_eq!(running.wakes(1).await, ["a"]);
    // The same version again, and yet a deletion counts.
    running.event("DELETED", &config_map("a", 2)).await;
    assert_eq!(running.wakes(1).await, ["-a"]);
    assert_eq!(running.store.len(), 1);
}

#[tokio::test]
async fn a_deletion_that_was_missed_shows_in_the_next_list() {
    let running = Running::start(FakeServer::with_config_maps(&["a", "b", "c"]), any_change);
    running.wakes(3).await;
    running.server.list(vec![config_map("a", 1), config_map("c", 9), config_map("d", 1)]);
    until("an open watch", || running.server.event("BOOKMARK", &bookmark()) > 0).await;
    running.server.expire_watches();
    assert_eq!(running.wakes(3).await, ["-b", "c", "d"]);
}

#[tokio::test]
async fn of_the_reconciled_kind_a_status_change_does_not_wake_and_a_deletion_of_equal_generation_does() {
    let object = |generation: i64, version: u32| {
        let mut object = config_map("a", version);
        object["metadata"]["generation"] = generation.into();
        object
    };
    let server = FakeServer::new(|_| (200, json!({})));
    server.list(vec![object(1, 1)]);
    let running = Running::start(server, intent_change);
    running.wakes(1).await;
    running.event("MODIFIED", &object(1, 2)).await;
    running.event("MODIFIED", &object(2, 3)).await;
    assert_eq!(running.wakes(1).await, ["a"]);
    let mut terminating = object(2, 4);
    terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    running.event("MODIFIED", &terminating).await;
    assert_eq!(running.wakes(1).await, ["a"]);
    running.event("DELETED", &terminating).await;
    assert_eq!(running.wakes(1).await, ["-a"]);
}

#[tokio::test]
async fn an_object_made_again_under_its_name_wakes_although_its_generation_is_the_same() {
    let object = |uid: &str| {
        let mut object = config_map("a", 1);
        object["metadata"]["generation"] = 1.into();
        object["metadata"]["uid"] = uid.into();
        object
    };
    let server = FakeServer::new(|_| (200, json!({})));
    server.list(vec![object("first")]);
    let running = Running::start(server, intent_change);
    running.wakes(1).await;
    running.server.list(vec![object("second")]);
    until("an open watch", || running.server.event("BOOKMARK", &bookmark()) > 0).await;
    running.server.expire_watches();
    assert_eq!(running.wakes(1).await, ["a"]);
}

#[tokio::test]
async fn managed_fields_are_pruned_to_our_own_entry_before_caching() {
    let mut object = config_map("a", 1);
    object["metadata"]["managedFields"] = json!([
        {"manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {}},
        {"manager": "vertice-test", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {}}},
        {"manager": "vertice-test", "operation": "Apply", "apiVersion": "v1", "subresource": "status", "fieldsV1": {}},
    ]);
    let server = FakeServer::new(|_| (200, json!({})));
    server.list(vec![object]);
    let running = Running::start(server, any_change);
    running.wakes(1).await;
    let entries = running.store.state()[0].metadata.managed_fields.clone().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].manager.as_deref(), Some("vertice-test"));
    assert_eq!(entries[0].subresource, None);
}

#[tokio::test]
async fn a_missing_crd_and_a_missing_right_are_named() {
    use k8s_openapi::api::batch::v1::Job;
    for (code, expected) in [
        (404, "waiting for CustomResourceDefinition jobs.batch"),
        (403, "not allowed to list jobs.batch: the message"),
    ] {
        let status = json!({"kind": "Status", "status": "Failure", "reason": "x", "code": code, "message": "the message"});
        let server = FakeServer::new(move |_| (code, status.clone()));
        let watch: MetadataWatch<Job> =
            Watch::new(Api::namespaced(server.client(), "ns"), watcher::Config::default());
        let readiness = Readiness::default();
        let task = tokio::spawn(watch.run("m".into(), &readiness));
        until(expected, || readiness.waiting() == [expected]).await;
        task.abort();
    }
}

#[tokio::test]
async fn a_watch_that_opens_late_over_an_empty_list_does_not_look_unready() {
    let server = FakeServer::with_config_maps(&[]);
    server.refuse_watches(2);
    let running = Running::start(server, any_change);
    until("an open watch", || running.server.event("BOOKMARK", &bookmark()) > 0).await;
    assert_eq!(running.readiness.waiting(), Vec::<String>::new());
}

#[tokio::test]
async fn an_api_server_that_streams_no_lists_is_asked_for_pages() {
    let config = watcher::Config::default().streaming_lists();
    let running = Running::start_with(FakeServer::with_config_maps(&["a"]), any_change, config);
    assert_eq!(running.wakes(1).await, ["a"]);
    running.event("MODIFIED", &config_map("a", 2)).await;
    assert_eq!(running.wakes(1).await, ["a"]);
}

#[tokio::test]
async fn an_api_server_that_no_longer_streams_lists_is_asked_for_pages() {
    let server = FakeServer::with_config_maps(&["a", "b"]);
    server.stream_lists(true);
    let config = watcher::Config::default().streaming_lists();
    let running = Running::start_with(server, any_change, config);
    assert_eq!(running.wakes(2).await, ["a", "b"]);
    running.server.stream_lists(false);
    running.server.list(vec![config_map("a", 1)]);
    running.server.expire_watches();
    assert_eq!(running.wakes(1).await, ["-b"]);
    running.event("MODIFIED", &config_map("a", 2)).await;
    assert_eq!(running.wakes(1).await, ["a"]);
}

#[tokio::test]
async fn all_who_share_a_watch_are_woken_each_by_its_own_measure() {
    let server = FakeServer::with_config_maps(&["a"]);
    let watch: Watch<ConfigMap> =
        Watch::new(Api::namespaced(server.client(), "ns"), watcher::Config::default());
    let shared = watch.share();
    let [all, first] = [any_change::<ConfigMap>, |_: &ConfigMap, _: &ConfigMap| false].map(|changed| {
        let woken = Arc::<Mutex<u32>>::default();
        let count = Arc::clone(&woken);
        shared.listen(changed, move |_| *count.lock().unwrap() += 1);
        woken
    });
    let waiting = [(); 3].map(|()| tokio::spawn(shared.filled().cancelled_owned()));
    let task = tokio::spawn(watch.run("vertice-test".into(), &Readiness::default()));
    for one in waiting {
        one.await.unwrap();
    }
    until("an open watch", || server.event("BOOKMARK", &bookmark()) > 0).await;
    server.event("MODIFIED", &config_map("a", 2));
    until("both wakes", || *all.lock().unwrap() == 2).await;
    assert_eq!(*first.lock().unwrap(), 1);
    assert_eq!(shared.store().len(), 1);
    task.abort();
}
