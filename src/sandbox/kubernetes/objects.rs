//! Creating, updating and applying objects: the life of metadata, whoever writes.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    admission,
    apply::managed::{self, Author, Manager},
    defaults,
    error::{FieldError, Outcome, Status},
    fields,
    kinds::Kind,
    storage::{Key, Tx},
    validation,
};

/// Who writes and how.
#[derive(Debug, Clone)]
pub(super) struct Writer<'a> {
    /// Field manager.
    pub manager: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Version of the request where it is not the stored one.
    pub api_version: Option<&'a str>,
    /// Nothing is stored.
    pub dry_run: bool,
    /// The new content comes from a patch or an apply.
    pub patch: bool,
}

impl<'a> Writer<'a> {
    /// The server itself or one of its controllers.
    pub(super) fn system(manager: &'a str) -> Self {
        Self { manager, subresource: "", api_version: None, dry_run: false, patch: false }
    }

    /// The same writer through a subresource.
    pub(super) fn through(&self, subresource: &'a str) -> Self {
        Self { subresource, ..self.clone() }
    }
}

/// A time as `metadata` has it: RFC 3339 in seconds, UTC.
pub(super) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A string member of `metadata`, or the empty string.
pub(super) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    match &mut object["metadata"] {
        Value::Object(metadata) => metadata,
        // Set to an object two lines above.
        _ => unreachable!("metadata is an object"),
    }
}

