//! Argo Rollouts: replaced like a Deployment, without the steps of canary or blue-green.
//!
//! <https://argo-rollouts.readthedocs.io/en/stable/features/specification/>

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    super::{
        error::Outcome,
        objects::{Writer, meta},
        storage::{Key, Tx},
    },
    rolling::{meta_annotation, number, owner_reference, set_condition, share, short_hash},
};

const HASH: &str = "rollouts-pod-template-hash";
const REVISION: &str = "rollout.argoproj.io/revision";

fn controller() -> Writer<'static> {
    Writer::system("rollouts-controller")
}

/// Moves a Rollout on by one step and writes its status.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let (Some(rollout), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    if rollout["metadata"]["deletionTimestamp"].is_string() {
        return Ok(());
    }
    let Some((template, selector, workload)) = source(tx, key, &rollout) else { return Ok(()) };
    // Hashed otherwise than a Deployment's template: both may have ReplicaSets of one name.
    let hash = short_hash(&json!({"rollout": template}));
    let name = format!("{}-{hash}", meta(&rollout, "name"));
    let wanted = rollout["spec"]["replicas"].as_i64().unwrap_or(1);
    let paused = rollout["spec"]["paused"] == true;
    let Some(set_kind) = tx.state.kinds.find("apps", "v1", "replicasets").cloned() else {
        return Ok(());
    };
    let new_key = Key::new(&set_kind, &key.namespace, &name);
    let sets = tx.owned(meta(&rollout, "uid"), "apps/replicasets/");
    if tx.get_key(&new_key).is_none() && !paused {
        let first = sets.is_empty();
        let mut template = template.clone();
        template["metadata"]["labels"][HASH] = hash.clone().into();
        let mut selector = selector;
        selector["matchLabels"][HASH] = hash.clone().into();
        let next = sets.iter().map(|(_, s)| revision(s)).max().unwrap_or(0) + 1;
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "labels": template["metadata"]["labels"],
                "annotations": {REVISION: next.to_string()},
                "ownerReferences": [owner_reference(&rollout)]},
            "spec": {"replicas": if first { wanted } else { 0 }, "selector": selector, "template": template}});
        tx.create(&set_kind, &key.namespace, set, &controller())?;
    }
    if !paused {
        roll(tx, &rollout, &new_key, wanted)?;
    }
    let sets = tx.owned(meta(&rollout, "uid"), "apps/replicasets/");
    let mut status = status(tx.now, &rollout, &sets, &new_key, &hash, wanted, workload);
    if kind.status {
        return tx.modify_status(&kind, rollout, &controller(), |shown| *shown = status).map(drop);
    }
    if status == rollout["status"] {
        return Ok(());
    }
    // Without the subresource the status counts as content: this very write makes the next
    // generation, and naming the present one would never come to rest.
    let next = number(&rollout["metadata"]["generation"]) + 1;
    status["observedGeneration"] = next.to_string().into();
    tx.modify(&kind, &rollout, &controller(), |rollout| rollout["status"] = status).map(drop)
}

