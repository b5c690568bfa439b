//! Deployments: one ReplicaSet for each pod template, replaced step by step.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    super::{
        delete::Deletion,
        error::Outcome,
        objects::meta,
        storage::{Key, Tx},
    },
    events,
    rolling::{
        condition, manager, meta_annotation, number, owner_reference, set_condition, share,
        short_hash, status_manager,
    },
};

const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";

type Sets = Vec<(Key, Arc<Value>)>;

/// Moves a Deployment on by one step and writes its status.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let Some(mut deployment) = tx.get_key(key) else { return Ok(()) };
    let uid = meta(&deployment, "uid").to_owned();
    let mut sets = tx.owned(&uid, "apps/replicasets/");
    sets.sort_by_key(|(_, s)| (revision(s), meta(s, "creationTimestamp").to_owned()));
    if !deployment["metadata"]["deletionTimestamp"].is_string() {
        let mut new = find_new(&deployment, &sets);
        let paused = deployment["spec"]["paused"] == true;
        if new.is_none() && !paused {
            new = Some(create_new(tx, &deployment, &sets)?);
            sets = tx.owned(&uid, "apps/replicasets/");
        }
        if let Some(at) = &new
            && !paused
        {
            deployment = number_revisions(tx, key, &deployment, at, &sets)?;
            sets = tx.owned(&uid, "apps/replicasets/");
        }
        roll(tx, &deployment, new.as_ref(), &sets)?;
        sets = tx.owned(&uid, "apps/replicasets/");
        clean_up(tx, &deployment, new.as_ref(), &sets)?;
    }
    let sets = tx.owned(&uid, "apps/replicasets/");
    write_status(tx, key, &sets)
}

fn revision(set: &Value) -> i64 {
    meta_annotation(set, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The template without the label that the controller adds.
fn bare_template(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    template
}

/// The ReplicaSet of the present template: the oldest that has it.
fn find_new(deployment: &Value, sets: &Sets) -> Option<Key> {
    let template = &deployment["spec"]["template"];
    let mut equal: Vec<_> =
        sets.iter().filter(|(_, set)| bare_template(set) == *template).collect();
    equal.sort_by_key(|(_, set)| meta(set, "creationTimestamp").to_owned());
    equal.first().map(|(key, _)| key.clone())
}

fn create_new(tx: &mut Tx<'_>, deployment: &Value, sets: &Sets) -> Outcome<Key> {
    let Some(kind) = tx.state.kinds.find("apps", "v1", "replicasets").cloned() else {
        return Err(super::super::error::Status::no_such_path());
    };
    let hash = short_hash(&deployment["spec"]["template"]);
    let name = format!("{}-{hash}", meta(deployment, "name"));
    let namespace = meta(deployment, "namespace").to_owned();
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH] = hash.clone().into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][HASH] = hash.into();
    let (wanted, surge, _) = bounds(deployment);
    let total: i64 = sets.iter().map(|(_, s)| number(&s["spec"]["replicas"])).sum();
    let rolling = deployment["spec"]["strategy"]["type"] != "Recreate";
    let replicas = if rolling {
        (wanted + surge - total).clamp(0, wanted)
    } else if total == 0 {
        wanted
    } else {
        0
    };
    let mut annotations = copied_annotations(deployment);
    let next = sets.iter().map(|(_, s)| revision(s)).max().unwrap_or(0) + 1;
    annotations.insert(REVISION.into(), next.to_string().into());
    annotations.insert(DESIRED.into(), wanted.to_string().into());
    annotations.insert(MAXIMUM.into(), (wanted + surge).to_string().into());
    let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
    if number(&deployment["spec"]["minReadySeconds"]) != 0 {
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"].clone();
    }
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "labels": template["metadata"]["labels"],
            "annotations": annotations, "ownerReferences": [owner_reference(deployment)]},
        "spec": spec});
    let key = Key::new(&kind, &namespace, &name);
    tx.create(&kind, &namespace, set, &manager())?;
    if replicas > 0 {
        let text = format!("Scaled up replica set {name} from 0 to {replicas}");
        events::record(tx, deployment, false, "deployment-controller", "ScalingReplicaSet", &text);
    }
    Ok(key)
}

