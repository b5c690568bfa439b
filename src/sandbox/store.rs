//! The whole sandbox world as one ordered map from key to JSON document.
//!
//! Keys are slash-separated and lower-cased where Azure compares without case, for example
//! `arm/subscriptions/<s>/resourcegroups/<g>/providers/microsoft.managedidentity/…` or
//! `kube/<cluster>/<group>/<resource>/<namespace>/<name>`. Every write passes through
//! [`Store::commit`], which numbers it and hands it to the log before anyone can read it: what a
//! client was told is what a restart finds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One write: the new document, or `None` for removal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// The key of the document.
    pub key: String,
    /// The new document; `None` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

impl Write {
    /// A write that puts `value` at `key`.
    pub fn put(key: impl Into<String>, value: Value) -> Self {
        Self { key: key.into(), value: Some(value) }
    }

    /// A write that removes `key`.
    pub fn remove(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None }
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
    docs: BTreeMap<String, Arc<Value>>,
    revision: u64,
    sink: Option<Box<dyn Sink>>,
}

impl Store {
    /// An empty store that keeps nothing on disk.
    pub fn in_memory() -> Self {
        Self::new(BTreeMap::new(), 0, None)
    }

    /// A store that starts from `docs` at `revision` and appends later writes to `sink`.
    pub fn new(
        docs: BTreeMap<String, Arc<Value>>,
        revision: u64,
        sink: Option<Box<dyn Sink>>,
    ) -> Self {
        Self { inner: Mutex::new(Inner { docs, revision, sink }) }
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
    /// The document at `key`.
    pub fn get(&self, key: &str) -> Option<Arc<Value>> {
        self.inner.docs.get(key).cloned()
    }

    /// All documents whose key starts with `prefix`, in key order.
    pub fn list(&self, prefix: &str) -> Vec<(String, Arc<Value>)> {
        self.inner
            .docs
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), Arc::clone(value)))
            .collect()
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
        for write in writes {
            match write.value {
                Some(value) => {
                    inner.docs.insert(write.key, Arc::new(value));
                }
                None => {
                    inner.docs.remove(&write.key);
                }
            }
        }
        Ok(revision)
    }
}
