//! Objects in the world's store, the events that watches follow, and the indexes of controllers.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        doc::Doc,
        store::{Guard, Write},
    },
    Kubernetes,
    cluster::Facts,
    error::{Outcome, Status},
    kinds::{Kind, Kinds},
};

/// How many events are kept for watches and list continuations; older versions answer 410. Each
/// holds an object before and after: a few kilobytes.
const KEPT_EVENTS: usize = 2_000;

/// What is kept beside the store; rebuilt from it on start.
#[derive(Default)]
pub(super) struct State {
    /// The kinds served now.
    pub kinds: Arc<Kinds>,
    /// Recent events, oldest first.
    pub events: VecDeque<Event>,
    /// Events up to this version are no longer known.
    pub forgotten: u64,
    /// Newest version of this cluster.
    pub revision: u64,
    /// Keys of objects by the uid of an owner.
    pub owned: BTreeMap<String, BTreeSet<Key>>,
    /// Objects that controllers must look at, in order.
    pub queue: VecDeque<Key>,
    /// What is in `queue`.
    pub queued: BTreeSet<Key>,
    /// Objects that controllers must look at later.
    pub timers: BTreeSet<(Timestamp, Key)>,
    /// What pods are waiting for: (uid and step, when it is over).
    pub waiting: BTreeMap<Key, (String, Timestamp)>,
    /// Whether the objects of the workload identity add-on were made or removed last.
    pub add_on: Option<bool>,
    /// The Pod Identity add-on's profile that its objects were made from last.
    pub pod_identity: Option<Value>,
    /// Pods that have started and whose program is run.
    pub proofs: Vec<Key>,
    /// Controllers whose pods were refused, by namespace and name of the pods' account.
    pub refused: BTreeMap<(String, String), BTreeSet<Key>>,
}

/// Where an object is stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `group/plural/`, with `core` for the core group.
    pub stem: String,
    /// Empty for cluster-wide objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object of `kind`.
    pub(super) fn new(kind: &Kind, namespace: &str, name: &str) -> Self {
        Self { stem: kind.stem(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of a built-in object by its `group/plural/`.
    pub(super) fn of(stem: &str, namespace: &str, name: &str) -> Self {
        Self { stem: stem.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Where the object is kept in the world of a cluster with this prefix.
    pub(super) fn path(&self, prefix: &str) -> String {
        let namespace = if self.namespace.is_empty() { "-" } else { &self.namespace };
        format!("{prefix}{}{namespace}/{}", self.stem, self.name)
    }

    fn parse(path: &str) -> Option<Self> {
        let mut parts = path.splitn(4, '/');
        let (group, plural) = (parts.next()?, parts.next()?);
        let (namespace, name) = (parts.next()?, parts.next()?);
        Some(Self {
            stem: format!("{group}/{plural}/"),
            namespace: if namespace == "-" { String::new() } else { namespace.to_owned() },
            name: name.to_owned(),
        })
    }

    /// Group and plural.
    pub(super) fn resource(&self) -> (&str, &str) {
        let (group, plural) = self.stem.split_once('/').unwrap_or_default();
        (if group == "core" { "" } else { group }, plural.trim_end_matches('/'))
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// The version that the change made.
    pub revision: u64,
    /// What changed.
    pub key: Key,
    /// Before; `None` for a new object.
    pub old: Option<Doc>,
    /// After; `None` for a deletion.
    pub new: Option<Doc>,
}

/// A section in which nothing else changes: the store and the state, locked in this order.
pub(super) struct Tx<'a> {
    /// The server.
    pub kube: &'a Kubernetes,
    /// The time that this section happens at.
    pub now: Timestamp,
    /// What ARM says about the cluster.
    pub facts: Facts,
    store: Guard<'a>,
    /// Events, indexes and queue.
    pub state: MutexGuard<'a, State>,
}

impl Kubernetes {
    /// Starts a section at the present.
    pub(super) fn begin(&self) -> Tx<'_> {
        self.begin_at(self.now())
    }

    /// Starts a section at a given time.
    pub(super) fn begin_at(&self, now: Timestamp) -> Tx<'_> {
        let facts = self.facts();
        let store = self.ctx.store.lock();
        let state = self.lock_state();
        Tx { kube: self, now, facts, store, state }
    }

    /// The state alone. Never held while a section is started.
    pub(super) fn lock_state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock left events or queue shorter, never torn.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kinds served now.
    pub(super) fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.lock_state().kinds)
    }

    /// The key of an object by where the world keeps it.
    pub(super) fn key(&self, path: &str) -> Option<Key> {
        path.strip_prefix(&self.prefix).and_then(Key::parse)
    }

    /// Rebuilds the state from the store.
    pub(super) fn load(&self) {
        let minor = self.facts().minor;
        let world = self.ctx.store.lock();
        let mut state = State::default();
        let mut definitions = Vec::new();
        for (path, doc) in world.range(&self.prefix, "") {
            let Some(key) = self.key(path) else { continue };
            if key.stem.starts_with('~') {
                continue;
            }
            for owner in owners(Some(doc)) {
                state.owned.entry(owner.uid).or_default().insert(key.clone());
            }
            if key.stem == "apiextensions.k8s.io/customresourcedefinitions/" {
                definitions.push(doc.value());
            }
            if state.queued.insert(key.clone()) {
                state.queue.push_back(key);
            }
        }
        state.kinds = Arc::new(Kinds::new(minor, definitions.iter()));
        // What was deleted before is not known any more, so the past begins now.
        state.revision = world.revision();
        drop(world);
        state.forgotten = state.revision;
        *self.lock_state() = state;
    }
}

