//! Stable names of what a trial can be struck at: requests to the API server, what its watches tell, and the agent's requests to the
//! object store.
//!
//! A point is named by what is done to which object and the how-manieth time, never by anything that differs from run to run
//! (namespaces, generated names, minutes in the names of Jobs, ids of backups), so that a name that was printed can be typed.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use vertice_catalog::layout;
use vertice_controller::client::{Call, Verb, WatchEvent, WatchEventType};

/// One request of a trial: `patch verticebackups/status shop#2`, `s3 put claim.json#1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// What is done to what.
    pub name: String,
    /// The how-manieth request of this name in the trial, from 1.
    pub occurrence: u32,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.occurrence)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not the name of a point; one looks like \"create jobs back-restore#1\"");
        let (name, occurrence) = text.rsplit_once('#').ok_or_else(wrong)?;
        let occurrence = occurrence.parse().map_err(|_| wrong())?;
        Ok(Self { name: name.to_owned(), occurrence })
    }
}

/// Numbers the requests of one trial, across restarts of the operator.
#[derive(Debug, Default)]
pub(crate) struct Occurrences(HashMap<String, u32>);

impl Occurrences {
    /// The next point of this name.
    pub(crate) fn next(&mut self, name: String) -> Point {
        let count = self.0.entry(name.clone()).or_default();
        *count += 1;
        Point { name, occurrence: *count }
    }
}

/// The name of a request to the API server, without its occurrence. Watches have none: they are struck event by event.
pub(crate) fn of_call(call: &Call) -> Option<String> {
    if call.verb == Verb::Watch {
        return None;
    }
    let subject = call.role.as_deref().or(call.name.as_deref()).unwrap_or("*");
    Some(format!("{} {} {}", call.verb, call.kind(), without_minutes(subject)))
}

/// The name of what a watch tells, without its occurrence, which is the object's how-manieth version: two watches of one kind agree
/// on it. Bookmarks and errors have none.
pub(crate) fn of_event(call: &Call, event: &WatchEvent) -> Option<String> {
    // Two generations of one object tell each other apart by their end.
    let verb = match event.type_ {
        WatchEventType::Added | WatchEventType::Modified => "see",
        WatchEventType::Deleted => "see the end of",
        WatchEventType::Bookmark | WatchEventType::Error => return None,
    };
    Some(format!("{verb} {} {}", call.kind(), without_minutes(event.name.as_deref()?)))
}

/// The name of a story's rest, without its occurrence: all that was to happen has happened, and the next step is not yet done. It is
/// struck there as requests about a custom resource of this kind are.
pub(crate) fn of_rest(resource: &str) -> String {
    format!("rest {resource}")
}

/// The custom resource that a request is about, when it is about one: it, or what it is made into.
pub(crate) fn about(call: &Call) -> Option<&'static str> {
    match call.resource.as_str() {
        "verticebackups" | "cronjobs" => Some("verticebackups"),
        "verticerestores" | "jobs" => Some("verticerestores"),
        _ => None,
    }
}

/// A Job's name without the minute that it was scheduled for.
pub(crate) fn without_minutes(name: &str) -> String {
    let digits = |text: &str| text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = name.split('-').map(|part| if digits(part) { "N" } else { part }).collect();
    parts.join("-")
}

/// The name of a request to the object store, when it may change something. `path` is `/bucket/key`.
pub(crate) fn of_store(method: &http::Method, path: &str, query: &str) -> Option<String> {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let key = within_prefix(path);
    let name = match *method {
        http::Method::PUT if has("partNumber") => {
            format!("put {key} part {}", value("partNumber").unwrap_or_default())
        }
        http::Method::PUT => format!("put {key}"),
        http::Method::POST if has("uploads") => format!("begin {key}"),
        http::Method::POST if has("uploadId") => format!("complete {key}"),
        http::Method::POST => "delete many".to_owned(),
        http::Method::DELETE if has("uploadId") => format!("abort {key}"),
        http::Method::DELETE => format!("delete {key}"),
        _ => return None,
    };
    Some(format!("s3 {name}"))
}

/// What of a path does not differ from run to run: below the folder of a backup, or below the prefix, all of whose own objects lie flat.
fn within_prefix(path: &str) -> &str {
    let below_id = path.match_indices('/').find_map(|(slash, _)| {
        let rest = &path[slash + 1..];
        layout::backup_of(rest).and_then(|_| rest.split_once('/')).map(|(_, name)| name)
    });
    below_id.or_else(|| path.rsplit_once('/').map(|(_, name)| name)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_store_hold_nothing_that_differs_from_run_to_run() {
        let name = |method: http::Method, path: &str, query: &str| of_store(&method, path, query);
        let id = "20261121T020000Z-3f9a1c";
        let manifest = format!("/backups/ns/shop/{id}/manifest.json");
        let dump = format!("/backups/ns/shop/{id}/databases/0.dump");
        let put = http::Method::PUT;
        assert_eq!(name(put.clone(), "/backups/ns/shop/claim.json", "").unwrap(), "s3 put claim.json");
        assert_eq!(name(put.clone(), &manifest, "").unwrap(), "s3 put manifest.json");
        assert_eq!(name(put, &dump, "partNumber=3&uploadId=u").unwrap(), "s3 put databases/0.dump part 3");
        assert_eq!(name(http::Method::POST, &dump, "uploads=").unwrap(), "s3 begin databases/0.dump");
        assert_eq!(name(http::Method::POST, &dump, "uploadId=u").unwrap(), "s3 complete databases/0.dump");
        assert_eq!(name(http::Method::DELETE, &dump, "uploadId=u").unwrap(), "s3 abort databases/0.dump");
        assert_eq!(name(http::Method::POST, "/backups", "delete").unwrap(), "s3 delete many");
        assert_eq!(name(http::Method::GET, &dump, ""), None);
    }

    #[test]
    fn minutes_are_left_out_of_jobs_names() {
        assert_eq!(without_minutes("shop-backup-29912345"), "shop-backup-N");
        assert_eq!(without_minutes("shop-1"), "shop-1");
    }

    #[test]
    fn a_printed_point_can_be_typed() {
        let point = Point { name: "patch verticebackups/status shop".into(), occurrence: 12 };
        assert_eq!(point.to_string().parse::<Point>().unwrap(), point);
        assert!("patch".parse::<Point>().is_err() && "patch#x".parse::<Point>().is_err());
    }
}
