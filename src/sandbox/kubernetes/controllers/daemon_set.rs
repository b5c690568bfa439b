//! `DaemonSets`: one pod for each node that fits.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    super::{
        delete::Deletion,
        error::Outcome,
        objects::meta,
        storage::{Key, Tx},
    },
    refused, replica_set, revisions,
    rolling::{is_active, is_available, is_ready, manager, number, pod_of, share, status_manager},
};

const HASH: &str = "controller-revision-hash";

/// A node came, went or changed: every DaemonSet looks again.
pub(super) fn node_changed(tx: &mut Tx<'_>) {
    for (key, _) in tx.list("apps/daemonsets/", None) {
        tx.enqueue(key);
    }
}

/// Moves a DaemonSet on and writes its status.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let Some(set) = tx.get_key(key) else { return Ok(()) };
    if set["metadata"]["deletionTimestamp"].is_string() {
        return Ok(());
    }
    let (name, hash) = revisions::current(tx, &set)?;
    let nodes = nodes(tx, &set);
    let mut by_node: BTreeMap<String, Vec<(Key, Arc<Value>)>> = BTreeMap::new();
    for (pod_key, pod) in tx.owned(meta(&set, "uid"), "core/pods/") {
        by_node.entry(node_of(&pod)).or_default().push((pod_key, pod));
    }
    for node in &nodes {
        let active = by_node.get(node).is_some_and(|pods| pods.iter().any(|(_, p)| is_active(p)));
        if active {
            continue;
        }
        if let Err(status) = create(tx, &set, node, &hash) {
            let text = format!("Error creating: {}", status.message);
            refused::pod_refused(tx, key, &set, "daemonset-controller", &text);
            break;
        }
    }
    for (node, pods) in &by_node {
        if !nodes.contains(node) {
            for (pod_key, _) in pods.iter().filter(|(_, p)| is_active(p)) {
                tx.delete(pod_key, &Deletion::default())?;
            }
        }
    }
    replace(tx, &set, &hash, nodes.len())?;
    let owned = replica_set::active_pods(tx, meta(&set, "uid"));
    replica_set::wake_when_available(tx, key, &owned, number(&set["spec"]["minReadySeconds"]));
    write_status(tx, key, &hash, nodes.len())?;
    revisions::clean_up(tx, &set, &[name])
}

fn nodes(tx: &Tx<'_>, set: &Value) -> Vec<String> {
    let wanted = set["spec"]["template"]["spec"]["nodeSelector"].as_object();
    tx.list("core/nodes/", None)
        .into_iter()
        .filter(|(_, node)| {
            wanted.is_none_or(|w| w.iter().all(|(k, v)| node["metadata"]["labels"][k] == *v))
        })
        .map(|(key, _)| key.name)
        .collect()
}

fn node_of(pod: &Value) -> String {
    let demanded = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"][0]["matchFields"][0]["values"][0];
    pod["spec"]["nodeName"].as_str().or(demanded.as_str()).unwrap_or_default().to_owned()
}

fn create(tx: &mut Tx<'_>, set: &Value, node: &str, hash: &str) -> Outcome<()> {
    let Some(kind) = tx.state.kinds.find("", "v1", "pods").cloned() else { return Ok(()) };
    let mut pod = pod_of(&set["spec"]["template"], set);
    pod["metadata"]["generateName"] = format!("{}-", meta(set, "name")).into();
    pod["metadata"]["labels"][HASH] = hash.into();
    pod["metadata"]["labels"]["pod-template-generation"] =
        number(&set["metadata"]["generation"]).to_string().into();
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({
        "nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [node]}]}]});
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for (condition, effect) in [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ] {
        tolerations
            .push(json!({"effect": effect, "key": format!("node.kubernetes.io/{condition}"),
            "operator": "Exists"}));
    }
    pod["spec"]["tolerations"] = tolerations.into();
    tx.create(&kind, meta(set, "namespace"), pod, &manager()).map(drop)
}

/// Replaces outdated pods as far as `maxUnavailable` allows; `OnDelete` leaves that to people.
fn replace(tx: &mut Tx<'_>, set: &Value, hash: &str, nodes: usize) -> Outcome<()> {
    let strategy = &set["spec"]["updateStrategy"];
    if strategy["type"] != "RollingUpdate" {
        return Ok(());
    }
    let nodes = i64::try_from(nodes).unwrap_or(i64::MAX);
    let allowed = share(&strategy["rollingUpdate"]["maxUnavailable"], nodes, true).max(1);
    let min_ready = number(&set["spec"]["minReadySeconds"]);
    let now = tx.now;
    let pods = replica_set::active_pods(tx, meta(set, "uid"));
    let available =
        i64::try_from(pods.iter().filter(|(_, p)| is_available(p, min_ready, now)).count())
            .unwrap_or(0);
    let mut room = allowed - (nodes - available);
    let mut old: Vec<_> =
        pods.into_iter().filter(|(_, p)| p["metadata"]["labels"][HASH] != hash).collect();
    old.sort_by_key(|(_, p)| is_available(p, min_ready, now));
    for (key, pod) in old {
        if is_available(&pod, min_ready, now) {
            if room <= 0 {
                break;
            }
            room -= 1;
        }
        tx.delete(&key, &Deletion::default())?;
    }
    Ok(())
}

fn write_status(tx: &mut Tx<'_>, key: &Key, hash: &str, nodes: usize) -> Outcome<()> {
    let (Some(set), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let pods = replica_set::active_pods(tx, meta(&set, "uid"));
    let min_ready = number(&set["spec"]["minReadySeconds"]);
    let now = tx.now;
    let count = |f: &dyn Fn(&Value) -> bool| pods.iter().filter(|(_, p)| f(p)).count();
    let ready = count(&is_ready);
    let available = count(&|p| is_available(p, min_ready, now));
    let updated = count(&|p| p["metadata"]["labels"][HASH] == hash);
    let generation = set["metadata"]["generation"].clone();
    tx.modify_status(&kind, set, &status_manager(), |status| {
        status["observedGeneration"] = generation;
        status["currentNumberScheduled"] = pods.len().min(nodes).into();
        status["desiredNumberScheduled"] = nodes.into();
        status["numberMisscheduled"] = 0.into();
        status["numberReady"] = ready.into();
        status["updatedNumberScheduled"] = updated.into();
        status["numberAvailable"] = available.into();
        status["numberUnavailable"] = nodes.saturating_sub(available).into();
    })
    .map(drop)
}