/// What an owner reference says.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Owner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: bool,
}

impl Owner {
    /// The key of an owner that controls what is in `namespace`.
    fn key(&self, namespace: &str, kinds: &Kinds) -> Option<Key> {
        let kind = kinds.of(&self.api_version, &self.kind)?;
        let namespace = if kind.namespaced { namespace } else { "" };
        self.controller.then(|| Key::new(kind, namespace, &self.name))
    }
}

fn owners(doc: Option<&Doc>) -> Vec<Owner> {
    #[derive(Deserialize)]
    struct Owned {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default, rename = "ownerReferences")]
        owners: Vec<Owner>,
    }
    doc.and_then(Doc::part).map_or(Vec::new(), |part: Owned| part.metadata.owners)
}

impl Tx<'_> {
    /// The object at this place.
    pub(super) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.get_key(&Key::new(kind, namespace, name))
    }

    /// The object at this place.
    pub(super) fn get_key(&self, key: &Key) -> Option<Arc<Value>> {
        self.store.get(&key.path(&self.kube.prefix))
    }

    /// An object that was read from here, to be changed: a copy only where somebody else holds it.
    pub(super) fn own(&self, key: &Key, object: Arc<Value>) -> Value {
        self.store.release(&key.path(&self.kube.prefix));
        Arc::unwrap_or_clone(object)
    }

    /// The document at a key of the cluster's own bookkeeping (`~…`).
    pub(super) fn note(&self, name: &str) -> Option<Arc<Value>> {
        self.store.get(&format!("{}{name}", self.kube.prefix))
    }

    /// The object at this place as text.
    pub(super) fn doc(&self, key: &Key) -> Option<&Doc> {
        self.store.doc(&key.path(&self.kube.prefix))
    }

    /// All objects of `group/plural/`, in one namespace or in all, by namespace and name.
    pub(super) fn list(&self, stem: &str, namespace: Option<&str>) -> Vec<(Key, Arc<Value>)> {
        self.store
            .list(&self.place(stem, namespace))
            .into_iter()
            .filter_map(|(path, object)| Some((self.kube.key(&path)?, object)))
            .collect()
    }

    /// The part of the world's keys that the objects of `group/plural/` have in common.
    pub(super) fn place(&self, stem: &str, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) => format!("{}{stem}{namespace}/", self.kube.prefix),
            None => format!("{}{stem}", self.kube.prefix),
        }
    }

    /// The objects below a [`Tx::place`] by their place, without those up to `after`.
    pub(super) fn range<'b>(
        &'b self,
        place: &'b str,
        after: &str,
    ) -> impl Iterator<Item = (&'b str, &'b Doc)> + use<'b> {
        self.store.range(place, after)
    }

    /// The kind of stored objects at `key`.
    pub(super) fn kind_of(&self, key: &Key) -> Option<Arc<Kind>> {
        let (group, plural) = key.resource();
        self.state.kinds.stored(group, plural).cloned()
    }

    /// The version that the next write makes.
    pub(super) fn next_revision(&self) -> u64 {
        self.store.revision() + 1
    }

    /// Stores `object` (its `resourceVersion` is set here) and tells watches and controllers.
    pub(super) fn store(&mut self, key: &Key, mut object: Value) -> Outcome<Arc<Value>> {
        let revision = self.next_revision();
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let path = key.path(&self.kube.prefix);
        let before = self.store.doc(&path).cloned();
        self.commit(vec![Write::put(path.clone(), object)])?;
        let after = self.store.doc(&path).cloned();
        self.announce(revision, key, before, after);
        self.store.get(&path).ok_or_else(|| Status::internal("the object is gone"))
    }

    /// Removes the object and tells watches and controllers. Returns its last state, with the
    /// version of the removal.
    pub(super) fn erase(&mut self, key: &Key) -> Outcome<Option<Arc<Value>>> {
        let path = key.path(&self.kube.prefix);
        let Some(old) = self.store.get(&path) else { return Ok(None) };
        let revision = self.next_revision();
        self.commit(vec![Write::remove(path)])?;
        for dependent in self.owned_by(old["metadata"]["uid"].as_str().unwrap_or_default()) {
            self.enqueue(dependent);
        }
        self.state.waiting.remove(key);
        let mut last = (*old).clone();
        last["metadata"]["resourceVersion"] = revision.to_string().into();
        self.announce(revision, key, Some(Doc::new(&last)), None);
        Ok(Some(Arc::new(last)))
    }

    fn commit(&mut self, writes: Vec<Write>) -> Outcome<()> {
        match self.store.commit(writes) {
            Ok(_) => Ok(()),
            Err(error) => Err(Status::internal(format!("writing the sandbox's world: {error}"))),
        }
    }

    /// Tells controllers and watches of a change.
    fn announce(&mut self, revision: u64, key: &Key, old: Option<Doc>, new: Option<Doc>) {
        self.enqueue(key.clone());
        let (before, after) = (owners(old.as_ref()), owners(new.as_ref()));
        for gone in before.iter().filter(|owner| !after.contains(owner)) {
            if let Some(keys) = self.state.owned.get_mut(&gone.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.state.owned.remove(&gone.uid);
                }
            }
        }
        for owner in &after {
            self.state.owned.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        // Controllers look at owners when something that they own changes.
        for owner in before.iter().chain(&after) {
            if let Some(owner) = owner.key(&key.namespace, &self.state.kinds) {
                self.enqueue(owner);
            }
        }
        if key.stem == "apiextensions.k8s.io/customresourcedefinitions/" {
            let definitions = self.list(&key.stem, None);
            let kinds =
                Kinds::new(self.facts.minor, definitions.iter().map(|(_, object)| object.as_ref()));
            self.state.kinds = Arc::new(kinds);
        }
        self.state.revision = revision;
        self.state.events.push_back(Event { revision, key: key.clone(), old, new });
        if self.state.events.len() > KEPT_EVENTS
            && let Some(event) = self.state.events.pop_front()
        {
            self.state.forgotten = event.revision;
        }
        self.kube.bell.send_replace(revision);
    }

    /// Asks controllers to look at an object.
    pub(super) fn enqueue(&mut self, key: Key) {
        if self.state.queued.insert(key.clone()) {
            self.state.queue.push_back(key);
        }
    }

    /// Asks controllers to look at whoever controls this object.
    pub(super) fn enqueue_owners(&mut self, key: &Key, object: &Value) {
        for owner in owners(Some(&Doc::new(object))) {
            if let Some(owner) = owner.key(&key.namespace, &self.state.kinds) {
                self.enqueue(owner);
            }
        }
    }

    /// Asks controllers to look at an object at a time.
    pub(super) fn enqueue_at(&mut self, at: Timestamp, key: Key) {
        self.state.timers.insert((at, key));
    }

    /// Keys of what `uid` owns.
    pub(super) fn owned_by(&self, uid: &str) -> Vec<Key> {
        self.state.owned.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Objects of `group/plural/` that `uid` owns.
    pub(super) fn owned(&self, uid: &str, stem: &str) -> Vec<(Key, Arc<Value>)> {
        self.owned_by(uid)
            .into_iter()
            .filter(|key| key.stem == stem)
            .filter_map(|key| {
                let object = self.get_key(&key)?;
                Some((key, object))
            })
            .collect()
    }
}