/// The Deployment's annotations, without those that belong to it alone.
fn copied_annotations(deployment: &Value) -> Map<String, Value> {
    deployment["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "kubectl.kubernetes.io/last-applied-configuration"
                    | REVISION
                    | HISTORY
                    | DESIRED
                    | MAXIMUM
                    | "deprecated.deployment.rollback.to"
            )
        })
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Gives the present ReplicaSet the highest revision, and the Deployment the same.
fn number_revisions(
    tx: &mut Tx<'_>,
    key: &Key,
    deployment: &Arc<Value>,
    new: &Key,
    sets: &Sets,
) -> Outcome<Arc<Value>> {
    let others = sets.iter().filter(|(k, _)| k != new).map(|(_, s)| revision(s)).max().unwrap_or(0);
    let Some(set) = tx.get_key(new) else { return Ok(Arc::clone(deployment)) };
    let own = revision(&set);
    let wanted = if own > others { own } else { others + 1 };
    let copied = copied_annotations(deployment);
    if let Some(kind) = tx.kind_of(new) {
        tx.modify(&kind, &set, &manager(), |set| {
            let annotations = &mut set["metadata"]["annotations"];
            for (name, value) in copied {
                annotations[name.as_str()] = value;
            }
            if own != wanted && own > 0 {
                let old = annotations[HISTORY].as_str().unwrap_or_default().to_owned();
                let history = if old.is_empty() { own.to_string() } else { format!("{old},{own}") };
                annotations[HISTORY] = history.into();
            }
            annotations[REVISION] = wanted.to_string().into();
        })?;
    }
    let Some(kind) = tx.kind_of(key) else { return Ok(Arc::clone(deployment)) };
    tx.modify(&kind, deployment, &manager(), |deployment| {
        deployment["metadata"]["annotations"][REVISION] = wanted.to_string().into();
    })
}

/// Wanted replicas, surge and how many may be unavailable.
fn bounds(deployment: &Value) -> (i64, i64, i64) {
    let wanted = number(&deployment["spec"]["replicas"]);
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        return (wanted, 0, wanted);
    }
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let surge = share(&rolling["maxSurge"], wanted, true);
    let mut unavailable = share(&rolling["maxUnavailable"], wanted, false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    (wanted, surge, unavailable.min(wanted))
}

fn scale(tx: &mut Tx<'_>, deployment: &Value, key: &Key, to: i64) -> Outcome<()> {
    let (Some(set), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let from = number(&set["spec"]["replicas"]);
    let (wanted, surge, _) = bounds(deployment);
    tx.modify(&kind, &set, &manager(), |set| {
        set["spec"]["replicas"] = to.into();
        set["metadata"]["annotations"][DESIRED] = wanted.to_string().into();
        set["metadata"]["annotations"][MAXIMUM] = (wanted + surge).to_string().into();
    })?;
    if from != to {
        let word = if to > from { "up" } else { "down" };
        let text = format!("Scaled {word} replica set {} from {from} to {to}", key.name);
        events::record(tx, deployment, false, "deployment-controller", "ScalingReplicaSet", &text);
    }
    Ok(())
}

/// One step of scaling or rolling.
fn roll(tx: &mut Tx<'_>, deployment: &Value, new: Option<&Key>, sets: &Sets) -> Outcome<()> {
    let (wanted, surge, unavailable) = bounds(deployment);
    let replicas = |set: &Value| number(&set["spec"]["replicas"]);
    let active: Vec<_> = sets.iter().filter(|(_, s)| replicas(s) > 0).collect();
    if deployment["spec"]["paused"] == true {
        // A paused Deployment is scaled but not rolled.
        if let [(key, _)] = active.as_slice() {
            return scale(tx, deployment, key, wanted);
        }
        return match new {
            Some(new) if active.is_empty() => scale(tx, deployment, new, wanted),
            _ => Ok(()),
        };
    }
    let Some(new) = new else { return Ok(()) };
    let old: Vec<_> = sets.iter().filter(|(key, _)| key != new).collect();
    let old_replicas: i64 = old.iter().map(|(_, s)| replicas(s)).sum();
    let Some(set) = tx.get_key(new) else { return Ok(()) };
    let now = replicas(&set);
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        if old_replicas > 0 {
            for (key, _) in old {
                scale(tx, deployment, key, 0)?;
            }
            return Ok(());
        }
        let gone = old.iter().all(|(_, s)| tx.owned(meta(s, "uid"), "core/pods/").is_empty());
        return if gone { scale(tx, deployment, new, wanted) } else { Ok(()) };
    }
    if now > wanted {
        return scale(tx, deployment, new, wanted);
    }
    let total = now + old_replicas;
    if now < wanted && total < wanted + surge {
        let up = (wanted + surge - total).min(wanted - now);
        scale(tx, deployment, new, now + up)?;
    } else {
        scale(tx, deployment, new, now)?;
    }
    if old_replicas == 0 {
        return Ok(());
    }
    // How many old pods may go without falling below what must be available.
    let new_set = tx.get_key(new).unwrap_or(set);
    let new_missing = (replicas(&new_set) - number(&new_set["status"]["availableReplicas"])).max(0);
    let total = replicas(&new_set) + old_replicas;
    let least = wanted - unavailable;
    let mut room = total - least - new_missing;
    if room <= 0 {
        return Ok(());
    }
    // Pods that are not available go first: they do not count anyway.
    let mut left: Vec<(Key, i64)> = Vec::new();
    for (key, set) in &old {
        let broken = (replicas(set) - number(&set["status"]["availableReplicas"])).max(0).min(room);
        room -= broken;
        left.push((key.clone(), replicas(set) - broken));
    }
    let available: i64 = sets.iter().map(|(_, s)| number(&s["status"]["availableReplicas"])).sum();
    let mut spare = (available - least).min(room).max(0);
    for ((key, replicas), (_, set)) in left.iter_mut().zip(&old) {
        let down = spare.min(*replicas);
        spare -= down;
        *replicas -= down;
        if *replicas != number(&set["spec"]["replicas"]) {
            scale(tx, deployment, key, *replicas)?;
        }
    }
    Ok(())
}

