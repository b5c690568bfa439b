//! Scripted faults and the request log.
//!
//! A rule says which requests it meets (service, method, path) and what happens to them. Rules
//! are tried in the order in which they were added; the first that is due plays.

use std::{
    io::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chance::Chance;

/// Which requests a fault meets, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `arm`, `entra`, `graph`, `data`, `issuers` or `cluster/<name>`; `*` stands for any text.
    #[serde(default = "any")]
    pub service: String,
    /// The HTTP method, or `WATCH` for the watches of a cluster; `*` for any.
    #[serde(default = "any")]
    pub method: String,
    /// The path without its query, compared without case; `*` stands for any text.
    #[serde(default = "any")]
    pub path: String,
    /// The first matching request that is met, counted from 1.
    #[serde(default = "one")]
    pub nth: u64,
    /// How many requests are met from there on; 0 for all.
    #[serde(default = "one")]
    pub times: u64,
    /// What happens.
    pub action: Action,
}

fn any() -> String {
    "*".to_owned()
}

fn one() -> u64 {
    1
}

/// What happens to a request that a rule meets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// An answer instead of the service's own; nothing is done.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The error code of the body.
        #[serde(default)]
        code: String,
        /// The message of the body.
        #[serde(default)]
        message: String,
        /// `Retry-After` in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// The request is served after so many milliseconds.
    Delay(u64),
    /// The connection closes before the request is served.
    Reset,
    /// The request is served and the connection closes before the answer.
    ReplyLost,
    /// The answer's body ends in the middle.
    Cut,
    /// The answer's body comes in small pieces, each after so many milliseconds.
    Slow(u64),
    /// The answer's head comes, its body never does: a watch that has gone stale.
    Stall,
}

/// Rules with how often each has matched.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<(Rule, u64)>>,
    random: Mutex<Option<Chance>>,
    log: Mutex<Option<std::fs::File>>,
}

impl Faults {
    /// Adds a rule after the others.
    pub fn add(&self, rule: Rule) {
        self.rules().push((rule, 0));
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.rules().clear();
    }

    /// The rules with the number of requests each has matched.
    pub fn list(&self) -> Vec<(Rule, u64)> {
        self.rules().clone()
    }

    /// Meets requests at random from now on, besides what the rules say; `None` ends it.
    pub fn at_random(&self, chance: Option<Chance>) {
        *self.random.lock().unwrap_or_else(PoisonError::into_inner) = chance;
    }

    /// Whether requests are met at random.
    pub(super) fn are_random(&self) -> bool {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Writes one JSON line for each request to `file` from now on.
    pub fn log_to(&self, file: std::fs::File) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    /// Whether requests are written down.
    pub(super) fn logs(&self) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Counts a request against the rules and returns what happens to it. The sandbox's own
    /// requests are never met: with them faults are taken back.
    pub(super) fn meet(
        &self,
        service: &str,
        method: &str,
        path: &str,
        watch: bool,
    ) -> Option<Action> {
        if path.starts_with("/sandbox/") {
            return None;
        }
        let mut due = None;
        for (rule, seen) in self.rules().iter_mut() {
            let verb = glob(&rule.method, method) || (watch && glob(&rule.method, "WATCH"));
            let matches = verb && glob(&rule.service, service) && glob(&rule.path, path);
            if !matches {
                continue;
            }
            *seen += 1;
            let first = rule.nth.max(1);
            let last = first.saturating_add(rule.times.max(1) - 1);
            if due.is_none() && *seen >= first && (rule.times == 0 || *seen <= last) {
                due = Some(rule.action.clone());
            }
        }
        due.or_else(|| {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            random.as_mut()?.meet(service, method, path)
        })
    }

    /// Appends a request to the log, if there is one. A log that cannot be written is given up.
    pub(super) fn record(&self, entry: &Entry<'_>) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = log.as_mut() else { return };
        let millis = u64::try_from(entry.took.as_millis()).unwrap_or(u64::MAX);
        let line = json!({
            "time": entry.time.to_string(), "service": entry.service, "method": entry.method,
            "path": entry.path, "query": shown_query(entry.query), "status": entry.status,
            "fault": entry.fault, "ms": millis, "request_id": entry.request_id, "body": entry.body,
        });
        if writeln!(file, "{line}").is_err() {
            *log = None;
        }
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<(Rule, u64)>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One served request.
pub(super) struct Entry<'a> {
    pub(super) time: jiff::Timestamp,
    pub(super) service: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// `None` if the connection closed instead.
    pub(super) status: Option<u16>,
    pub(super) fault: Option<&'a Action>,
    pub(super) took: Duration,
    pub(super) request_id: Option<&'a str>,
    /// What was sent to Azure Resource Manager, which takes no secrets from these clients.
    pub(super) body: Option<Value>,
}

/// Query parameters that are known to hold no secret; of any other only the name is shown.
fn shown_query(query: &str) -> Value {
    const OPEN: &[&str] = &[
        "api-version",
        "$filter",
        "$top",
        "labelSelector",
        "fieldSelector",
        "limit",
        "watch",
        "resourceVersion",
        "fieldManager",
        "force",
        "dryRun",
        "comp",
        "timeoutSeconds",
    ];
    let pairs = url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| {
        let value = if OPEN.contains(&name.as_ref()) { value.into_owned() } else { "…".into() };
        (name.into_owned(), Value::from(value))
    });
    Value::Object(pairs.collect())
}

/// Whether `text` fits `pattern`, in which `*` stands for any text; without case.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_meets_the_requests_it_counts_to() {
        let faults = Faults::default();
        let rule = json!({ "method": "PUT", "path": "*/roleassignments/*", "nth": 2,
                           "action": { "answer": { "status": 503 } } });
        faults.add(serde_json::from_value(rule).unwrap());
        let path = "/subscriptions/s/providers/Microsoft.Authorization/roleAssignments/g";
        let put = || faults.meet("arm", "PUT", path, false);
        assert_eq!(put(), None);
        assert_eq!(faults.meet("arm", "GET", path, false), None);
        assert!(matches!(put(), Some(Action::Answer { status: 503, .. })));
        assert_eq!(put(), None);
        assert_eq!(faults.list()[0].1, 3);
    }

    #[test]
    fn a_rule_can_name_watches_and_never_meets_the_sandbox_itself() {
        let faults = Faults::default();
        let rule = json!({ "method": "WATCH", "times": 0, "action": "stall" });
        faults.add(serde_json::from_value(rule).unwrap());
        assert_eq!(faults.meet("cluster/prod", "GET", "/api/v1/pods", false), None);
        assert_eq!(faults.meet("cluster/prod", "GET", "/api/v1/pods", true), Some(Action::Stall));
        faults.add(serde_json::from_value(json!({ "times": 0, "action": "reset" })).unwrap());
        assert_eq!(faults.meet("arm", "DELETE", "/sandbox/faults", false), None);
    }

    #[test]
    fn the_log_shows_no_value_that_could_be_secret() {
        assert_eq!(shown_query("api-version=1&sig=abc"), json!({ "api-version": "1", "sig": "…" }));
    }
}
