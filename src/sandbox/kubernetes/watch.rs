//! Watches: JSON events in a chunked answer.

use std::{borrow::Cow, collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, header},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    super::doc::Doc,
    Kubernetes,
    error::{Outcome, Status},
    http::{Call, as_stored, versioned},
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
    pending: VecDeque<Told>,
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
        pending.extend(items.into_iter().map(|(_, object)| Told { name: "ADDED", object }));
        if initial && bookmarks {
            let mut mark = mark(&call.target.kind, revision);
            mark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            pending.push_back(Told::new("BOOKMARK", &mark));
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
            pending = VecDeque::from([Told::new("ERROR", &status.body())]);
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
        over: pending.iter().any(|told| told.name == "ERROR"),
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

/// An event to be sent.
struct Told {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    name: &'static str,
    object: Doc,
}

impl Told {
    fn new(name: &'static str, object: &Value) -> Self {
        Self { name, object: Doc::new(object) }
    }

    fn bookmark(kind: &Kind, revision: u64) -> Self {
        Self::new("BOOKMARK", &mark(kind, revision))
    }
}

fn mark(kind: &Kind, revision: u64) -> Value {
    json!({"kind": kind.kind, "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}})
}

impl Watch {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(told) = self.pending.pop_front() {
                return Some(self.line(&told));
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
                    self.pending.push_back(Told::bookmark(&self.kind, self.seen));
                }
                continue;
            }
            if self.bookmarks && now >= self.bookmark_at {
                self.bookmark_at = now + BOOKMARK;
                self.pending.push_back(Told::bookmark(&self.kind, self.seen));
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
            self.pending.push_back(Told::new("ERROR", &status.body()));
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
            let mut told = Told { name, object: object.clone() };
            if was && !is && e.new.is_some() {
                // It left the selection: it is shown as it was, at the version of the change.
                let mut last = object.value();
                last["metadata"]["resourceVersion"] = e.revision.to_string().into();
                told.object = Doc::new(&last);
            }
            self.pending.push_back(told);
        }
        self.seen = self.seen.max(state.revision);
    }

    fn line(&mut self, told: &Told) -> String {
        let plain = matches!(told.name, "ERROR" | "BOOKMARK");
        let version = self.kind.api_version();
        let whole = told.name == "ERROR" || self.form == Form::Object;
        let stored =
            if plain { Some(told.object.text()) } else { as_stored(&told.object, &version) };
        let shown: Cow<'_, str> = match (stored, self.form) {
            (Some(text), _) if whole => text.into(),
            (_, Form::Object) => versioned(&told.object.value(), &version).to_string().into(),
            (_, Form::Table(table)) => self.table(table, &told.object.value(), plain).into(),
            (_, Form::Metadata(table)) => {
                tables::metadata_only(table, &told.object.value()).to_string().into()
            }
        };
        format!("{{\"type\":\"{}\",\"object\":{shown}}}\n", told.name)
    }

    fn table(&mut self, version: &str, object: &Value, plain: bool) -> String {
        let now = self.kube.now();
        let rows = if plain { Vec::new() } else { vec![object] };
        let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let mut table = tables::table(&self.kind, version, &rows, &meta, &self.include, now);
        if self.columns_sent {
            table["columnDefinitions"] = Value::Null;
        }
        self.columns_sent = true;
        table.to_string()
    }
}