/// Deletes `ReplicaSets` beyond the history limit.
fn clean_up(tx: &mut Tx<'_>, deployment: &Value, new: Option<&Key>, sets: &Sets) -> Outcome<()> {
    let Some(limit) = deployment["spec"]["revisionHistoryLimit"].as_i64() else { return Ok(()) };
    if !is_complete(tx, deployment, new) {
        return Ok(());
    }
    let mut old: Vec<_> = sets
        .iter()
        .filter(|(key, set)| {
            Some(key) != new
                && number(&set["spec"]["replicas"]) == 0
                && number(&set["status"]["replicas"]) == 0
        })
        .collect();
    old.sort_by_key(|(_, set)| revision(set));
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for (key, _) in &old[..surplus] {
        tx.delete(key, &Deletion::default())?;
    }
    Ok(())
}

fn is_complete(tx: &Tx<'_>, deployment: &Value, new: Option<&Key>) -> bool {
    let wanted = number(&deployment["spec"]["replicas"]);
    new.and_then(|key| tx.get_key(key))
        .is_some_and(|set| number(&set["status"]["availableReplicas"]) >= wanted)
}

fn write_status(tx: &mut Tx<'_>, key: &Key, sets: &Sets) -> Outcome<()> {
    let (Some(deployment), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let new = find_new(&deployment, sets);
    let sum = |field: &str| -> i64 { sets.iter().map(|(_, s)| number(&s["status"][field])).sum() };
    let new_set = new.as_ref().and_then(|k| sets.iter().find(|(key, _)| key == k));
    let updated = new_set.map_or(0, |(_, s)| number(&s["status"]["replicas"]));
    let replicas = sum("replicas");
    let ready = sum("readyReplicas");
    let available = sum("availableReplicas");
    let (wanted, _, unavailable) = bounds(&deployment);
    let now = tx.now;
    let mut status = deployment["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let before = (
        number(&status["updatedReplicas"]),
        number(&status["readyReplicas"]),
        number(&status["availableReplicas"]),
        number(&status["replicas"]) - number(&status["updatedReplicas"]),
    );
    status["observedGeneration"] = deployment["metadata"]["generation"].clone();
    status["replicas"] = replicas.into();
    status["updatedReplicas"] = updated.into();
    status["readyReplicas"] = ready.into();
    status["availableReplicas"] = available.into();
    let total: i64 = sets.iter().map(|(_, s)| number(&s["spec"]["replicas"])).sum();
    status["unavailableReplicas"] = (total - available).max(0).into();
    if available >= wanted - unavailable {
        set_condition(
            &mut status,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            now,
        );
    } else {
        set_condition(
            &mut status,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            now,
        );
    }
    let progressed = updated > before.0
        || ready > before.1
        || available > before.2
        || replicas - updated < before.3;
    let complete = updated == wanted && replicas == wanted && available == wanted;
    progress(
        tx,
        key,
        &deployment,
        &mut status,
        new_set.map(|(k, _)| k.name.as_str()),
        progressed,
        complete,
    );
    replica_failure(&mut status, sets, now);
    tx.modify_status(&kind, deployment, &status_manager(), |shown| *shown = status).map(drop)
}

/// The Progressing condition with its deadline.
fn progress(
    tx: &mut Tx<'_>,
    key: &Key,
    deployment: &Value,
    status: &mut Value,
    new: Option<&str>,
    progressed: bool,
    complete: bool,
) {
    let now = tx.now;
    let Some(deadline) = deployment["spec"]["progressDeadlineSeconds"].as_i64() else { return };
    let old = condition(deployment, "Progressing").cloned().unwrap_or_default();
    if deployment["spec"]["paused"] == true {
        if old["reason"] != "DeploymentPaused" {
            set_condition(
                status,
                "Progressing",
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused",
                now,
            );
        }
        return;
    }
    if old["reason"] == "DeploymentPaused" {
        set_condition(
            status,
            "Progressing",
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed",
            now,
        );
    }
    let Some(name) = new else { return };
    if complete {
        let text = format!("ReplicaSet \"{name}\" has successfully progressed.");
        let same = old["reason"] == "NewReplicaSetAvailable" && old["message"] == text.as_str();
        if !same {
            force_condition(status, "NewReplicaSetAvailable", &text, now);
        }
        return;
    }
    if old["reason"] == "NewReplicaSetAvailable" && !progressed {
        let again = old["message"].as_str().is_some_and(|m| m.contains(&format!("\"{name}\"")));
        // Losing availability after a finished rollout is not a rollout.
        if again {
            return;
        }
    }
    if progressed
        || old.is_null()
        || old["reason"] == "NewReplicaSetAvailable"
        || old["reason"] == "DeploymentPaused"
    {
        let text = format!("ReplicaSet \"{name}\" is progressing.");
        force_condition(status, "ReplicaSetUpdated", &text, now);
        if let Ok(at) = now.checked_add(SignedDuration::from_secs(deadline)) {
            tx.enqueue_at(at, key.clone());
        }
        return;
    }
    let since = old["lastUpdateTime"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    if let Some(since) = since
        && let Ok(ends) = since.checked_add(SignedDuration::from_secs(deadline))
        && old["reason"] != "ProgressDeadlineExceeded"
    {
        if ends <= now {
            let text = format!("ReplicaSet \"{name}\" has timed out progressing.");
            set_condition(status, "Progressing", "False", "ProgressDeadlineExceeded", &text, now);
        } else {
            tx.enqueue_at(ends, key.clone());
        }
    }
}

/// Sets Progressing to True with fresh times even where status and reason stay the same.
fn force_condition(status: &mut Value, reason: &str, message: &str, now: Timestamp) {
    set_condition(status, "Progressing", "True", reason, message, now);
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if condition["type"] == "Progressing" {
            condition["lastUpdateTime"] = super::super::objects::stamp(now).into();
            condition["message"] = message.into();
        }
    }
}

/// Pods that could not be made show on the Deployment too.
fn replica_failure(status: &mut Value, sets: &Sets, now: Timestamp) {
    let failure = sets.iter().find_map(|(_, s)| condition(s, "ReplicaFailure").cloned());
    match failure {
        Some(failure) => set_condition(
            status,
            "ReplicaFailure",
            "True",
            failure["reason"].as_str().unwrap_or("FailedCreate"),
            failure["message"].as_str().unwrap_or_default(),
            now,
        ),
        None => super::rolling::remove_condition(status, "ReplicaFailure"),
    }
}