impl Tx<'_> {
    /// Creates `object` in `namespace` (empty for cluster-wide kinds).
    pub(super) fn create(
        &mut self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        writer: &Writer<'_>,
    ) -> Outcome<Arc<Value>> {
        self.prepare_new(kind, namespace, &mut object)?;
        metadata(&mut object).remove("managedFields");
        let managers = Vec::new();
        let live = Self::empty(kind, &object);
        self.finish_new(kind, namespace, object, writer, |object, author| {
            managed::update(&live, object, managers, author, kind.ty())
        })
    }

    /// What an object that does not exist looks like to the bookkeeping.
    pub(super) fn empty(kind: &Kind, object: &Value) -> Value {
        let mut empty = Map::new();
        empty.insert("apiVersion".into(), object["apiVersion"].clone());
        empty.insert("kind".into(), kind.kind.clone().into());
        empty.insert("metadata".into(), Value::Object(Map::new()));
        Value::Object(empty)
    }

    /// Checks and fills metadata of a new object before anything else looks at it.
    fn prepare_new(&mut self, kind: &Kind, namespace: &str, object: &mut Value) -> Outcome<()> {
        let given = meta(object, "namespace").to_owned();
        if kind.namespaced && !given.is_empty() && given != namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let metadata = metadata(object);
        if kind.namespaced {
            metadata.insert("namespace".into(), namespace.into());
        } else {
            metadata.remove("namespace");
        }
        if metadata
            .get("resourceVersion")
            .is_some_and(|v| v.as_str().is_some_and(|v| !v.is_empty()))
        {
            return Err(Status::plain(
                500,
                "resourceVersion should not be set on objects to be created",
            ));
        }
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "selfLink",
            "resourceVersion",
        ] {
            metadata.remove(field);
        }
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let base =
            metadata.get("generateName").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() && !base.is_empty() {
            let generated = self.generate_name(&base);
            object["metadata"]["name"] = generated.into();
        } else if name.is_empty() {
            return Err(Status::invalid(
                kind,
                "",
                &[FieldError::required("metadata.name", "name or generateName is required")],
            ));
        }
        Ok(())
    }

    fn generate_name(&self, base: &str) -> String {
        let base: String = base.chars().take(58).collect();
        format!("{base}{}", suffix(&self.kube.ctx.ids.guid().into_bytes()))
    }

    /// The part of creation after the content is known: defaults, admission, validation, storing.
    pub(super) fn finish_new(
        &mut self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        writer: &Writer<'_>,
        book: impl FnOnce(&Value, &Author<'_>) -> Vec<Manager>,
    ) -> Outcome<Arc<Value>> {
        let name = meta(&object, "name").to_owned();
        let key = Key::new(kind, namespace, &name);
        let now = stamp(self.now);
        object["apiVersion"] = kind.storage_version().into();
        object["kind"] = kind.kind.clone().into();
        if starts_without_status(kind)
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        let generation = has_generation(kind, self.facts.minor);
        {
            let metadata = metadata(&mut object);
            metadata.insert("uid".into(), self.kube.ctx.ids.guid().to_string().into());
            metadata.insert("creationTimestamp".into(), now.clone().into());
            if generation {
                metadata.insert("generation".into(), 1.into());
            }
        }
        admission::namespace(self, kind, namespace, &name)?;
        defaults::fill(kind, &mut object, self.facts.minor);
        fields::complete(&mut object, kind.ty());
        let api_version = writer.api_version.map_or_else(|| kind.storage_version(), str::to_owned);
        let author = Author {
            manager: writer.manager,
            api_version: &api_version,
            subresource: writer.subresource,
            now: &now,
            minor: self.facts.minor,
        };
        // Ownership is settled before admission and allocation: what they add belongs to nobody.
        let managers = book(&object, &author);
        admission::create(self, kind, namespace, &mut object)?;
        defaults::allocate(kind, &mut object, self.facts.minor);
        fields::complete(&mut object, kind.ty());
        let errors = validation::create(kind, &object);
        if !errors.is_empty() {
            return Err(Status::invalid(kind, &name, &errors));
        }
        if self.get_key(&key).is_some() {
            return Err(Status::already_exists(kind, &name));
        }
        if let Some(list) = managed::encode(&managers) {
            object["metadata"]["managedFields"] = list;
        }
        if writer.dry_run {
            return Ok(Arc::new(object));
        }
        self.store(&key, object)
    }

    /// Replaces the stored object by `new` as far as the path that it was written through allows.
    /// A write that changes nothing stores nothing.
    pub(super) fn update(
        &mut self,
        kind: &Kind,
        old: &Arc<Value>,
        new: Value,
        writer: &Writer<'_>,
    ) -> Outcome<Arc<Value>> {
        let mut live = (**old).clone();
        let managers = managed::take(&mut live);
        let mut new = new;
        // An explicitly emptied list resets the bookkeeping.
        let reset = new["metadata"]["managedFields"]
            .as_array()
            .is_some_and(|list| list.is_empty() || list == &[Value::Object(Map::new())]);
        let given = managed::take(&mut new);
        let managers = if reset {
            Vec::new()
        } else if given.is_empty() {
            managers
        } else {
            given
        };
        let had = old["metadata"].get("managedFields").is_some() && !reset;
        self.finish_update(kind, old, new, writer, |new, author| {
            // Tracking starts with the creation or the first apply, not in between.
            if had { managed::update(&live, new, managers, author, kind.ty()) } else { managers }
        })
    }

    /// The part of an update after the new content is known.
    pub(super) fn finish_update(
        &mut self,
        kind: &Kind,
        old: &Arc<Value>,
        mut new: Value,
        writer: &Writer<'_>,
        book: impl FnOnce(&Value, &Author<'_>) -> Vec<Manager>,
    ) -> Outcome<Arc<Value>> {
        let name = meta(old, "name").to_owned();
        let key = Key::new(kind, meta(old, "namespace"), &name);
        check_identity(kind, old, &new, writer.patch)?;
        let given = meta(&new, "resourceVersion");
        if !given.is_empty() && given != "0" && given != meta(old, "resourceVersion") {
            return Err(Status::modified(kind, &name));
        }
        new["apiVersion"] = kind.storage_version().into();
        new["kind"] = kind.kind.clone().into();
        keep_system_metadata(old, &mut new);
        confine(kind, old, &mut new, writer.subresource);
        defaults::fill(kind, &mut new, self.facts.minor);
        fields::complete(&mut new, kind.ty());
        if writer.subresource.is_empty() || writer.subresource == "ephemeralcontainers" {
            let errors = validation::update(kind, old, &new, writer.subresource);
            if !errors.is_empty() {
                return Err(Status::invalid(kind, &name, &errors));
            }
        }
        if kind.plural == "daemonsets" && old["spec"]["template"] != new["spec"]["template"] {
            const TEMPLATE: &str = "deprecated.daemonset.template.generation";
            let count = old["metadata"]["annotations"][TEMPLATE].as_str().unwrap_or("1");
            let next = count.parse::<i64>().unwrap_or(1) + 1;
            new["metadata"]["annotations"][TEMPLATE] = next.to_string().into();
        }
        if has_generation(kind, self.facts.minor)
            && content_differs(kind, old, &new)
            && let Some(generation) = old["metadata"]["generation"].as_i64()
        {
            new["metadata"]["generation"] = (generation + 1).into();
        }
        let api_version = writer.api_version.map_or_else(|| kind.storage_version(), str::to_owned);
        let now = stamp(self.now);
        let author = Author {
            manager: writer.manager,
            api_version: &api_version,
            subresource: writer.subresource,
            now: &now,
            minor: self.facts.minor,
        };
        let managers = book(&new, &author);
        match managed::encode(&managers) {
            Some(list) => new["metadata"]["managedFields"] = list,
            None => {
                metadata(&mut new).remove("managedFields");
            }
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if new == **old {
            return Ok(Arc::clone(old));
        }
        if writer.dry_run {
            return Ok(Arc::new(new));
        }
        self.keep(kind, &key, new)
    }

    /// Stores the new content of an object, or removes it if it only waited for this.
    fn keep(&mut self, kind: &Kind, key: &Key, new: Value) -> Outcome<Arc<Value>> {
        let dying = new["metadata"].get("deletionTimestamp").is_some_and(Value::is_string);
        if dying && no_finalizers(kind, &new) && grace_is_over(&new) {
            self.store(key, new)?;
            return self.erase(key)?.ok_or_else(|| Status::not_found(kind, &key.name));
        }
        self.store(key, new)
    }

    /// Changes the status of an object as a controller does, and nothing else. Most writes of a
    /// cluster are these, so what a status cannot touch is not looked at.
    pub(super) fn modify_status(
        &mut self,
        kind: &Kind,
        old: Arc<Value>,
        writer: &Writer<'_>,
        change: impl FnOnce(&mut Value),
    ) -> Outcome<Arc<Value>> {
        let part = |status: Value| Value::Object(Map::from_iter([("status".to_owned(), status)]));
        let live = part(old["status"].clone());
        let mut changed = live.clone();
        if !changed["status"].is_object() {
            changed["status"] = Value::Object(Map::new());
        }
        change(&mut changed["status"]);
        fields::complete(&mut changed, kind.ty());
        let mut changed = part(changed["status"].take());
        if changed == live {
            return Ok(old);
        }
        let (api_version, now) = (kind.storage_version(), stamp(self.now));
        let author = Author {
            manager: writer.manager,
            api_version: &api_version,
            subresource: "status",
            now: &now,
            minor: self.facts.minor,
        };
        let key = Key::new(kind, meta(&old, "namespace"), meta(&old, "name"));
        let mut new = self.own(&key, old);
        if let Some(list) = new["metadata"].get_mut("managedFields") {
            managed::update_status(list, &live, &changed, &author, kind.ty());
        }
        new["status"] = changed["status"].take();
        self.keep(kind, &key, new)
    }

    /// Changes an object as a controller does: reads, changes a copy, stores it if it differs.
    pub(super) fn modify(
        &mut self,
        kind: &Kind,
        old: &Arc<Value>,
        writer: &Writer<'_>,
        change: impl FnOnce(&mut Value),
    ) -> Outcome<Arc<Value>> {
        let mut new = (**old).clone();
        change(&mut new);
        if new == **old {
            return Ok(Arc::clone(old));
        }
        if let Some(metadata) = new["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
        }
        self.update(kind, old, new, writer)
    }
}

/// The five characters of a generated name.
pub(super) fn suffix(random: &[u8]) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    random.iter().take(5).map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()])).collect()
}

