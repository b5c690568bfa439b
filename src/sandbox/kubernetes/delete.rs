//! Deletion: preconditions, grace, finalizers, propagation.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    error::{Outcome, Status},
    kinds::Kind,
    objects::{meta, stamp},
    storage::{Key, Tx},
};

/// Holds a definition until its objects are gone, as the API server's finalizer does.
pub(super) const CLEAN_UP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// How to delete.
#[derive(Debug, Clone, Default)]
pub(super) struct Deletion {
    /// `Background` (also empty), `Foreground` or `Orphan`.
    pub propagation: String,
    /// Seconds that a pod gets.
    pub grace: Option<i64>,
    /// The uid that the object must have.
    pub uid: Option<String>,
    /// The version that the object must have.
    pub resource_version: Option<String>,
    /// Nothing is deleted.
    pub dry_run: bool,
}

impl Tx<'_> {
    /// Deletes the object. Returns it while it still exists because it is being terminated, `None`
    /// when it is gone.
    pub(super) fn delete(&mut self, key: &Key, deletion: &Deletion) -> Outcome<Option<Arc<Value>>> {
        let Some(kind) = self.kind_of(key) else { return Err(Status::no_such_path()) };
        let Some(old) = self.get_key(key) else {
            return Err(Status::not_found(&kind, &key.name));
        };
        self.preconditions(key, &old, deletion)?;
        let grace = grace(key, &old, deletion);
        let mut finalizers: Vec<Value> =
            old["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let dying = old["metadata"]["deletionTimestamp"].is_string();
        if !dying {
            let wanted = match deletion.propagation.as_str() {
                "Foreground" => Some("foregroundDeletion"),
                "Orphan" => Some("orphan"),
                _ => None,
            };
            let uid = meta(&old, "uid");
            if let Some(wanted) = wanted
                && (wanted == "foregroundDeletion" || !self.owned_by(uid).is_empty())
            {
                finalizers.push(wanted.into());
            }
            if self.holds_instances(key, &old) {
                finalizers.push(CLEAN_UP.into());
            }
        }
        let namespace = kind.plural == "namespaces" && kind.group.is_empty();
        let held = !finalizers.is_empty()
            || (namespace && old["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()));
        if !held && grace == 0 {
            // A pod is shown as it ends, other objects are only said to be gone.
            let shown = (key.stem == "core/pods/").then(|| {
                let mut last = (*old).clone();
                last["metadata"]["deletionTimestamp"] = stamp(self.now).into();
                last["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                Arc::new(last)
            });
            if !deletion.dry_run {
                self.erase(key)?;
            }
            return Ok(shown);
        }
        let shorter =
            old["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|g| grace < g);
        if dying && !shorter {
            return Ok(Some(old));
        }
        let mut new = (*old).clone();
        let at = self.now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
        new["metadata"]["deletionTimestamp"] = stamp(at).into();
        new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if !finalizers.is_empty() {
            new["metadata"]["finalizers"] = finalizers.into();
        }
        if let Some(generation) = old["metadata"]["generation"].as_i64()
            && !dying
        {
            new["metadata"]["generation"] = (generation + 1).into();
        }
        if namespace {
            new["status"]["phase"] = "Terminating".into();
        }
        if deletion.dry_run {
            return Ok(Some(Arc::new(new)));
        }
        self.store(key, new).map(Some)
    }

    fn preconditions(&self, key: &Key, old: &Value, deletion: &Deletion) -> Outcome<()> {
        let Some(kind) = self.kind_of(key) else { return Ok(()) };
        // These refusals name the kind where others name the resource.
        let named = Kind::reference(&kind.group, &kind.kind);
        let (uid, version) = (meta(old, "uid"), meta(old, "resourceVersion"));
        if let Some(wanted) = &deletion.uid
            && wanted != uid
        {
            return Err(Status::conflict(
                &named,
                &key.name,
                &format!(
                    "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
                ),
            ));
        }
        if let Some(wanted) = &deletion.resource_version
            && wanted != version
        {
            return Err(Status::conflict(
                &named,
                &key.name,
                &format!(
                    "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
                ),
            ));
        }
        Ok(())
    }
}

/// Only pods that run on a node are given time.
fn grace(key: &Key, old: &Value, deletion: &Deletion) -> i64 {
    if key.stem != "core/pods/" {
        return 0;
    }
    let finished = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if old["spec"]["nodeName"].as_str().is_none_or(str::is_empty) || finished {
        return 0;
    }
    deletion.grace.or(old["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}
