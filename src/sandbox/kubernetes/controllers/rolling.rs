//! What the controllers of pods share: reading pods, owner references, hashes, conditions.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::{
    list::digest,
    objects::{Writer, meta, stamp},
    storage::Key,
};

/// The field manager of all built-in controllers.
pub(super) fn manager() -> Writer<'static> {
    Writer::system("kube-controller-manager")
}

/// The controllers' writer of status.
pub(super) fn status_manager() -> Writer<'static> {
    manager().through("status")
}

/// A number of an object, zero if absent.
pub(super) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// Whether the pod counts: not finished, not on its way out.
pub(super) fn is_active(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_string()
        && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// A condition of an object by its type.
pub(super) fn condition<'a>(object: &'a Value, ty: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == ty)
}

/// Whether the pod is Ready.
pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

/// When a Ready pod becomes available, `None` if it is not Ready.
pub(super) fn available_at(pod: &Value, min_ready_seconds: i64) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c["status"] == "True")?;
    let since: Timestamp = ready["lastTransitionTime"].as_str()?.parse().ok()?;
    since.checked_add(SignedDuration::from_secs(min_ready_seconds)).ok()
}

/// Whether the pod has been Ready long enough.
pub(super) fn is_available(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> bool {
    is_ready(pod)
        && (min_ready_seconds == 0
            || available_at(pod, min_ready_seconds).is_some_and(|at| at <= now))
}

/// The reference by which `owner` controls what it makes.
pub(super) fn owner_reference(owner: &Value) -> Value {
    json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta(owner, "name"),
        "uid": meta(owner, "uid"), "controller": true, "blockOwnerDeletion": true})
}

/// A short hash in the alphabet of pod template hashes.
pub(super) fn short_hash(value: &Value) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = super::super::http::canonical(value);
    digest(&text)
        .iter()
        .take(9)
        .map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()]))
        .collect()
}

/// A pod made from a template.
pub(super) fn pod_of(template: &Value, owner: &Value) -> Value {
    let mut metadata = json!({"ownerReferences": [owner_reference(owner)]});
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// An absolute number from a number or a percentage of `total`.
pub(super) fn share(value: &Value, total: i64, round_up: bool) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let scaled = percent * total;
            if round_up { (scaled + 99) / 100 } else { scaled / 100 }
        }
        other => number(other),
    }
}

/// Sets a condition. The transition time changes with the status, the update time with anything.
pub(super) fn set_condition(
    status: &mut Value,
    ty: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let now = stamp(now);
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    if let Some(old) = conditions.iter_mut().find(|c| c["type"] == ty) {
        if old["status"] == value && old["reason"] == reason {
            return;
        }
        if old["status"] != value {
            old["lastTransitionTime"] = now.clone().into();
        }
        if old.get("lastUpdateTime").is_some() {
            old["lastUpdateTime"] = now.into();
        }
        old["status"] = value.into();
        old["reason"] = reason.into();
        old["message"] = message.into();
        return;
    }
    conditions.push(json!({"type": ty, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": now, "lastUpdateTime": now}));
}

/// Removes a condition.
pub(super) fn remove_condition(status: &mut Value, ty: &str) {
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|c| c["type"] != ty);
    }
}

/// Pods in the order in which surplus ones are deleted: not assigned, not ready, youngest first.
pub(super) fn by_worth(pods: &mut [(Key, std::sync::Arc<Value>)]) {
    pods.sort_by_key(|(_, pod)| {
        let assigned = pod["spec"]["nodeName"].is_string();
        let cost = meta_annotation(pod, "controller.kubernetes.io/pod-deletion-cost")
            .and_then(|c| c.parse::<i64>().ok())
            .unwrap_or(0);
        let age = meta(pod, "creationTimestamp").to_owned();
        (assigned, is_ready(pod), cost, std::cmp::Reverse(age))
    });
}

/// An annotation.
pub(super) fn meta_annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_the_server_rounds() {
        assert_eq!(share(&json!("25%"), 3, true), 1);
        assert_eq!(share(&json!("25%"), 3, false), 0);
        assert_eq!(share(&json!(2), 3, true), 2);
    }
}
