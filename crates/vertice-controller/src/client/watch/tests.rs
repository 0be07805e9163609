use std::{sync::Mutex, time::Duration};

use futures::future::BoxFuture;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::WatchParams,
    client::Body,
    core,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tower::Layer as _;

use super::*;
use crate::client::{
    Verb,
    intercept::Occurrences,
    layer::{CallLayer, Settings},
};

/// What the interceptor does with the events of some names; it notes all that it is asked about.
#[derive(Debug, Default)]
struct Does {
    what: Vec<(&'static str, OnEvent)>,
    asked: Mutex<Vec<String>>,
    lags: Option<Duration>,
}

impl Interceptor for Does {
    fn event<'a>(&'a self, call: &'a Call, event: &'a WatchEvent) -> BoxFuture<'a, OnEvent> {
        assert_eq!((call.verb, call.kind().as_str()), (Verb::Watch, "configmaps"));
        self.asked.lock().unwrap().push(event.to_string());
        let mut found =
            self.what.iter().filter(|(name, _)| Some(*name) == event.name.as_deref()).map(|(_, on)| *on);
        // Breaks only the first time, or a watcher would never get on.
        let first =
            self.asked.lock().unwrap().iter().filter(|asked| **asked == event.to_string()).count() == 1;
        let on = found.next().filter(|_| first).unwrap_or(OnEvent::Deliver);
        let lags = self.lags;
        Box::pin(async move {
            if let Some(lags) = lags {
                tokio::time::sleep(lags).await;
            }
            on
        })
    }
}

/// An API server that has nothing in its list; its first watch sends these chunks and ends, the next ones stay silent.
#[derive(Debug, Clone, Default)]
struct Server {
    chunks: Vec<Bytes>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Cut at every so many bytes, as a network likes to.
    fn sends(text: &str, bytes: usize) -> Self {
        let chunks = text.as_bytes().chunks(bytes).map(Bytes::copy_from_slice).collect();
        Self { chunks, ..Self::default() }
    }

    fn answer(&self, request: &Request<Body>) -> AnyBody {
        let uri = request.uri().to_string();
        let mut requests = self.requests.lock().unwrap();
        let watched = requests.iter().any(|request| request.contains("watch=true"));
        requests.push(uri.clone());
        if !uri.contains("watch=true") {
            let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
            return http_body_util::Full::from(list.to_string())
                .map_err(|never| match never {})
                .boxed_unsync();
        }
        let chunks = if watched { Vec::new() } else { self.chunks.clone() };
        let sent = stream::iter(chunks).map(|chunk| Ok(Frame::data(chunk)));
        let rest = if watched { stream::pending().boxed() } else { stream::empty().boxed() };
        StreamBody::new(sent.chain(rest)).boxed_unsync()
    }

    fn client(&self, interceptor: Option<Arc<dyn Interceptor>>) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = Response::new(server.answer(&request));
            async move { Ok::<_, BoxError>(response) }
        });
        let settings = Settings {
            deadline: Duration::from_secs(3),
            metrics: None,
            fence: None,
            watches: None,
            interceptor,
            occurrences: Occurrences::default(),
        };
        Client::new(CallLayer(Arc::new(settings)).layer(service), "ns")
    }

    /// The versions from which was watched, and how often was listed.
    fn asked(&self) -> (Vec<String>, usize) {
        let requests = self.requests.lock().unwrap();
        let from = requests
            .iter()
            .filter_map(|request| request.split_once("resourceVersion="))
            .map(|(_, rest)| rest.split('&').next().unwrap_or_default().to_owned());
        (from.collect(), requests.iter().filter(|request| !request.contains("watch=true")).count())
    }
}

