//! Watches: JSON events in a chunked answer.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, header},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Kubernetes,
    error::{Outcome, Status},
    http::{Call, versioned},
    kinds::Kind,
    list::{Selectors, select},
    request::Form,
    tables,
};

/// How often a quiet watch looks whether something is due on the world's clock.
const LOOK: Duration = Duration::from_millis(50);

/// How often bookmarks are sent; the server sends about one a minute.
const BOOKMARK: Duration = Duration::from_mins(1);

struct Watch {
    kube: Arc<Kubernetes>,
    kind: Arc<Kind>,
    stem: String,
    namespace: String,
    selectors: Selectors,
    form: Form,
    include: String,
    bookmarks: bool,
    /// Events up to here were sent.
    seen: u64,
    pending: VecDeque<Value>,
    bell: tokio::sync::watch::Receiver<u64>,
    ends: Instant,
    bookmark_at: Instant,
    over: bool,
    /// A table watch sends its columns only once.
    columns_sent: bool,
}

/// Answers a watch.
pub(super) fn answer(kube: &Arc<Kubernetes>, call: &Call<'_>) -> Outcome<Response<Body>> {
    let selectors = Selectors::parse(call)?;
    let options = call.options;
    let from = options.get("resourceVersion");
    let bell = kube.bell.subscribe();
    let mut pending = VecDeque::new();
    let initial = options.flag("sendInitialEvents");
    let bookmarks = options.flag("allowWatchBookmarks");
    let seen = if matches!(from, "" | "0") || initial {
        // Without a version the present state comes first, as additions.
        let (items, revision) = select(kube, call)?;
        pending.extend(items.into_iter().map(|(_, object)| event("ADDED", &object)));
        if initial && bookmarks {
            let mut mark = bookmark(&call.target.kind, revision);
            mark["object"]["metadata"]["annotations"] =
                json!({"k8s.io/initial-events-end": "true"});
            pending.push_back(mark);
        }
        revision
    } else {
        from.parse::<u64>().map_err(|_| Status::invalid_version(from))?
    };
    {
        let state = kube.lock_state();
        if seen < state.forgotten {
            let status = Status::expired(format!(
                "too old resource version: {seen} ({})",
                state.forgotten + 1
            ));
            pending = VecDeque::from([json!({"type": "ERROR", "object": status.body()})]);
        }
    }
    let seconds = options.number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok());
    // The server picks between half an hour and an hour where the client names nothing.
    let lasts = Duration::from_secs(seconds.filter(|s| *s > 0).unwrap_or(45 * 60));
    let now = Instant::now();
    let watch = Watch {
        kube: Arc::clone(kube),
        kind: Arc::clone(&call.target.kind),
        stem: call.target.kind.stem(),
        namespace: call.target.namespace.clone(),
        selectors,
        form: options.form()?,
        include: options.get("includeObject").to_owned(),
        bookmarks,
        seen,
        over: pending.iter().any(|e| e["type"] == "ERROR"),
        pending,
        bell,
        ends: now + lasts,
        bookmark_at: now + BOOKMARK,
        columns_sent: false,
    };
    let stream = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<Bytes, Infallible>(Bytes::from(line)), watch))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn event(name: &str, object: &Value) -> Value {
    json!({"type": name, "object": object})
}

fn bookmark(kind: &Kind, revision: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {"kind": kind.kind, "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}}})
}

impl Watch {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(self.line(&event));
            }
            if self.over {
                return None;
            }
            self.kube.reconcile();
            self.collect();
            if !self.pending.is_empty() {
                continue;
            }
            let now = Instant::now();
            if now >= self.ends {
                // A last bookmark saves the client a list when it comes back.
                self.over = true;
                if self.bookmarks {
                    self.pending.push_back(bookmark(&self.kind, self.seen));
                }
                continue;
            }
            if self.bookmarks && now >= self.bookmark_at {
                self.bookmark_at = now + BOOKMARK;
                self.pending.push_back(bookmark(&self.kind, self.seen));
                continue;
            }
            let look = (now + LOOK).min(self.ends);
            // Either a write rings or time passes; both lead to another look.
            drop(tokio::time::timeout_at(look, self.bell.changed()).await);
        }
    }

    /// Queues the events after `seen` that this watch is about.
    fn collect(&mut self) {
        let state = self.kube.lock_state();
        if self.seen < state.forgotten {
            let status = Status::expired(format!(
                "too old resource version: {} ({})",
                self.seen,
                state.forgotten + 1
            ));
            self.pending.push_back(json!({"type": "ERROR", "object": status.body()}));
            self.over = true;
            return;
        }
        let start = state.events.partition_point(|e| e.revision <= self.seen);
        for e in state.events.iter().skip(start) {
            if e.key.stem != self.stem
                || !(self.namespace.is_empty() || e.key.namespace == self.namespace)
            {
                continue;
            }
            let was = e.old.as_ref().is_some_and(|o| self.selectors.matches(o));
            let is = e.new.as_ref().is_some_and(|o| self.selectors.matches(o));
            let (name, object) = match (was, is) {
                (false, true) => ("ADDED", &e.new),
                (true, true) => ("MODIFIED", &e.new),
                (true, false) => ("DELETED", &e.old),
                (false, false) => continue,
            };
            let Some(object) = object else { continue };
            let mut made = event(name, object);
            // An object that left the selection is shown as it was, at the version of the change.
            made["object"]["metadata"]["resourceVersion"] = e.revision.to_string().into();
            self.pending.push_back(made);
        }
        self.seen = self.seen.max(state.revision);
    }

    fn line(&mut self, event: &Value) -> String {
        let plain = event["type"] == "ERROR" || event["type"] == "BOOKMARK";
        let object = &event["object"];
        let shown = match self.form {
            _ if plain && self.form == Form::Object => object.clone(),
            _ if event["type"] == "ERROR" => object.clone(),
            Form::Object => versioned(object, &self.kind.api_version()).into_owned(),
            Form::Table(version) => {
                let now = self.kube.now();
                let rows = if plain { Vec::new() } else { vec![object] };
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let mut table =
                    tables::table(&self.kind, version, &rows, &meta, &self.include, now);
                if self.columns_sent {
                    table["columnDefinitions"] = Value::Null;
                }
                self.columns_sent = true;
                table
            }
            Form::Metadata(version) => tables::metadata_only(version, object),
        };
        let mut line = json!({"type": event["type"], "object": shown}).to_string();
        line.push('\n');
        line
    }
}