fn revision(set: &Value) -> i64 {
    meta_annotation(set, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Template, selector and generation of the referenced workload.
fn source(tx: &Tx<'_>, key: &Key, rollout: &Value) -> Option<(Value, Value, Option<Value>)> {
    let spec = &rollout["spec"];
    if spec["template"].is_object() {
        return Some((spec["template"].clone(), spec["selector"].clone(), None));
    }
    let name = spec["workloadRef"]["name"].as_str()?;
    let deployment = tx.get_key(&Key::of("apps/deployments/", &key.namespace, name))?;
    Some((
        deployment["spec"]["template"].clone(),
        deployment["spec"]["selector"].clone(),
        Some(deployment["metadata"]["generation"].clone()),
    ))
}

fn roll(tx: &mut Tx<'_>, rollout: &Value, new: &Key, wanted: i64) -> Outcome<()> {
    let sets = tx.owned(meta(rollout, "uid"), "apps/replicasets/");
    let replicas = |s: &Value| number(&s["spec"]["replicas"]);
    let total: i64 = sets.iter().map(|(_, s)| replicas(s)).sum();
    let available: i64 = sets.iter().map(|(_, s)| number(&s["status"]["availableReplicas"])).sum();
    let canary = &rollout["spec"]["strategy"]["canary"];
    let surge = canary
        .get("maxSurge")
        .map_or_else(|| share(&json!("25%"), wanted, true), |v| share(v, wanted, true));
    let mut gone = canary
        .get("maxUnavailable")
        .map_or_else(|| share(&json!("25%"), wanted, false), |v| share(v, wanted, false));
    if surge == 0 && gone == 0 {
        gone = 1;
    }
    let mut spare = (available - (wanted - gone)).max(0);
    for (key, set) in &sets {
        let now = replicas(set);
        let next = if key == new {
            if now > wanted {
                wanted
            } else {
                now + (wanted + surge - total).clamp(0, wanted - now)
            }
        } else {
            let broken = (now - number(&set["status"]["availableReplicas"])).max(0);
            let down = (spare.min(now - broken) + broken).min(now);
            spare -= down - broken;
            now - down
        };
        if next != now
            && let Some(kind) = tx.kind_of(key)
        {
            tx.modify(&kind, set, &controller(), |s| s["spec"]["replicas"] = next.into())?;
        }
    }
    Ok(())
}

fn status(
    now: Timestamp,
    rollout: &Value,
    sets: &[(Key, Arc<Value>)],
    new: &Key,
    hash: &str,
    wanted: i64,
    workload: Option<Value>,
) -> Value {
    let sum = |field: &str| -> i64 { sets.iter().map(|(_, s)| number(&s["status"][field])).sum() };
    let updated = sets
        .iter()
        .find(|(key, _)| key == new)
        .map_or(0, |(_, s)| number(&s["status"]["replicas"]));
    let (total, available) = (sum("replicas"), sum("availableReplicas"));
    let healthy = updated == wanted && total == wanted && available == wanted;
    let mut status = rollout["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    // The Rollout controller keeps the generation as text.
    status["observedGeneration"] = number(&rollout["metadata"]["generation"]).to_string().into();
    if let Some(generation) = workload {
        status["workloadObservedGeneration"] = number(&generation).to_string().into();
    }
    status["replicas"] = wanted.max(total).into();
    status["HPAReplicas"] = total.into();
    status["updatedReplicas"] = updated.into();
    status["readyReplicas"] = sum("readyReplicas").into();
    status["availableReplicas"] = available.into();
    status["currentPodHash"] = hash.into();
    status["selector"] =
        super::super::selectors::LabelSelector::from_object(&rollout["spec"]["selector"])
            .show()
            .into();
    let paused = rollout["spec"]["paused"] == true;
    let (phase, message) = if paused {
        ("Paused", "manually paused")
    } else if healthy {
        ("Healthy", "")
    } else {
        ("Progressing", "more replicas need to be updated")
    };
    status["phase"] = phase.into();
    if message.is_empty() {
        if let Some(fields) = status.as_object_mut() {
            fields.remove("message");
        }
    } else {
        status["message"] = message.into();
    }
    if healthy || status["stableRS"].is_null() {
        status["stableRS"] = hash.into();
    }
    let text = |b: bool| if b { "True" } else { "False" };
    set_condition(
        &mut status,
        "Available",
        text(available >= wanted),
        "AvailableReason",
        if available >= wanted {
            "Rollout has minimum availability"
        } else {
            "Rollout does not have minimum availability"
        },
        now,
    );
    let (reason, message) = if healthy {
        (
            "NewReplicaSetAvailable",
            format!("ReplicaSet \"{}\" has successfully progressed.", new.name),
        )
    } else {
        ("ReplicaSetUpdated", format!("ReplicaSet \"{}\" is progressing.", new.name))
    };
    set_condition(&mut status, "Progressing", "True", reason, &message, now);
    set_condition(
        &mut status,
        "Healthy",
        text(healthy),
        "RolloutHealthy",
        if healthy { "Rollout is healthy" } else { "Rollout is not healthy" },
        now,
    );
    status
}
