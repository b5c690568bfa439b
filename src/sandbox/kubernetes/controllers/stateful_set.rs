//! `StatefulSets`: numbered pods, started in order, replaced from the last to the partition.

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
    rolling::{is_active, is_available, is_ready, manager, number, pod_of, status_manager},
};

const HASH: &str = "controller-revision-hash";

type Pods = BTreeMap<i64, (Key, Arc<Value>)>;

/// Moves a StatefulSet on and writes its status.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let Some(set) = tx.get_key(key) else { return Ok(()) };
    if set["metadata"]["deletionTimestamp"].is_string() {
        return Ok(());
    }
    let (update, _) = revisions::current(tx, &set)?;
    let current = set["status"]["currentRevision"].as_str().unwrap_or(&update).to_owned();
    let step = advance(tx, key, &set, &current, &update);
    if let Err(status) = &step {
        let text = format!(
            "create Pod in StatefulSet {} failed error: {}",
            meta(&set, "name"),
            status.message
        );
        refused::pod_refused(tx, key, &set, "statefulset-controller", &text);
    }
    write_status(tx, key, &current, &update)?;
    revisions::clean_up(tx, &set, &[current, update])
}

fn pods(tx: &Tx<'_>, set: &Value) -> Pods {
    let base = format!("{}-", meta(set, "name"));
    tx.owned(meta(set, "uid"), "core/pods/")
        .into_iter()
        .filter_map(|(key, pod)| {
            let ordinal = key.name.strip_prefix(&base)?.parse().ok()?;
            Some((ordinal, (key, pod)))
        })
        .collect()
}

fn of_revision(pod: &Value, revision: &str) -> bool {
    pod["metadata"]["labels"][HASH] == revision
}

/// One step: create the next pod, delete the last surplus one, or replace one.
fn advance(
    tx: &mut Tx<'_>,
    key: &Key,
    set: &Arc<Value>,
    current: &str,
    update: &str,
) -> Outcome<()> {
    let spec = &set["spec"];
    let wanted = number(&spec["replicas"]);
    let first = number(&spec["ordinals"]["start"]);
    let parallel = spec["podManagementPolicy"] == "Parallel";
    let partition = number(&spec["updateStrategy"]["rollingUpdate"]["partition"]);
    let min_ready = number(&spec["minReadySeconds"]);
    let all = pods(tx, set);
    let owned: Vec<_> = all.values().cloned().collect();
    replica_set::wake_when_available(tx, key, &owned, min_ready);
    for ordinal in first..first + wanted {
        if let Some((pod_key, pod)) = all.get(&ordinal) {
            let failed = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
            if failed && !pod["metadata"]["deletionTimestamp"].is_string() {
                tx.delete(pod_key, &Deletion::default())?;
                return Ok(());
            }
            let healthy = is_active(pod) && is_available(pod, min_ready, tx.now);
            if !healthy && !parallel {
                // A pod that is broken and outdated is replaced even though it is not healthy
                // only by hand, as on a real cluster.
                return Ok(());
            }
        } else {
            // Below the partition pods keep the old revision.
            let revision = if ordinal - first < partition
                && spec["updateStrategy"]["type"] == "RollingUpdate"
            {
                current
            } else if spec["updateStrategy"]["type"] == "OnDelete" {
                update
            } else if ordinal - first < number(&set["status"]["currentReplicas"])
                && current != update
            {
                current
            } else {
                update
            };
            create(tx, set, ordinal, revision)?;
            if !parallel {
                return Ok(());
            }
        }
    }
    let surplus: Vec<_> = all.range(first + wanted..).rev().map(|(_, p)| p.clone()).collect();
    for (pod_key, pod) in surplus {
        if !pod["metadata"]["deletionTimestamp"].is_string() {
            tx.delete(&pod_key, &Deletion::default())?;
        }
        if !parallel {
            return Ok(());
        }
    }
    if spec["updateStrategy"]["type"] != "RollingUpdate" {
        return Ok(());
    }
    for ordinal in (first + partition..first + wanted).rev() {
        let Some((pod_key, pod)) = all.get(&ordinal) else { return Ok(()) };
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return Ok(());
        }
        if !of_revision(pod, update) {
            return tx.delete(pod_key, &Deletion::default()).map(drop);
        }
        if !is_available(pod, min_ready, tx.now) {
            return Ok(());
        }
    }
    Ok(())
}

