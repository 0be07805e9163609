//! The API server's own record, which knows nothing of the matrix, against what the matrix saw: every write of an operator under trial
//! must be in both. What is in one only was not tried, or was never sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use snafu::ResultExt as _;
use vertice_controller::client::Call;

use crate::error::{IoSnafu, Result};
use crate::hub::{Fate, Seen};
use crate::run::Outcome;

/// The API server writes down a request after it answered.
const SOON: Duration = Duration::from_secs(10);
/// Requests that change nothing are not looked at; by text, because most lines are theirs.
const READS: [&str; 3] = [r#""verb":"get""#, r#""verb":"list""#, r#""verb":"watch""#];

/// One kind of write by one operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Write {
    /// Who: every trial's operator is a user of its own.
    pub user: String,
    /// As RBAC names it.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural, with the subresource: `jobs/status`.
    pub resource: String,
    /// Where; empty for cluster-wide objects.
    pub namespace: String,
    /// Which object.
    pub name: String,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}/{} by {}", self.verb, self.resource, self.namespace, self.name, self.user)
    }
}

/// A write that one side knows more often than the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// The write.
    pub write: Write,
    /// How often only the audit log has it.
    pub unseen: u64,
    /// How often only the matrix has it.
    pub unlogged: u64,
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unlogged {
            0 => write!(f, "{}: {} more in the audit log than the matrix saw", self.write, self.unseen),
            count => write!(f, "{}: {count} more seen by the matrix than in the audit log", self.write),
        }
    }
}

/// What came out of it.
#[derive(Clone, Debug, Default)]
pub struct Reconciled {
    /// Writes in both.
    pub matched: u64,
    /// Writes in one only: a line for each kind.
    pub unmatched: Vec<Unmatched>,
}

impl Reconciled {
    /// How many writes only one side knows.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.unmatched.iter().map(|unmatched| unmatched.unseen + unmatched.unlogged).sum()
    }
}

/// How often a write was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// With an answer of the server's: it must be in the log.
    answered: u64,
    /// Under way when its process was killed: it may be in the log.
    unknown: u64,
}

/// What the matrix saw, trial by trial.
#[derive(Debug, Default)]
pub struct Account {
    users: BTreeSet<String>,
    seen: BTreeMap<Write, Tally>,
}

impl Account {
    /// Adds what one trial's operator sent.
    pub fn record(&mut self, outcome: &Outcome) {
        self.add(&outcome.user, &outcome.seen);
    }

    fn add(&mut self, user: &str, seen: &[Seen]) {
        self.users.insert(user.to_owned());
        for Seen { call, fate, .. } in seen {
            let Some(call) = call.as_ref().filter(|call| call.is_write()) else { continue };
            let tally = self.seen.entry(write_of(user, call)).or_default();
            match fate {
                Fate::Answered(_) => tally.answered += 1,
                Fate::Sent => tally.unknown += 1,
                Fate::Withheld => {}
            }
        }
    }

    /// Compares with the audit log and what was rotated out of it, once the log has all that was answered or does not get it.
    pub async fn reconcile(&self, log: &Path) -> Result<Reconciled> {
        let began = Instant::now();
        loop {
            let mut logged = BTreeMap::new();
            for path in files(log)? {
                read(&path, &self.users, &mut logged)?;
            }
            let reconciled = self.compare(&logged);
            let waits = reconciled.unmatched.iter().any(|unmatched| unmatched.unlogged > 0);
            if !waits || began.elapsed() > SOON {
                return Ok(reconciled);
            }
            tokio::time::sleep(SOON / 20).await;
        }
    }

    fn compare(&self, logged: &BTreeMap<Write, u64>) -> Reconciled {
        let mut reconciled = Reconciled::default();
        let writes: BTreeSet<&Write> = self.seen.keys().chain(logged.keys()).collect();
        for write in writes {
            let Tally { answered, unknown } = self.seen.get(write).copied().unwrap_or_default();
            let found = logged.get(write).copied().unwrap_or_default();
            let unseen = found.saturating_sub(answered + unknown);
            let unlogged = answered.saturating_sub(found);
            reconciled.matched += found - unseen;
            if unseen + unlogged > 0 {
                reconciled.unmatched.push(Unmatched { write: write.clone(), unseen, unlogged });
            }
        }
        reconciled
    }
}

fn write_of(user: &str, call: &Call) -> Write {
    Write {
        user: user.to_owned(),
        verb: call.verb.to_string(),
        group: call.group.clone(),
        resource: call.kind(),
        namespace: call.namespace.clone().unwrap_or_default(),
        name: call.name.clone().unwrap_or_default(),
    }
}

/// The log, and what was rotated out of it: `audit.log`, `audit-2026-11-21T02-00-00.000.log`.
fn files(log: &Path) -> Result<Vec<PathBuf>> {
    let folder = log.parent().unwrap_or_else(|| Path::new("."));
    let stem = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let entries = std::fs::read_dir(folder).context(IoSnafu { action: "read", path: folder })?;
    let paths = entries.flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        path.extension() == log.extension() && name.starts_with(&stem)
    };
    Ok(paths.filter(ours).collect())
}

/// The line of a request (<https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/>), as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    impersonated_user: Option<User>,
    object_ref: Option<ObjectRef>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ObjectRef {
    resource: String,
    namespace: String,
    name: String,
    api_group: String,
    subresource: String,
}

