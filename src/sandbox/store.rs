//! The whole sandbox world as one ordered map from key to JSON document ([`Doc`]).
//!
//! Keys are slash-separated and lower-cased where Azure compares without case, for example
//! `arm/subscriptions/<s>/resourcegroups/<g>/providers/microsoft.managedidentity/…` or
//! `kube/<cluster>/<group>/<resource>/<namespace>/<name>`. Every write passes through
//! [`Store::commit`], which numbers it and hands it to the log before anyone can read it: what a
//! client was told is what a restart finds.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::doc::Doc;

/// How many documents are also kept parsed: what is being changed at a time. Pods that start are
/// written four times within a third of a second.
const RECENT: usize = 512;

/// One write: the new document, or `None` for removal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// The key of the document.
    pub key: String,
    /// The new document; `None` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Doc>,
    /// The same, parsed, where the writer had it.
    #[serde(skip)]
    parsed: Option<Arc<Value>>,
}

impl Write {
    /// A write that puts `value` at `key`.
    pub fn put(key: impl Into<String>, value: Value) -> Self {
        let doc = Doc::new(&value);
        Self { key: key.into(), value: Some(doc), parsed: Some(Arc::new(value)) }
    }

    /// A write that removes `key`.
    pub fn remove(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, parsed: None }
    }
}

/// Where committed writes go before they become visible: the log file, or nowhere in tests.
pub trait Sink: Send {
    /// Appends one batch of writes that became visible as `revision`.
    fn append(&mut self, revision: u64, writes: &[Write]) -> std::io::Result<()>;
}

/// The documents, their revision and the sink. Shared by every emulated service.
pub struct Store {
    inner: Mutex<Inner>,
}

struct Inner {
    docs: BTreeMap<String, Doc>,
    revision: u64,
    sink: Option<Box<dyn Sink>>,
    recent: RefCell<Recent>,
}

/// The documents that were read or written last, parsed; the oldest first. A document never
/// changes, so nothing here is ever stale.
#[derive(Default)]
struct Recent(VecDeque<(Doc, Arc<Value>)>);

impl Recent {
    fn value(&mut self, doc: &Doc) -> Arc<Value> {
        let at = self.0.iter().rposition(|(known, _)| known.is(doc));
        let entry = at.and_then(|at| self.0.remove(at));
        let (doc, value) = entry.unwrap_or_else(|| (doc.clone(), Arc::new(doc.value())));
        self.add(doc, Arc::clone(&value));
        value
    }

    fn add(&mut self, doc: Doc, value: Arc<Value>) {
        self.0.push_back((doc, value));
        if self.0.len() > RECENT {
            self.0.pop_front();
        }
    }
}

impl Store {
    /// An empty store that keeps nothing on disk.
    pub fn in_memory() -> Self {
        Self::new(BTreeMap::new(), 0, None)
    }

    /// A store that starts from `docs` at `revision` and appends later writes to `sink`.
    pub fn new(docs: BTreeMap<String, Doc>, revision: u64, sink: Option<Box<dyn Sink>>) -> Self {
        let recent = RefCell::default();
        Self { inner: Mutex::new(Inner { docs, revision, sink, recent }) }
    }

    /// Locks the store for a read-decide-write section. Hold it briefly and never across an await.
    pub fn lock(&self) -> Guard<'_> {
        // A panic while holding the lock leaves complete documents: writes are applied last.
        Guard { inner: self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner) }
    }

    /// The document at `key`.
    pub fn get(&self, key: &str) -> Option<Arc<Value>> {
        self.lock().get(key)
    }

    /// All documents whose key starts with `prefix`, in key order.
    pub fn list(&self, prefix: &str) -> Vec<(String, Arc<Value>)> {
        self.lock().list(prefix)
    }

    /// The documents below `prefix` that `wanted` picks by their key and text, in key order. Only
    /// they are parsed.
    pub fn select(
        &self,
        prefix: &str,
        wanted: impl Fn(&str, &Doc) -> bool,
    ) -> Vec<(String, Arc<Value>)> {
        self.lock().select(prefix, wanted)
    }

    /// Commits one batch of writes without looking first.
    pub fn commit(&self, writes: Vec<Write>) -> std::io::Result<u64> {
        self.lock().commit(writes)
    }
}

/// A locked [`Store`]: what is read stays true until the guard is dropped.
pub struct Guard<'a> {
    inner: MutexGuard<'a, Inner>,
}

