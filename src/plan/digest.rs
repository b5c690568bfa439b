//! Digests of changes and risks: what a reviewer approved, in a line.
//!
//! A digest covers the object, its fields' values before, and the values or formulas after. It
//! does not cover times, pod counts, order, pending items or rollouts that only re-trigger stale
//! pods, nor whether the object is made or changed: an account that a first, partial run made
//! bare still awaits exactly the approved annotations.

use serde_json::json;

use super::{
    Change, ObjectKind, Planned,
    report::Finding,
    roll::{RESTARTS, RESTARTS_AT_ONCE},
};
use crate::model::names;

/// The digest of one change; empty for a rollout that only re-triggers stale pods.
pub(super) fn of_change(change: &Change) -> String {
    if change.kind == ObjectKind::KubernetesRollout {
        return String::new();
    }
    let fields: Vec<_> = change
        .fields
        .iter()
        .map(|field| {
            let after = match (&field.formula, &field.after) {
                (Some(formula), _) | (None, Planned::AfterApply(formula)) => {
                    json!({ "is": formula })
                }
                (None, Planned::Known(value)) => json!(value),
            };
            json!([field.field, field.before, after])
        })
        .collect();
    // The id of a role assignment follows from its fields, and is not always known.
    let id = (change.kind != ObjectKind::AzureRoleAssignment).then(|| change.id.to_lowercase());
    let body = json!([change.address.to_string(), change.kind.as_str(), id, fields]);
    names::sha256_hex(&body.to_string(), 32)
}

/// The digest of one risk; empty for restarts, which follow from the pods of the hour.
pub(super) fn of_risk(risk: &Finding) -> String {
    if [RESTARTS, RESTARTS_AT_ONCE].contains(&risk.code.as_str()) {
        return String::new();
    }
    let body = json!(["risk", risk.address.to_string(), risk.code]);
    names::sha256_hex(&body.to_string(), 32)
}

/// The digest of a plan, over the sorted digests of its changes and risks.
pub(super) fn of_plan(digests: &[String]) -> String {
    format!("wd1:{}", names::sha256_hex(&digests.join("\n"), 64))
}