fn line(type_: &str, name: &str, version: u32) -> String {
    let metadata = json!({"name": name, "namespace": "ns", "resourceVersion": version.to_string(), "labels": {
        "app.kubernetes.io/component": "test", "umlaut": "ü",
    }});
    format!(
        "{}\n",
        json!({"type": type_, "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}})
    )
}

fn three() -> String {
    line("ADDED", "a", 2) + &line("MODIFIED", "b", 3) + &line("DELETED", "c", 4)
}

/// What kube sees of a watch that sends this.
async fn seen(server: &Server, interceptor: Option<Arc<dyn Interceptor>>) -> Vec<String> {
    let api: Api<ConfigMap> = Api::namespaced(server.client(interceptor), "ns");
    let events = api.watch(&WatchParams::default(), "1").await.unwrap();
    let events = events.map(|event| match event {
        Ok(core::WatchEvent::Added(object)) => format!("added {}", object.name_any()),
        Ok(core::WatchEvent::Modified(object)) => format!("modified {}", object.name_any()),
        Ok(core::WatchEvent::Deleted(object)) => format!("deleted {}", object.name_any()),
        Ok(core::WatchEvent::Bookmark(_)) => "bookmark".into(),
        Ok(core::WatchEvent::Error(status)) => format!("error {}", status.code),
        Err(error) => crate::text::chain(&error),
    });
    events.collect().await
}

fn does(what: &[(&'static str, OnEvent)]) -> Arc<Does> {
    Arc::new(Does { what: what.to_vec(), ..Does::default() })
}

#[tokio::test]
async fn each_event_is_asked_about_however_the_stream_is_cut_into_chunks() {
    for bytes in [1, 7, 64, 100_000] {
        let interceptor = does(&[]);
        let server = Server::sends(&three(), bytes);
        let all = ["added a", "modified b", "deleted c"];
        assert_eq!(seen(&server, Some(Arc::clone(&interceptor) as _)).await, all, "{bytes}");
        let asked = interceptor.asked.lock().unwrap().clone();
        assert_eq!(asked, ["Added ns/a", "Modified ns/b", "Deleted ns/c"], "{bytes}");
    }
}

#[tokio::test]
async fn an_event_can_be_dropped_or_repeated_and_the_stream_broken_or_expired() {
    let cases: [(OnEvent, &[&str]); 5] = [
        (OnEvent::Deliver, &["added a", "modified b", "deleted c"]),
        (OnEvent::Drop, &["added a", "deleted c"]),
        (OnEvent::Repeat, &["added a", "modified b", "modified b", "deleted c"]),
        (OnEvent::Break, &["added a"]),
        (OnEvent::Expire, &["added a", "error 410"]),
    ];
    for (on, expected) in cases {
        let server = Server::sends(&three(), 50);
        assert_eq!(seen(&server, Some(does(&[("b", on)]))).await, expected, "{on:?}");
    }
}

#[tokio::test]
async fn what_is_no_event_goes_through_and_nothing_is_parsed_without_an_interceptor() {
    let cut = three().split_at(250).0.to_owned();
    for interceptor in [None, Some(does(&[]) as Arc<dyn Interceptor>)] {
        assert_eq!(seen(&Server::sends(&cut, 90), interceptor.clone()).await, ["added a"]);
        let broken = Server::sends("no json\n", 90);
        let seen = seen(&broken, interceptor).await;
        assert!(seen.len() == 1 && seen[0].contains("expected"), "{seen:?}");
    }
}

/// What a watcher sees until it saw an object named `last`.
async fn watched(server: &Server, interceptor: Arc<Does>, last: &str) -> Vec<String> {
    let api: Api<ConfigMap> = Api::namespaced(server.client(Some(interceptor)), "ns");
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != last) {
        match events.next().await {
            Some(Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object))) => {
                names.push(object.name_any());
            }
            Some(Ok(watcher::Event::InitDone)) => names.push("list".into()),
            Some(_) => {}
            None => break,
        }
    }
    names
}

#[tokio::test(start_paused = true)]
async fn a_watcher_goes_on_after_a_break_where_it_was_and_lists_anew_after_an_expiry() {
    let server = Server::sends(&three(), 50);
    let seen = watched(&server, does(&[("b", OnEvent::Drop)]), "c").await;
    assert_eq!(seen, ["list", "a", "c"]);

    let next_watch = async |server: &Server, on| {
        let client = server.client(Some(does(&[("b", on)])));
        let api: Api<ConfigMap> = Api::namespaced(client, "ns");
        let events = watcher(api, watcher::Config::default()).default_backoff();
        // Until it waits at the second watch, which never says a word.
        let silence = tokio::time::timeout(Duration::from_mins(1), events.for_each(async |_| {})).await;
        assert!(silence.is_err());
        server.asked()
    };
    let server = Server::sends(&three(), 50);
    let (from, lists) = next_watch(&server, OnEvent::Break).await;
    assert_eq!((from.as_slice(), lists), (["1".to_owned(), "2".to_owned()].as_slice(), 1));
    let server = Server::sends(&three(), 50);
    let (from, lists) = next_watch(&server, OnEvent::Expire).await;
    assert_eq!((from.as_slice(), lists), (["1".to_owned(), "1".to_owned()].as_slice(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_held_event_holds_those_after_it_and_no_deadline_cuts_it_off() {
    let lags = Duration::from_mins(1);
    let interceptor = Arc::new(Does { lags: Some(lags), ..Does::default() });
    let started = tokio::time::Instant::now();
    assert_eq!(watched(&Server::sends(&three(), 50), interceptor, "c").await, ["list", "a", "b", "c"]);
    assert_eq!(started.elapsed(), lags * 3);
}

#[test]
fn an_event_says_which_object_at_which_version() {
    let event = WatchEvent::read(&line("ADDED", "a", 7)).unwrap();
    assert_eq!(event.type_, WatchEventType::Added);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((event.namespace, event.name, event.role), (text("ns"), text("a"), text("test")));
    assert_eq!(event.resource_version.as_deref(), Some("7"));
    let bookmark: Value = json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "metadata": {"resourceVersion": "9", "name": ""}}});
    let event = WatchEvent::read(&bookmark.to_string()).unwrap();
    assert_eq!((event.to_string().as_str(), event.resource_version.as_deref()), ("Bookmark", Some("9")));
}
