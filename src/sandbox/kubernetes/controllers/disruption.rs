//! Pod disruption budgets: how many pods may go.

use serde_json::Value;

use super::{
    super::{
        error::Outcome,
        selectors::LabelSelector,
        storage::{Key, Tx},
    },
    rolling::{is_active, is_ready, share, status_manager},
};

/// Counts the pods of a budget. It is looked at when it is written and before an eviction.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let (Some(budget), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let selector = LabelSelector::from_object(&budget["spec"]["selector"]);
    let pods: Vec<_> = tx
        .list("core/pods/", Some(&key.namespace))
        .into_iter()
        .filter(|(_, p)| is_active(p) && selector.matches(&p["metadata"]["labels"]))
        .collect();
    let total = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let healthy = i64::try_from(pods.iter().filter(|(_, p)| is_ready(p)).count()).unwrap_or(0);
    let spec = &budget["spec"];
    let desired = match (&spec["minAvailable"], &spec["maxUnavailable"]) {
        (Value::Null, Value::Null) => total,
        (Value::Null, most) => total - share(most, total, true),
        (least, _) => share(least, total, true),
    };
    let generation = budget["metadata"]["generation"].clone();
    tx.modify_status(&kind, budget, &status_manager(), |status| {
        status["observedGeneration"] = generation;
        status["expectedPods"] = total.into();
        status["currentHealthy"] = healthy.into();
        status["desiredHealthy"] = desired.max(0).into();
        status["disruptionsAllowed"] = (healthy - desired).max(0).into();
    })
    .map(drop)
}
