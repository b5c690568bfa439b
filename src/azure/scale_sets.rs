//! Scale sets of nodes and the identities on them.
//!
//! Source: the `virtualMachineScaleSets` specification 2024-07-01, Azure/azure-rest-api-specs;
//! Microsoft documentation, "Configure managed identities for Azure resources on a virtual machine
//! scale set using REST API calls", for what a PATCH of `identity` does.

use azure_core::http::Method;
use serde_json::{Map, Value, json};

use super::{
    arm::Arm,
    disposition::{Asked, Context},
    error::ArmError,
    pod_identity::text,
    update::Update,
};
use crate::model::{ArmId, footprint::ScaleSet};

const API: (&str, &str) = ("api-version", "2024-07-01");

fn scale_set(set: &Value) -> Option<ScaleSet> {
    let identities = set["identity"]["userAssignedIdentities"].as_object();
    let identities = identities.into_iter().flatten().map(|(id, _)| ArmId::new(id.as_str()));
    let mode = text(&set["properties"]["upgradePolicy"]["mode"]);
    Some(ScaleSet {
        id: ArmId::new(text(&set["id"])?),
        identities: identities.collect(),
        manual: mode.is_some_and(|mode| mode.eq_ignore_ascii_case("Manual")),
    })
}

/// The body of the PATCH that takes identities from a scale set: `null` for each, under its id as
/// it is written there. None where none of them is on it.
fn without(set: &Value, identities: &[ArmId]) -> Option<Value> {
    let identity = &set["identity"];
    let there = identity["userAssignedIdentities"].as_object()?;
    let goes = |id: &&String| identities.contains(&ArmId::new(id.as_str()));
    let going: Map<String, Value> =
        there.keys().filter(goes).map(|id| (id.clone(), Value::Null)).collect();
    if going.is_empty() {
        return None;
    }
    let kind = text(&identity["type"]).unwrap_or("UserAssigned");
    if going.len() == there.len() {
        // With the last one the type changes, and the map is left out.
        let system = kind.to_lowercase().contains("systemassigned");
        let kind = if system { "SystemAssigned" } else { "None" };
        return Some(json!({"identity": {"type": kind}}));
    }
    Some(json!({"identity": {"type": kind, "userAssignedIdentities": going}}))
}

impl Arm {
    /// The scale sets of a resource group, with the user-assigned identities on them.
    pub async fn scale_sets(&self, group: &ArmId) -> Result<Vec<ScaleSet>, ArmError> {
        let path = format!("{group}/providers/Microsoft.Compute/virtualMachineScaleSets");
        let list = self.list(self.url(&path, &[API])?, Context::default()).await;
        let list: Vec<Value> = match list {
            // A group that is gone has none.
            Err(error) if error.is_not_found() => Vec::new(),
            list => list?,
        };
        Ok(list.iter().filter_map(scale_set).collect())
    }

    /// Takes user-assigned identities from a scale set and waits until it is updated: reads it when
    /// nothing else is at work on it and sends the change under the eTag that was read. Whether
    /// anything was sent: a scale set that is gone, or that has none of them, needs nothing.
    /// Instances are not touched.
    pub async fn take_identities(
        &self,
        set: &ArmId,
        identities: &[ArmId],
    ) -> Result<bool, ArmError> {
        let url = self.url(set.as_str(), &[API])?;
        let change = |read: &Value| without(read, identities);
        let update = Update {
            what: "scale set",
            method: Method::Patch,
            asked: Asked::WriteScaleSet,
            change: &change,
            otherwise: "the scale set still has the identity",
        };
        match self.update(&url, &update).await {
            Err(error) if error.is_not_found() => Ok(false),
            updated => updated.map(|(_, sent)| sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kind: &str, names: &[&str]) -> Value {
        let on: Map<String, Value> =
            names.iter().map(|name| (id(name).to_string(), json!({"clientId": "c"}))).collect();
        json!({"id": "/subscriptions/s/x", "identity": {"type": kind, "userAssignedIdentities": on},
            "properties": {"upgradePolicy": {"mode": "Manual"}}})
    }

    fn id(name: &str) -> ArmId {
        ArmId::new(format!(
            "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        ))
    }

    #[test]
    fn only_what_goes_is_named_and_in_its_own_spelling() {
        let two = set("SystemAssigned, UserAssigned", &["App", "kubelet"]);
        let body = without(&two, &[id("app"), id("other")]).unwrap();
        let written = id("App").to_string();
        assert_eq!(
            body,
            json!({"identity": {"type": "SystemAssigned, UserAssigned",
                "userAssignedIdentities": {written: null}}})
        );
        assert_eq!(without(&two, &[id("other")]), None);
        assert_eq!(without(&json!({"identity": null}), &[id("app")]), None);
    }

    #[test]
    fn with_the_last_one_the_type_changes() {
        let only = |kind| without(&set(kind, &["app"]), &[id("app")]).unwrap();
        assert_eq!(only("UserAssigned"), json!({"identity": {"type": "None"}}));
        assert_eq!(
            only("SystemAssigned, UserAssigned"),
            json!({"identity": {"type": "SystemAssigned"}})
        );
    }

    #[test]
    fn a_scale_set_is_read_with_its_upgrade_policy() {
        let read = scale_set(&set("UserAssigned", &["app"])).unwrap();
        assert_eq!((read.identities, read.manual), (vec![id("app")], true));
        assert!(scale_set(&json!({"name": "x"})).is_none());
    }
}