/// Whether the server counts generations of this kind.
fn has_generation(kind: &Kind, minor: u32) -> bool {
    if kind.group == "batch" && minor < 21 {
        return false;
    }
    kind.custom
        || matches!(
            kind.plural.as_str(),
            "deployments"
                | "replicasets"
                | "statefulsets"
                | "daemonsets"
                | "replicationcontrollers"
                | "jobs"
                | "cronjobs"
                | "poddisruptionbudgets"
                | "ingresses"
                | "ingressclasses"
                | "networkpolicies"
                | "mutatingwebhookconfigurations"
                | "validatingwebhookconfigurations"
                | "customresourcedefinitions"
                | "priorityclasses"
                | "endpointslices"
        )
}

fn starts_without_status(kind: &Kind) -> bool {
    kind.status && !matches!(kind.plural.as_str(), "nodes")
}

fn no_finalizers(kind: &Kind, object: &Value) -> bool {
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    none(&object["metadata"]["finalizers"])
        && (kind.plural != "namespaces" || none(&object["spec"]["finalizers"]))
}

fn grace_is_over(object: &Value) -> bool {
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// Names and identities that a write may not change.
fn check_identity(kind: &Kind, old: &Value, new: &Value, patch: bool) -> Outcome<()> {
    let name = meta(old, "name");
    let uid = meta(new, "uid");
    if !uid.is_empty() && uid != meta(old, "uid") {
        if patch {
            // Only a replacement has its uid checked by the storage; a patch fails in validation,
            // which finds it twice.
            let error = FieldError::invalid("metadata.uid", &uid.into(), "field is immutable");
            let mut status = Status::invalid(kind, name, std::slice::from_ref(&error));
            let cause = status.details["causes"][0].clone();
            if let Some(causes) = status.details["causes"].as_array_mut() {
                causes.push(cause);
            }
            return Err(status);
        }
        return Err(Status::conflict(
            kind,
            name,
            &format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{}/{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                storage_path(kind, meta(old, "namespace")),
                meta(old, "uid")
            ),
        ));
    }
    Ok(())
}

/// Where etcd keeps objects, as errors show it.
fn storage_path(kind: &Kind, namespace: &str) -> String {
    if namespace.is_empty() { kind.plural.clone() } else { format!("{}/{namespace}", kind.plural) }
}

fn keep_system_metadata(old: &Value, new: &mut Value) {
    let metadata = metadata(new);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match old["metadata"].get(field) {
            Some(value) => {
                metadata.insert(field.into(), value.clone());
            }
            None => {
                metadata.remove(field);
            }
        }
    }
    metadata.remove("selfLink");
}