impl Guard<'_> {
    /// The document at `key`, parsed.
    pub fn get(&self, key: &str) -> Option<Arc<Value>> {
        self.inner.docs.get(key).map(|doc| self.parsed(doc))
    }

    /// The document at `key`.
    pub fn doc(&self, key: &str) -> Option<&Doc> {
        self.inner.docs.get(key)
    }

    /// Keeps the document at `key` no longer parsed: its reader goes on with a copy of its own.
    pub(super) fn release(&self, key: &str) {
        if let Some(doc) = self.inner.docs.get(key) {
            self.inner.recent.borrow_mut().0.retain(|(known, _)| !known.is(doc));
        }
    }

    /// All documents whose key starts with `prefix`, in key order.
    pub fn list(&self, prefix: &str) -> Vec<(String, Arc<Value>)> {
        self.select(prefix, |_, _| true)
    }

    /// The documents below `prefix` that `wanted` picks by their key and text, in key order. Only
    /// they are parsed.
    pub fn select(
        &self,
        prefix: &str,
        wanted: impl Fn(&str, &Doc) -> bool,
    ) -> Vec<(String, Arc<Value>)> {
        self.range(prefix, "")
            .filter(|(key, doc)| wanted(key, doc))
            .map(|(key, doc)| (key.to_owned(), self.parsed(doc)))
            .collect()
    }

    /// The documents whose key starts with `prefix` and comes after `after`, in key order.
    pub fn range<'b>(
        &'b self,
        prefix: &'b str,
        after: &str,
    ) -> impl Iterator<Item = (&'b str, &'b Doc)> + use<'b> {
        let first = if after >= prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
        self.inner
            .docs
            .range::<str, _>((first, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, doc)| (key.as_str(), doc))
    }

    fn parsed(&self, doc: &Doc) -> Arc<Value> {
        self.inner.recent.borrow_mut().value(doc)
    }

    /// The revision of the last commit; grows by one with each.
    pub fn revision(&self) -> u64 {
        self.inner.revision
    }

    /// Logs and applies one batch of writes as the next revision, which it returns.
    pub fn commit(&mut self, writes: Vec<Write>) -> std::io::Result<u64> {
        let inner = &mut *self.inner;
        let revision = inner.revision + 1;
        if let Some(sink) = &mut inner.sink {
            sink.append(revision, &writes)?;
        }
        inner.revision = revision;
        let recent = inner.recent.get_mut();
        for write in writes {
            match write.value {
                Some(doc) => {
                    if let Some(parsed) = write.parsed {
                        recent.add(doc.clone(), parsed);
                    }
                    inner.docs.insert(write.key, doc);
                }
                None => {
                    inner.docs.remove(&write.key);
                }
            }
        }
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_begin_after_a_key_and_end_with_the_prefix() {
        let store = Store::in_memory();
        let keys = ["a/1", "a/2", "a/3", "a0", "b/1"];
        let writes = keys.iter().map(|key| Write::put(*key, json!({"key": key}))).collect();
        store.commit(writes).unwrap();
        let world = store.lock();
        let found = |prefix: &str, after: &str| -> Vec<String> {
            world.range(prefix, after).map(|(key, _)| key.to_owned()).collect()
        };
        assert_eq!(found("a/", ""), ["a/1", "a/2", "a/3"]);
        assert_eq!(found("a/", "a/1"), ["a/2", "a/3"]);
        assert_eq!(found("a/", "a/3"), [""; 0]);
        assert_eq!(found("", "a0"), ["b/1"]);
        let two = world.select("a/", |key, _| key.ends_with('2'));
        assert_eq!(two, [("a/2".to_owned(), Arc::new(json!({"key": "a/2"})))]);
    }

    #[test]
    fn what_is_parsed_is_what_is_stored() {
        let store = Store::in_memory();
        for round in 0..3 {
            for key in 0..2 * RECENT {
                let value = json!({"round": round, "key": key});
                store.commit(vec![Write::put(key.to_string(), value)]).unwrap();
                store.commit(vec![Write::remove("gone")]).unwrap();
            }
            for key in 0..2 * RECENT {
                let wanted = json!({"round": round, "key": key});
                assert_eq!(*store.get(&key.to_string()).unwrap(), wanted);
            }
        }
        assert!(store.lock().inner.recent.borrow().0.len() <= RECENT);
    }
}
