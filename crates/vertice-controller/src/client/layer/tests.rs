use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::*;
use crate::metrics::Metrics;

/// What the server behind the layer does.
#[derive(Debug, Clone, Copy)]
enum Server {
    Answers,
    Hangs,
    HangsInTheBody,
}

#[derive(Debug, Clone, Default)]
struct Fake {
    requests: Arc<AtomicUsize>,
}

impl Fake {
    fn client(&self, server: Server, settings: Settings) -> Client {
        let requests = Arc::clone(&self.requests);
        let service = tower::service_fn(move |_request: Request<Body>| {
            requests.fetch_add(1, Ordering::SeqCst);
            async move {
                let object =
                    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "items": []});
                let whole = Full::new(Bytes::from(object.to_string())).map_err(BoxError::from);
                match server {
                    Server::Answers => Ok::<_, BoxError>(Response::new(whole.boxed_unsync())),
                    Server::Hangs => futures::future::pending().await,
                    Server::HangsInTheBody => {
                        let body = http_body_util::StreamBody::new(futures::stream::pending());
                        Ok(Response::new(body.boxed_unsync()))
                    }
                }
            }
        });
        let layer = CallLayer(Arc::new(settings));
        Client::new(layer.layer(service), "ns")
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn settings() -> Settings {
    Settings {
        deadline: Duration::from_secs(3),
        metrics: None,
        fence: None,
        watches: None,
        interceptor: None,
        occurrences: Occurrences::default(),
    }
}

fn patch() -> Patch<serde_json::Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}))
}

