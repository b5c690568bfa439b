//! `ControllerRevisions` of `StatefulSets` and `DaemonSets`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        delete::Deletion,
        error::Outcome,
        objects::meta,
        storage::{Key, Tx},
    },
    rolling::{manager, owner_reference, short_hash},
};

const STEM: &str = "apps/controllerrevisions/";

/// The revisions of an owner, oldest first.
pub(super) fn of(tx: &Tx<'_>, uid: &str) -> Vec<(Key, Arc<Value>)> {
    let mut list = tx.owned(uid, STEM);
    list.sort_by_key(|(_, r)| r["revision"].as_i64().unwrap_or(0));
    list
}

/// The revision of the owner's present template, made or moved to the front if need be; returns its
/// name and its hash.
pub(super) fn current(tx: &mut Tx<'_>, owner: &Value) -> Outcome<(String, String)> {
    let mut template = owner["spec"]["template"].clone();
    template["$patch"] = "replace".into();
    let data = json!({"spec": {"template": template}});
    let list = of(tx, meta(owner, "uid"));
    let newest = list.iter().map(|(_, r)| r["revision"].as_i64().unwrap_or(0)).max().unwrap_or(0);
    let Some(kind) = tx.state.kinds.find("apps", "v1", "controllerrevisions").cloned() else {
        return Err(super::super::error::Status::no_such_path());
    };
    let label = |r: &Value| {
        r["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap_or_default().to_owned()
    };
    if let Some((key, found)) = list.iter().find(|(_, r)| r["data"] == data) {
        if found["revision"].as_i64() != Some(newest) {
            tx.modify(&kind, found, &manager(), |r| r["revision"] = (newest + 1).into())?;
        }
        return Ok((key.name.clone(), label(found)));
    }
    let hash = short_hash(&data);
    let name = format!("{}-{hash}", meta(owner, "name"));
    // A StatefulSet labels pods with the revision's name, a DaemonSet with the hash alone.
    let value = if owner["kind"] == "StatefulSet" { name.clone() } else { hash };
    let mut labels = owner["spec"]["template"]["metadata"]["labels"].clone();
    labels["controller-revision-hash"] = value.clone().into();
    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner_reference(owner)]},
        "data": data, "revision": newest + 1});
    tx.create(&kind, meta(owner, "namespace"), revision, &manager())?;
    Ok((name, value))
}

/// Deletes revisions beyond the history limit that nothing uses.
pub(super) fn clean_up(tx: &mut Tx<'_>, owner: &Value, used: &[String]) -> Outcome<()> {
    let limit = owner["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
    let unused: Vec<Key> = of(tx, meta(owner, "uid"))
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| !used.contains(&key.name))
        .collect();
    let surplus = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for key in &unused[..surplus] {
        tx.delete(key, &Deletion::default())?;
    }
    Ok(())
}