/// Counts the writes of these users.
fn read(path: &Path, users: &BTreeSet<String>, logged: &mut BTreeMap<Write, u64>) -> Result<()> {
    let action = "read";
    let file = File::open(path).context(IoSnafu { action, path })?;
    for line in BufReader::new(file).lines() {
        let line = line.context(IoSnafu { action, path })?;
        if READS.iter().any(|verb| line.contains(verb)) {
            continue;
        }
        // The last line may be half written: it is whole when the log is read again.
        if let Ok(line) = serde_json::from_str::<Line>(&line)
            && let Some(write) = line.write(users)
        {
            *logged.entry(write).or_default() += 1;
        }
    }
    Ok(())
}

impl Line {
    fn write(self, users: &BTreeSet<String>) -> Option<Write> {
        let Self { stage, verb, impersonated_user, object_ref } = self;
        let user = impersonated_user?.username;
        // Other stages are of the same request.
        if !users.contains(&user) || !matches!(stage.as_str(), "ResponseComplete" | "Panic") {
            return None;
        }
        let ObjectRef { resource, namespace, name, api_group, subresource } = object_ref.unwrap_or_default();
        let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        Some(Write { user, verb, group: api_group, resource, namespace, name })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use vertice_controller::client::Verb;

    use super::*;
    use crate::point::Point;

    fn seen(resource: &str, subresource: Option<&str>, fate: Fate) -> Seen {
        let call = Call {
            verb: Verb::Patch,
            group: "vertice.io".to_owned(),
            version: "v1alpha1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.map(str::to_owned),
            namespace: Some("ns".to_owned()),
            name: Some("shop".to_owned()),
            role: None,
            apply: true,
            dry_run: false,
        };
        Seen { point: Point { name: call.to_string(), occurrence: 1 }, call: Some(call), fate, rests: 0 }
    }

    fn line(user: &str, verb: &str, resource: &str, subresource: &str) -> String {
        serde_json::json!({
            "kind": "Event", "level": "Metadata", "stage": "ResponseComplete", "verb": verb,
            "user": {"username": "admin"}, "impersonatedUser": {"username": user},
            "objectRef": {
                "resource": resource, "subresource": subresource, "namespace": "ns", "name": "shop",
                "apiGroup": "vertice.io", "apiVersion": "v1alpha1",
            },
            "responseStatus": {"code": 200},
        })
        .to_string()
    }

    fn reconciled(lines: &[String], rotated: &[String]) -> Reconciled {
        let mut account = Account::default();
        account.add(
            "operator-1",
            &[
                seen("verticebackups", Some("status"), Fate::Answered(200)),
                seen("verticebackups", Some("status"), Fate::Answered(409)),
                seen("verticebackups", None, Fate::Withheld),
                seen("verticerestores", None, Fate::Sent),
            ],
        );
        let folder = tempfile::tempdir().unwrap();
        for (name, lines) in [("audit.log", lines), ("audit-2026-11-21T02-00-00.000.log", rotated)] {
            let mut file = File::create(folder.path().join(name)).unwrap();
            writeln!(file, "{}", lines.join("\n")).unwrap();
        }
        let logged = |path: &Path| {
            let mut logged = BTreeMap::new();
            for path in files(path).unwrap() {
                read(&path, &account.users, &mut logged).unwrap();
            }
            logged
        };
        account.compare(&logged(&folder.path().join("audit.log")))
    }

    #[test]
    fn what_both_have_is_matched() {
        let status = line("operator-1", "patch", "verticebackups", "status");
        let others = [line("operator-1", "get", "jobs", ""), line("somebody", "patch", "jobs", "")];
        let all = [std::slice::from_ref(&status), &others[..]].concat();
        let reconciled = reconciled(&all, &[status]);
        assert_eq!((reconciled.matched, reconciled.count()), (2, 0), "{reconciled:?}");
    }

    #[test]
    fn a_request_that_was_under_way_when_its_process_was_killed_may_have_arrived() {
        let status = line("operator-1", "patch", "verticebackups", "status");
        let arrived = line("operator-1", "patch", "verticerestores", "");
        let reconciled = reconciled(&[status.clone(), status, arrived], &[]);
        assert_eq!((reconciled.matched, reconciled.count()), (3, 0), "{reconciled:?}");
    }

    #[test]
    fn a_forged_line_and_a_missing_one_are_both_found() {
        let status = line("operator-1", "patch", "verticebackups", "status");
        let forged = line("operator-1", "delete", "jobs", "");
        let missing = reconciled(std::slice::from_ref(&status), &[]);
        assert_eq!(missing.count(), 1);
        assert_eq!(
            missing.unmatched[0].to_string(),
            "patch verticebackups/status ns/shop by operator-1: 1 more seen by the matrix than in the audit log"
        );
        let extra = reconciled(&[status.clone(), forged, status.clone()], &[]);
        assert_eq!(extra.count(), 1);
        assert_eq!(
            extra.unmatched[0].to_string(),
            "delete jobs ns/shop by operator-1: 1 more in the audit log than the matrix saw"
        );
        let withheld = line("operator-1", "patch", "verticebackups", "");
        assert_eq!(reconciled(&[status.clone(), status, withheld], &[]).count(), 1);
    }
}
