//! Scheduler and kubelets: pods get a node, start, become ready, finish or stop.
//!
//! The annotation `sandbox.widentity.dev/fail` makes a pod fail: `crash` keeps its containers in
//! `CrashLoopBackOff` (or fails a pod that does not restart), `unready` leaves it running without ever
//! becoming ready.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    super::{
        cluster::Options,
        error::Outcome,
        kubelet,
        list::digest,
        objects::{Writer, meta, stamp},
        storage::{Key, Tx},
    },
    rolling::meta_annotation,
};

/// Looks again at pods that found no node.
pub(super) fn node_changed(tx: &mut Tx<'_>) {
    for (key, pod) in tx.list("core/pods/", None) {
        if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
            tx.enqueue(key);
        }
    }
}

/// Moves a pod on.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let Some(pod) = tx.get_key(key) else { return Ok(()) };
    let options: Options = tx
        .note("~options")
        .and_then(|doc| serde_json::from_value((*doc).clone()).ok())
        .unwrap_or_default();
    if !options.kubelets {
        return Ok(());
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if waited(tx, key, &format!("stop {}", meta(&pod, "uid")), options.pod_start_ms / 3) {
            stop(tx, key, pod)?;
        }
        return Ok(());
    }
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return bind(tx, key, pod);
    }
    if phase == "Pending" {
        if pod["status"]["startTime"].is_null() {
            let starting = starting(&pod, tx);
            set_status(tx, pod, starting)?;
            return Ok(());
        }
        if waited(tx, key, &format!("start {}", meta(&pod, "uid")), options.pod_start_ms) {
            let started = started(&pod, tx);
            if kubelet::is_proof(&pod) {
                tx.state.proofs.push(key.clone());
            }
            set_status(tx, pod, started)?;
        }
        return Ok(());
    }
    let once = matches!(pod["spec"]["restartPolicy"].as_str(), Some("Never" | "OnFailure"));
    if phase == "Running"
        && once
        && pod["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|o| o["kind"] == "Job")
        && waited(tx, key, &format!("finish {}", meta(&pod, "uid")), options.pod_start_ms)
    {
        let finished = finished(&pod, tx);
        set_status(tx, pod, finished)?;
    }
    Ok(())
}

/// Whether the pod has waited long enough at this step; the first call starts the wait.
fn waited(tx: &mut Tx<'_>, key: &Key, step: &str, milliseconds: u64) -> bool {
    if let Some((waits_for, until)) = tx.state.waiting.get(key)
        && waits_for == step
    {
        let over = *until <= tx.now;
        if over {
            tx.state.waiting.remove(key);
        }
        return over;
    }
    let delay = SignedDuration::try_from(Duration::from_millis(milliseconds))
        .unwrap_or(SignedDuration::ZERO);
    let until = tx.now.checked_add(delay).unwrap_or(tx.now);
    tx.state.waiting.insert(key.clone(), (step.to_owned(), until));
    tx.enqueue_at(until, key.clone());
    false
}

/// Gives the pod a node: the one that its affinity demands, or one by its name's hash.
fn bind(tx: &mut Tx<'_>, key: &Key, pod: Arc<Value>) -> Outcome<()> {
    let demanded = pod["spec"]["affinity"]["nodeAffinity"]
        ["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0]["matchFields"][0]
        ["values"][0]
        .as_str()
        .map(str::to_owned);
    let node = if let Some(node) = demanded {
        node
    } else {
        let wanted = pod["spec"]["nodeSelector"].as_object();
        let nodes: Vec<String> = tx
            .list("core/nodes/", None)
            .iter()
            .filter(|(_, node)| node["spec"]["unschedulable"] != true)
            .filter(|(_, node)| {
                wanted.is_none_or(|w| w.iter().all(|(k, v)| node["metadata"]["labels"][k] == *v))
            })
            .map(|(key, _)| key.name.clone())
            .collect();
        if nodes.is_empty() {
            return unschedulable(tx, pod);
        }
        nodes[usize::from(digest(&key.name)[0]) % nodes.len()].clone()
    };
    let mut bound = tx.own(key, pod);
    bound["spec"]["nodeName"] = node.into();
    let now = stamp(tx.now);
    bound["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True",
        "lastProbeTime": null, "lastTransitionTime": now}]);
    tx.store(key, bound).map(drop)
}

fn unschedulable(tx: &mut Tx<'_>, pod: Arc<Value>) -> Outcome<()> {
    let mut status = pod["status"].clone();
    if status["conditions"].is_array() {
        return Ok(());
    }
    status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/0 nodes are available: no node matches the pod's node selector.",
        "lastProbeTime": null, "lastTransitionTime": stamp(tx.now)}]);
    set_status(tx, pod, status)
}

fn set_status(tx: &mut Tx<'_>, pod: Arc<Value>, status: Value) -> Outcome<()> {
    let Some(kind) = tx.state.kinds.find("", "v1", "pods").cloned() else { return Ok(()) };
    let kubelet = Writer::system("kubelet").through("status");
    tx.modify_status(&kind, pod, &kubelet, |shown| *shown = status).map(drop)
}