/// Leaves of `new` only what the path may change: status through `/status`, the rest otherwise.
fn confine(kind: &Kind, old: &Value, new: &mut Value, subresource: &str) {
    if !kind.status {
        return;
    }
    if subresource == "status" {
        let status = new["status"].take();
        let mut kept = old.clone();
        let given = new["metadata"].take();
        kept["status"] = status;
        if kept["status"].is_null()
            && let Some(fields) = kept.as_object_mut()
        {
            fields.remove("status");
        }
        // Labels and annotations may come with a status of the built-in kinds.
        if !kind.custom {
            for field in ["labels", "annotations", "finalizers"] {
                match given.get(field) {
                    Some(value) => kept["metadata"][field] = value.clone(),
                    None => {
                        metadata(&mut kept).remove(field);
                    }
                }
            }
        }
        metadata(&mut kept).remove("managedFields");
        *new = kept;
    } else if let Some(fields) = new.as_object_mut() {
        match old.get("status") {
            Some(status) => {
                fields.insert("status".into(), status.clone());
            }
            None => {
                fields.remove("status");
            }
        }
    }
}

/// Whether what generations count has changed.
fn content_differs(kind: &Kind, old: &Value, new: &Value) -> bool {
    let keys = |object: &Value| -> Vec<String> {
        object.as_object().into_iter().flat_map(Map::keys).cloned().collect()
    };
    let mut all = keys(old);
    all.extend(keys(new));
    all.iter().any(|key| {
        let counted = match key.as_str() {
            "apiVersion" | "kind" | "metadata" => false,
            "status" => kind.custom && !kind.status,
            _ => true,
        };
        counted && old.get(key) != new.get(key)
    })
}
