//! Garbage collection by owner references, finalizers of deletion propagation, definitions.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    super::{
        delete::{CLEAN_UP, Deletion},
        error::Outcome,
        objects::meta,
        storage::{Key, Tx},
    },
    rolling::{set_condition, status_manager},
};

/// Deletes the object if its owners are gone, and finishes a deletion that waits for dependents.
/// Returns whether nobody needs to look at the object any more.
pub(super) fn collect(tx: &mut Tx<'_>, key: &Key) -> Outcome<bool> {
    let Some(object) = tx.get_key(key) else { return Ok(true) };
    if is_orphaned(tx, key, &object) {
        tx.delete(key, &Deletion::default())?;
        return Ok(tx.get_key(key).is_none());
    }
    if object["metadata"]["deletionTimestamp"].is_string() {
        return finalize(tx, key, &object);
    }
    Ok(false)
}

/// Whether the object had owners and none of them exists.
fn is_orphaned(tx: &Tx<'_>, key: &Key, object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    !owners.is_empty()
        && !object["metadata"]["deletionTimestamp"].is_string()
        && owners.iter().all(|owner| {
            let version = owner["apiVersion"].as_str().unwrap_or_default();
            let Some(kind) = tx.state.kinds.of(version, owner["kind"].as_str().unwrap_or_default())
            else {
                // A kind that is not served says nothing about its objects.
                return false;
            };
            let namespace = if kind.namespaced { key.namespace.as_str() } else { "" };
            let found = tx.get(kind, namespace, owner["name"].as_str().unwrap_or_default());
            found.is_none_or(|found| found["metadata"]["uid"] != owner["uid"])
        })
}

fn finalize(tx: &mut Tx<'_>, key: &Key, object: &Arc<Value>) -> Outcome<bool> {
    let has = |name: &str| {
        object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|f| f == name)
    };
    let uid = meta(object, "uid").to_owned();
    if has("orphan") {
        for dependent in tx.owned_by(&uid) {
            let Some(mut child) = tx.get_key(&dependent).map(|c| (*c).clone()) else { continue };
            if let Some(owners) = child["metadata"]["ownerReferences"].as_array_mut() {
                owners.retain(|o| o["uid"] != uid.as_str());
                if owners.is_empty()
                    && let Some(metadata) = child["metadata"].as_object_mut()
                {
                    metadata.remove("ownerReferences");
                }
            }
            tx.store(&dependent, child)?;
        }
        return drop_finalizer(tx, key, object, "orphan");
    }
    if has("foregroundDeletion") {
        let blocking = tx.owned_by(&uid);
        if blocking.is_empty() {
            return drop_finalizer(tx, key, object, "foregroundDeletion");
        }
        let foreground = Deletion { propagation: "Foreground".to_owned(), ..Deletion::default() };
        for dependent in blocking {
            let dying = tx
                .get_key(&dependent)
                .is_none_or(|c| c["metadata"]["deletionTimestamp"].is_string());
            if !dying {
                tx.delete(&dependent, &foreground)?;
            }
        }
        // The last dependent rings when it goes; look again then.
        if tx.owned_by(&uid).is_empty() {
            tx.enqueue(key.clone());
        }
    }
    Ok(false)
}

fn drop_finalizer(tx: &mut Tx<'_>, key: &Key, object: &Arc<Value>, name: &str) -> Outcome<bool> {
    let mut new = (**object).clone();
    let mut left = 0;
    if let Some(list) = new["metadata"]["finalizers"].as_array_mut() {
        list.retain(|f| f != name);
        left = list.len();
    }
    if left == 0 {
        tx.erase(key)?;
        return Ok(true);
    }
    tx.store(key, new)?;
    Ok(false)
}

/// A definition is established as soon as it is stored.
pub(super) fn definition(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let (Some(object), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let now = tx.now;
    if object["metadata"]["deletionTimestamp"].is_string() {
        return clean_up(tx, key, &object);
    }
    let stored: Vec<Value> = object["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone())
        .collect();
    let names = object["spec"]["names"].clone();
    tx.modify_status(&kind, object, &status_manager(), |status| {
        status["acceptedNames"] = names;
        status["storedVersions"] = stored.into();
        set_condition(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
        set_condition(
            status,
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
            now,
        );
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            condition.as_object_mut().map(|c| c.remove("lastUpdateTime"));
        }
    })
    .map(drop)
}

/// Deletes the objects of a definition that is being deleted, and lets it go when the last one is
/// gone: one with finalizers of its own holds it.
fn clean_up(tx: &mut Tx<'_>, key: &Key, object: &Arc<Value>) -> Outcome<()> {
    let has = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    if !has.into_iter().any(|name| name == CLEAN_UP) {
        return Ok(());
    }
    for instance in tx.instances(object) {
        tx.delete(&instance, &Deletion::default())?;
    }
    if tx.instances(object).is_empty() {
        return drop_finalizer(tx, key, object, CLEAN_UP).map(drop);
    }
    let again = tx.now.checked_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX);
    tx.enqueue_at(again, key.clone());
    Ok(())
}

impl Tx<'_> {
    /// Keys of the objects of a definition.
    fn instances(&self, definition: &Value) -> Vec<Key> {
        let spec = &definition["spec"];
        let (group, plural) = (spec["group"].as_str(), spec["names"]["plural"].as_str());
        let (Some(group), Some(plural)) = (group, plural) else { return Vec::new() };
        self.list(&format!("{group}/{plural}/"), None).into_iter().map(|(key, _)| key).collect()
    }

    /// Whether the object is a definition that has objects.
    pub(in super::super) fn holds_instances(&self, key: &Key, object: &Value) -> bool {
        key.stem == "apiextensions.k8s.io/customresourcedefinitions/"
            && !self.instances(object).is_empty()
    }
}
