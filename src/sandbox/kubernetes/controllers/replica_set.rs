//! `ReplicaSets`: as many pods as wanted.

use std::sync::Arc;

use serde_json::Value;

use super::{
    super::{
        delete::Deletion,
        error::Outcome,
        objects::meta,
        storage::{Key, Tx},
    },
    refused,
    rolling::{
        available_at, by_worth, is_active, is_available, is_ready, manager, number, pod_of,
        remove_condition, set_condition, status_manager,
    },
};

/// Makes or deletes pods and writes the status.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let (Some(set), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let Some(pod_kind) = tx.state.kinds.find("", "v1", "pods").cloned() else { return Ok(()) };
    let uid = meta(&set, "uid").to_owned();
    let mut pods = active_pods(tx, &uid);
    let wanted = usize::try_from(number(&set["spec"]["replicas"])).unwrap_or(0);
    let mut failure = None;
    if !set["metadata"]["deletionTimestamp"].is_string() {
        if pods.len() < wanted {
            let base = format!("{}-", meta(&set, "name"));
            for _ in pods.len()..wanted {
                let mut pod = pod_of(&set["spec"]["template"], &set);
                pod["metadata"]["generateName"] = base.clone().into();
                match tx.create(&pod_kind, &key.namespace, pod, &manager()) {
                    Ok(pod) => {
                        let at = Key::new(&pod_kind, &key.namespace, meta(&pod, "name"));
                        pods.push((at, pod));
                    }
                    Err(status) => {
                        failure = Some(status.message);
                        break;
                    }
                }
            }
        } else if pods.len() > wanted {
            by_worth(&mut pods);
            let surplus = pods.len() - wanted;
            for (pod, _) in pods.drain(..surplus) {
                tx.delete(&pod, &Deletion::default())?;
            }
        }
    }
    if let Some(message) = &failure {
        let text = format!("Error creating: {message}");
        refused::pod_refused(tx, key, &set, "replicaset-controller", &text);
    }
    let min_ready = number(&set["spec"]["minReadySeconds"]);
    wake_when_available(tx, key, &pods, min_ready);
    let now = tx.now;
    let count = |f: &dyn Fn(&Value) -> bool| pods.iter().filter(|(_, p)| f(p)).count();
    let ready = count(&is_ready);
    let available = count(&|p| is_available(p, min_ready, now));
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let labeled = count(&|p| {
        labels.as_object().into_iter().flatten().all(|(k, v)| p["metadata"]["labels"][k] == *v)
    });
    let live = tx.get_key(key).unwrap_or(set);
    let generation = live["metadata"]["generation"].clone();
    tx.modify_status(&kind, live, &status_manager(), |status| {
        status["replicas"] = pods.len().into();
        status["fullyLabeledReplicas"] = labeled.into();
        status["readyReplicas"] = ready.into();
        status["availableReplicas"] = available.into();
        status["observedGeneration"] = generation;
        match &failure {
            Some(message) => {
                set_condition(status, "ReplicaFailure", "True", "FailedCreate", message, now);
                if let Some(list) = status["conditions"].as_array_mut() {
                    for condition in list {
                        condition.as_object_mut().map(|c| c.remove("lastUpdateTime"));
                    }
                }
            }
            None => remove_condition(status, "ReplicaFailure"),
        }
    })?;
    // A Deployment that recreates waits until the last pod is gone, which shows in no status.
    if wanted == 0
        && tx.owned(&uid, "core/pods/").is_empty()
        && let Some(set) = tx.get_key(key)
    {
        tx.enqueue_owners(key, &set);
    }
    Ok(())
}

/// The pods of an owner that count.
pub(super) fn active_pods(tx: &Tx<'_>, uid: &str) -> Vec<(Key, Arc<Value>)> {
    let mut pods = tx.owned(uid, "core/pods/");
    pods.retain(|(_, pod)| is_active(pod));
    pods
}

/// With `minReadySeconds` a pod becomes available without any write; then the owner looks again.
pub(super) fn wake_when_available(
    tx: &mut Tx<'_>,
    key: &Key,
    pods: &[(Key, Arc<Value>)],
    min_ready: i64,
) {
    if min_ready == 0 {
        return;
    }
    let now = tx.now;
    let next =
        pods.iter().filter_map(|(_, p)| available_at(p, min_ready)).filter(|at| *at > now).min();
    if let Some(at) = next {
        tx.enqueue_at(at, key.clone());
    }
}