fn create(tx: &mut Tx<'_>, set: &Value, ordinal: i64, revision: &str) -> Outcome<()> {
    let Some(kind) = tx.state.kinds.find("", "v1", "pods").cloned() else { return Ok(()) };
    let name = format!("{}-{ordinal}", meta(set, "name"));
    let stored = revisions::of(tx, meta(set, "uid"))
        .into_iter()
        .find(|(key, _)| key.name == revision)
        .map(|(_, r)| r["data"]["spec"]["template"].clone());
    let mut template = stored.unwrap_or_else(|| set["spec"]["template"].clone());
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    let mut pod = pod_of(&template, set);
    pod["metadata"]["name"] = name.clone().into();
    let labels = &mut pod["metadata"]["labels"];
    labels[HASH] = revision.into();
    labels["statefulset.kubernetes.io/pod-name"] = name.clone().into();
    if tx.facts.minor >= 28 {
        labels["apps.kubernetes.io/pod-index"] = ordinal.to_string().into();
    }
    let spec = &mut pod["spec"];
    spec["hostname"] = name.clone().into();
    if let Some(service) = set["spec"]["serviceName"].as_str().filter(|s| !s.is_empty()) {
        spec["subdomain"] = service.into();
    }
    claims(tx, set, spec, &name)?;
    tx.create(&kind, meta(set, "namespace"), pod, &manager()).map(drop)
}

/// The claims of a pod, and their volumes.
fn claims(tx: &mut Tx<'_>, set: &Value, spec: &mut Value, pod: &str) -> Outcome<()> {
    let Some(kind) = tx.state.kinds.find("", "v1", "persistentvolumeclaims").cloned() else {
        return Ok(());
    };
    let namespace = meta(set, "namespace");
    for template in set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
        let volume = meta(template, "name");
        let name = format!("{volume}-{pod}");
        if tx.get_key(&Key::new(&kind, namespace, &name)).is_none() {
            let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "labels": set["spec"]["selector"]["matchLabels"]},
                "spec": template["spec"]});
            tx.create(&kind, namespace, claim, &manager())?;
        }
        let source = json!({"name": volume, "persistentVolumeClaim": {"claimName": name}});
        match spec["volumes"].as_array_mut() {
            Some(volumes) => {
                volumes.retain(|v| v["name"] != volume);
                volumes.insert(0, source);
            }
            None => spec["volumes"] = json!([source]),
        }
    }
    Ok(())
}

fn write_status(tx: &mut Tx<'_>, key: &Key, current: &str, update: &str) -> Outcome<()> {
    let (Some(set), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let all = pods(tx, &set);
    let wanted = number(&set["spec"]["replicas"]);
    let min_ready = number(&set["spec"]["minReadySeconds"]);
    let now = tx.now;
    let alive = |p: &Value| !p["metadata"]["deletionTimestamp"].is_string();
    let count = |f: &dyn Fn(&Value) -> bool| {
        i64::try_from(all.values().filter(|(_, p)| f(p)).count()).unwrap_or(i64::MAX)
    };
    let total = count(&|_| true);
    let ready = count(&is_ready);
    let available = count(&|p| is_available(p, min_ready, now));
    let updated = count(&|p| alive(p) && of_revision(p, update));
    let on_current = count(&|p| alive(p) && of_revision(p, current));
    let rolling = set["spec"]["updateStrategy"]["type"] == "RollingUpdate";
    // The update is over when every pod has it and is ready; then it becomes the current one.
    let finished = rolling && updated == wanted && total == wanted && ready == wanted;
    let generation = set["metadata"]["generation"].clone();
    tx.modify_status(&kind, set, &status_manager(), |status| {
        status["observedGeneration"] = generation;
        status["replicas"] = total.into();
        status["readyReplicas"] = ready.into();
        status["availableReplicas"] = available.into();
        status["updatedReplicas"] = updated.into();
        status["currentReplicas"] = if finished { updated } else { on_current }.into();
        status["currentRevision"] = if finished { update } else { current }.into();
        status["updateRevision"] = update.into();
        status["collisionCount"] = 0.into();
    })
    .map(drop)
}