async fn write(client: &Client) -> Result<ConfigMap, kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "ns");
    api.patch("a", &PatchParams::apply("test"), &patch()).await
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_given_up_at_the_deadline() {
    for server in [Server::Hangs, Server::HangsInTheBody] {
        let client = Fake::default().client(server, settings());
        let started = tokio::time::Instant::now();
        let error = write(&client).await.unwrap_err();
        assert_eq!(started.elapsed(), Duration::from_secs(3), "{server:?}");
        let text = crate::text::chain(&error);
        assert!(text.contains("did not answer \"patch configmaps ns/a\" within 3 s"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_quiet_is_not_cut_off() {
    let client = Fake::default().client(Server::HangsInTheBody, settings());
    let api: Api<ConfigMap> = Api::namespaced(client, "ns");
    let stream = api.watch(&kube::api::WatchParams::default(), "0").await.unwrap();
    let mut stream = std::pin::pin!(stream);
    let next = futures::StreamExt::next(&mut stream);
    assert!(tokio::time::timeout(Duration::from_mins(1), next).await.is_err());
}

#[tokio::test]
async fn writes_are_counted_by_verb_and_kind_and_reads_are_not() {
    let controller = Metrics::new().controller("test");
    let client =
        Fake::default().client(Server::Answers, Settings { metrics: Some(controller.clone()), ..settings() });
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "ns");
    api.list(&ListParams::default()).await.unwrap();
    api.get("a").await.unwrap();
    let pretend = PatchParams { dry_run: true, ..PatchParams::apply("test") };
    api.patch("a", &pretend, &patch()).await.unwrap();
    assert_eq!(controller.writes("configmaps"), 0);
    write(&client).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    api.patch_status("a", &PatchParams::apply("test"), &patch()).await.unwrap();
    assert_eq!(controller.writes("configmaps"), 2);
    assert_eq!(controller.writes("configmaps/status"), 1);
}

#[derive(Debug, Default)]
struct Gate(AtomicBool);

impl Fence for Gate {
    fn may_write(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn nothing_is_written_without_leadership_but_reading_goes_on() {
    let fake = Fake::default();
    let gate = Arc::new(Gate::default());
    let client = fake.client(Server::Answers, Settings { fence: Some(Arc::clone(&gate) as _), ..settings() });
    let error = write(&client).await.unwrap_err();
    assert!(crate::text::chain(&error).contains("does not hold the leader lease"), "{error}");
    assert_eq!(fake.requests(), 0);
    Api::<ConfigMap>::namespaced(client.clone(), "ns").get("a").await.unwrap();
    gate.0.store(true, Ordering::SeqCst);
    write(&client).await.unwrap();
    assert_eq!(fake.requests(), 2);
}

/// Stops the second write of a name, at either side.
#[derive(Debug)]
struct StopSecond {
    before: Before,
    after: After,
}

impl Interceptor for StopSecond {
    fn before<'a>(&'a self, call: &'a Call, occurrence: u64) -> BoxFuture<'a, Before> {
        let hit = call.is_write() && occurrence == 2;
        Box::pin(async move { if hit { self.before } else { Before::Send } })
    }

    fn after<'a>(&'a self, call: &'a Call, occurrence: u64, status: StatusCode) -> BoxFuture<'a, After> {
        assert_eq!(status, StatusCode::OK);
        let hit = call.is_write() && occurrence == 2;
        Box::pin(async move { if hit { self.after } else { After::Deliver } })
    }
}

#[tokio::test]
async fn an_interceptor_stops_a_named_write_before_or_after_it_took_effect() {
    let cases = [
        (Before::Answer(StatusCode::CONFLICT), After::Deliver, 2, "Conflict"),
        (Before::Disconnect, After::Deliver, 2, "the connection broke"),
        (Before::Throttle(Duration::from_millis(1500)), After::Deliver, 2, "TooManyRequests"),
        (Before::Send, After::Lose, 3, "the connection broke"),
        (Before::Send, After::TimeOut, 3, "did not answer \"patch configmaps ns/a\" within 3 s"),
    ];
    for (before, after, reached, message) in cases {
        let fake = Fake::default();
        let interceptor: Arc<dyn Interceptor> = Arc::new(StopSecond { before, after });
        let client = fake.client(Server::Answers, Settings { interceptor: Some(interceptor), ..settings() });
        write(&client).await.unwrap();
        let error = write(&client).await.unwrap_err();
        assert!(crate::text::chain(&error).contains(message), "{error}");
        write(&client).await.unwrap();
        assert_eq!(fake.requests(), reached, "{before:?} {after:?}");
    }
}

#[tokio::test]
async fn a_throttled_request_is_told_when_to_come_back() {
    let before = Before::Throttle(Duration::from_millis(1500));
    let interceptor: Arc<dyn Interceptor> = Arc::new(StopSecond { before, after: After::Deliver });
    let fake = Fake::default();
    let client = fake.client(Server::Answers, Settings { interceptor: Some(interceptor), ..settings() });
    write(&client).await.unwrap();
    let again = Request::patch("/api/v1/namespaces/ns/configmaps/a").body(Body::empty()).unwrap();
    let response = client.send(again).await.unwrap();
    assert_eq!((response.status(), fake.requests()), (StatusCode::TOO_MANY_REQUESTS, 1));
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
}

/// Never lets an answer through.
#[derive(Debug)]
struct Holds;

impl Interceptor for Holds {
    fn after<'a>(&'a self, _: &'a Call, _: u64, _: StatusCode) -> BoxFuture<'a, After> {
        Box::pin(futures::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_held_is_a_time_out_after_the_write_took_effect() {
    let fake = Fake::default();
    let client = fake.client(Server::Answers, Settings { interceptor: Some(Arc::new(Holds)), ..settings() });
    let error = write(&client).await.unwrap_err();
    assert!(crate::text::chain(&error).contains("within 3 s"), "{error}");
    assert_eq!(fake.requests(), 1);
}

/// Counts calls that were answered, and calls that nobody waits for any more.
#[derive(Debug, Default)]
struct Ends {
    answered: AtomicUsize,
    abandoned: AtomicUsize,
}

impl Interceptor for Ends {
    fn after<'a>(&'a self, _: &'a Call, _: u64, _: StatusCode) -> BoxFuture<'a, After> {
        self.answered.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { After::Deliver })
    }

    fn abandoned(&self, call: &Call, occurrence: u64) {
        assert_eq!(call.point(occurrence).to_string(), "patch configmaps a#1");
        self.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_as_answered_or_as_abandoned() {
    for (server, patience, ends) in
        [(Server::Answers, 9, (1, 0)), (Server::Hangs, 9, (0, 1)), (Server::Hangs, 1, (0, 1))]
    {
        let counts = Arc::new(Ends::default());
        let interceptor = Some(Arc::clone(&counts) as Arc<dyn Interceptor>);
        let client = Fake::default().client(server, Settings { interceptor, ..settings() });
        // Whoever asks may give up before the deadline of 3 s does.
        let _ = tokio::time::timeout(Duration::from_secs(patience), write(&client)).await;
        drop(client);
        let seen = || (counts.answered.load(Ordering::SeqCst), counts.abandoned.load(Ordering::SeqCst));
        tokio::time::timeout(Duration::from_secs(9), async {
            while seen() != ends {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{server:?} {patience}: {:?}", seen()));
    }
}

/// Notes the name of every call.
#[derive(Debug, Default)]
struct Notes(std::sync::Mutex<Vec<String>>);

impl Interceptor for Notes {
    fn before<'a>(&'a self, call: &'a Call, occurrence: u64) -> BoxFuture<'a, Before> {
        self.0.lock().unwrap().push(call.point(occurrence).to_string());
        Box::pin(async { Before::Send })
    }
}

#[tokio::test]
async fn calls_are_numbered_by_what_they_are_about() {
    let notes = Arc::new(Notes::default());
    let interceptor = Some(Arc::clone(&notes) as Arc<dyn Interceptor>);
    let client = Fake::default().client(Server::Answers, Settings { interceptor, ..settings() });
    let roled = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {"app.kubernetes.io/component": "role"}},
    }));
    for namespace in ["ns", "other"] {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        for (name, body) in [("a", &patch()), ("b", &patch()), ("a", &patch()), ("c", &roled), ("d", &roled)]
        {
            api.patch(name, &PatchParams::apply("test"), body).await.unwrap();
        }
        api.list(&ListParams::default()).await.unwrap();
    }
    let names = [
        "patch configmaps a#1",
        "patch configmaps b#1",
        "patch configmaps a#2",
        "patch configmaps role#1",
        "patch configmaps role#2",
        "list configmaps *#1",
    ];
    assert_eq!(*notes.0.lock().unwrap(), [names, names].concat());
}