fn conditions(tx: &Tx<'_>, old: &Value, initialized: bool, ready: bool, reason: &str) -> Value {
    let now = stamp(tx.now);
    let value = |b: bool| if b { "True" } else { "False" };
    let mut list = vec![];
    for (ty, state) in [
        ("PodReadyToStartContainers", ready || initialized),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", ready),
        ("PodScheduled", true),
    ] {
        if ty == "PodReadyToStartContainers" && tx.facts.minor < 29 {
            continue;
        }
        let before = old["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == ty && c["status"] == value(state))
            .map_or_else(
                || now.clone(),
                |c| c["lastTransitionTime"].as_str().unwrap_or(&now).to_owned(),
            );
        let mut made = json!({"type": ty, "status": value(state), "lastProbeTime": null,
            "lastTransitionTime": before});
        if !state && !reason.is_empty() {
            made["reason"] = reason.into();
            made["message"] = "containers with unready status".into();
        }
        list.push(made);
    }
    list.into()
}

fn container_statuses(pod: &Value, list: &str, ready: bool, state: &Value, restarts: i64) -> Value {
    pod["spec"][list]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| {
            let image = &container["image"];
            let id = super::super::list::hex(&digest(&format!("{}{}", meta(pod, "uid"), container["name"])));
            let created = state["waiting"].is_null();
            let mut made = json!({"name": container["name"], "image": image, "ready": ready,
                "restartCount": restarts, "state": state, "lastState": {}, "started": ready,
                "imageID": if created { format!("{}@sha256:{id}", image.as_str().unwrap_or_default()) } else { String::new() }});
            if created {
                made["containerID"] = format!("containerd://{id}").into();
            }
            made
        })
        .collect::<Vec<_>>()
        .into()
}

fn starting(pod: &Value, tx: &Tx<'_>) -> Value {
    let mut status = pod["status"].clone();
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    status["hostIP"] = "10.224.0.4".into();
    status["startTime"] = stamp(tx.now).into();
    status["containerStatuses"] = container_statuses(pod, "containers", false, &waiting, 0);
    status["conditions"] = conditions(tx, &pod["status"], true, false, "ContainersNotReady");
    status
}

fn started(pod: &Value, tx: &Tx<'_>) -> Value {
    let now = stamp(tx.now);
    let mut status = pod["status"].clone();
    let fail = meta_annotation(pod, "sandbox.widentity.dev/fail").unwrap_or_default();
    let hash = digest(meta(pod, "uid"));
    let address = format!("10.244.{}.{}", hash[0], hash[1]);
    status["phase"] = "Running".into();
    status["podIP"] = address.clone().into();
    status["podIPs"] = json!([{"ip": address}]);
    let inits = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
    if pod["spec"]["initContainers"].as_array().is_some_and(|l| !l.is_empty()) {
        let mut list = container_statuses(pod, "initContainers", true, &inits, 0);
        for (made, spec) in list
            .as_array_mut()
            .into_iter()
            .flatten()
            .zip(pod["spec"]["initContainers"].as_array().into_iter().flatten())
        {
            if spec["restartPolicy"] == "Always" {
                made["state"] = json!({"running": {"startedAt": now}});
            }
        }
        status["initContainerStatuses"] = list;
    }
    let once = pod["spec"]["restartPolicy"] == "Never";
    let (ready, state, restarts) = match fail {
        "crash" if once => (true, json!({"running": {"startedAt": now}}), 0),
        "crash" => (
            false,
            json!({"waiting": {"reason": "CrashLoopBackOff",
                "message": format!("back-off 10s restarting failed container in pod {}", meta(pod, "name"))}}),
            1,
        ),
        "unready" => (false, json!({"running": {"startedAt": now}}), 0),
        _ => (true, json!({"running": {"startedAt": now}}), 0),
    };
    let mut containers = container_statuses(pod, "containers", ready, &state, restarts);
    if restarts > 0 {
        for made in containers.as_array_mut().into_iter().flatten() {
            made["lastState"] = json!({"terminated": {"exitCode": 1, "reason": "Error",
                "startedAt": now, "finishedAt": now}});
        }
    }
    status["containerStatuses"] = containers;
    let reason = if ready { "" } else { "ContainersNotReady" };
    status["conditions"] = conditions(tx, &pod["status"], true, ready, reason);
    status
}

fn finished(pod: &Value, tx: &Tx<'_>) -> Value {
    let failed = meta_annotation(pod, "sandbox.widentity.dev/fail") == Some("crash");
    let now = stamp(tx.now);
    let mut status = pod["status"].clone();
    status["phase"] = if failed { "Failed" } else { "Succeeded" }.into();
    let (code, reason) = if failed { (1, "Error") } else { (0, "Completed") };
    let state = json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}});
    status["containerStatuses"] = container_statuses(pod, "containers", false, &state, 0);
    let reason = if failed { "PodFailed" } else { "PodCompleted" };
    status["conditions"] = conditions(tx, &pod["status"], true, false, reason);
    status
}

/// The containers have stopped: the pod goes as soon as no finalizer holds it.
fn stop(tx: &mut Tx<'_>, key: &Key, pod: Arc<Value>) -> Outcome<()> {
    if pod["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()) {
        if pod["metadata"]["deletionGracePeriodSeconds"] == 0 {
            return Ok(());
        }
        let mut held = tx.own(key, pod);
        held["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        return tx.store(key, held).map(drop);
    }
    tx.erase(key).map(drop)
}
