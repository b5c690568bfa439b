//! Events that controllers record.

use serde_json::{Value, json};

use super::super::{
    objects::{Writer, meta, stamp},
    storage::{Key, Tx},
};

/// Records an event about `object`; an equal one is counted up. Gives how often it came. Warnings of one reason count as
/// equal: what fails every second, each time with another name, must not fill the world.
pub(super) fn record(
    tx: &mut Tx<'_>,
    object: &Value,
    warning: bool,
    component: &str,
    reason: &str,
    message: &str,
) -> i64 {
    let Some(kind) = tx.state.kinds.find("", "v1", "events").cloned() else { return 1 };
    let namespace = match meta(object, "namespace") {
        "" => "default",
        namespace => namespace,
    };
    let uid = meta(object, "uid");
    let distinct = if warning { "" } else { message };
    let hash = super::super::list::hex(
        &super::super::list::digest(&format!("{uid} {reason} {distinct}"))[..8],
    );
    let name = format!("{}.{hash}", meta(object, "name"));
    let key = Key::new(&kind, namespace, &name);
    let now = stamp(tx.now);
    let writer = Writer::system("kube-controller-manager");
    // An event that cannot be recorded, for example in a namespace on its way out, is lost.
    if let Some(old) = tx.get_key(&key) {
        let count = old["count"].as_i64().unwrap_or(1) + 1;
        drop(tx.modify(&kind, &old, &writer, |event| {
            event["count"] = count.into();
            event["message"] = message.into();
            event["lastTimestamp"] = now.into();
        }));
        return count;
    }
    let event = json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"apiVersion": object["apiVersion"], "kind": object["kind"],
            "name": meta(object, "name"), "namespace": meta(object, "namespace"), "uid": uid,
            "resourceVersion": meta(object, "resourceVersion")},
        "reason": reason, "message": message, "type": if warning { "Warning" } else { "Normal" },
        "source": {"component": component}, "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        "eventTime": Value::Null, "reportingComponent": component, "reportingInstance": ""});
    drop(tx.create(&kind, namespace, event, &writer));
    1
}
