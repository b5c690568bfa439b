//! The Pod Identity add-on of a cluster, and what its documentation makes people set up in Azure:
//! roles for the cluster's identities, identities on the nodes.
//!
//! Source: the `managedClusters` specification 2025-10-01 (`podIdentityProfile`),
//! Azure/azure-cli-extensions `aks-preview` (`--disable-pod-identity` sends `enabled: false` and
//! nothing else of the profile), and Azure/aad-pod-identity, documentation page "Role assignment".

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    arm::Arm,
    error::ArmError,
    managed_cluster::{object, writable},
};
use crate::model::{
    ArmId,
    footprint::{AzureSide, ClusterPrincipal},
};

const IDENTITY: &str = "microsoft.managedidentity/userassignedidentities";

pub(super) fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn profile(cluster: &Value) -> &Value {
    &cluster["properties"]["podIdentityProfile"]
}

fn is_off(cluster: &Value) -> bool {
    profile(cluster)["enabled"] != json!(true)
}

/// Whether an entry of the profile is one of these, by namespace and name.
fn is_among(entry: &Value, wanted: &[(String, String)]) -> bool {
    wanted.iter().any(|(namespace, name)| {
        entry["namespace"] == namespace.as_str() && entry["name"] == name.as_str()
    })
}

/// The entries of the profile that are among these.
fn entries(cluster: &Value, wanted: &[(String, String)]) -> Vec<Value> {
    let all = profile(cluster)["userAssignedIdentities"].as_array().into_iter().flatten();
    all.filter(|entry| is_among(entry, wanted)).cloned().collect()
}

/// The body of the PUT that takes these identities out of the add-on, as `az aks pod-identity
/// delete` does.
fn without(cluster: Value, wanted: &[(String, String)]) -> Value {
    let mut body = writable(cluster);
    let profile = object(object(&mut body, "properties"), "podIdentityProfile");
    if let Some(all) = profile["userAssignedIdentities"].as_array_mut() {
        all.retain(|entry| !is_among(entry, wanted));
    }
    body
}

/// The body of the PUT that switches the add-on off.
fn switched_off(cluster: Value) -> Value {
    let mut body = writable(cluster);
    object(&mut body, "properties")["podIdentityProfile"] = json!({"enabled": false});
    body
}

/// Host names, node resource group and principals of a cluster's record.
fn side(cluster: &Value) -> AzureSide {
    let properties = &cluster["properties"];
    let hosts = ["fqdn", "privateFQDN"].into_iter().filter_map(|name| text(&properties[name]));
    let mut side = AzureSide { hosts: hosts.map(str::to_owned).collect(), ..AzureSide::default() };
    let id = text(&cluster["id"]).map(ArmId::new);
    let subscription = id.as_ref().and_then(ArmId::subscription);
    if let (Some(subscription), Some(group)) =
        (subscription, text(&properties["nodeResourceGroup"]))
    {
        let group = ArmId::of_subscription(subscription).child("resourceGroups", group);
        side.node_group = Some(group);
    }
    let kubelet = &properties["identityProfile"]["kubeletidentity"];
    side.kubelet = text(&kubelet["resourceId"]).map(ArmId::new);
    let mut principal = |value: &Value, acts: ClusterPrincipal| {
        if let Some(principal) = text(value).and_then(|text| text.parse().ok()) {
            // What is both counts as AKS's own: that is what must not lose anything.
            side.principals.insert(principal, acts);
        }
    };
    principal(&kubelet["objectId"], ClusterPrincipal::Kubelet);
    principal(&cluster["identity"]["principalId"], ClusterPrincipal::ControlPlane);
    let assigned = cluster["identity"]["userAssignedIdentities"].as_object();
    for identity in assigned.into_iter().flatten().map(|(_, identity)| identity) {
        principal(&identity["principalId"], ClusterPrincipal::ControlPlane);
    }
    placed(cluster, &mut Vec::new(), &mut side.placed);
    side
}

/// Every user-assigned identity that the record names, as a value or as a name of a member, but
/// for those of the Pod Identity add-on. Which members hold identities grows with each add-on, so
/// that none is listed here.
fn placed<'a>(value: &'a Value, at: &mut Vec<&'a str>, found: &mut BTreeMap<ArmId, String>) {
    let note = |id: &str, at: &[&str], found: &mut BTreeMap<ArmId, String>| {
        let id = ArmId::new(id);
        if id.resource_type().as_deref() == Some(IDENTITY) {
            found.entry(id).or_insert_with(|| at.join("/"));
        }
    };
    match value {
        Value::String(id) => note(id, at, found),
        Value::Array(elements) => {
            for element in elements {
                placed(element, at, found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                if at.as_slice() == ["properties"] && name == "podIdentityProfile" {
                    continue;
                }
                note(name, at, found);
                // The path is for people: ids and the last name, `resourceId`, say nothing.
                let shown = !name.contains('/') && !name.eq_ignore_ascii_case("resourceId");
                at.extend(shown.then_some(name.as_str()));
                placed(member, at, found);
                at.truncate(at.len() - usize::from(shown));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Arm {
    /// The add-on's entries for these identities, each namespace and name, as ARM has them.
    pub async fn pod_identities(
        &self,
        id: &ArmId,
        wanted: &[(String, String)],
    ) -> Result<Vec<Value>, ArmError> {
        let record = self.cluster_record(id).await?;
        Ok(record.map(|cluster| entries(&cluster, wanted)).unwrap_or_default())
    }

    /// Takes these identities, each namespace and name, out of the Pod Identity add-on and waits
    /// until that is done. Does nothing where none is there.
    pub async fn remove_pod_identities(
        &self,
        id: &ArmId,
        wanted: &[(String, String)],
    ) -> Result<(), ArmError> {
        let none = |cluster: &Value| entries(cluster, wanted).is_empty();
        let change = |cluster: Value| without(cluster, wanted);
        let otherwise = "the add-on still holds them";
        self.update_cluster(id, &none, &change, otherwise).await.map(drop)
    }

    /// Switches the Pod Identity add-on off and waits until it is; with it goes what it was told
    /// of identities and exceptions. Does nothing where it is off.
    pub async fn disable_pod_identity(&self, id: &ArmId) -> Result<(), ArmError> {
        let otherwise = "the Pod Identity add-on is still on";
        self.update_cluster(id, &is_off, &switched_off, otherwise).await.map(drop)
    }

    /// The nodes' resource group, the host names and the principals of a cluster; none if it is
    /// not there. Role assignments and scale sets are not read.
    pub async fn cluster_side(&self, id: &ArmId) -> Result<Option<AzureSide>, ArmError> {
        Ok(self.cluster_record(id).await?.as_ref().map(side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Value {
        json!({
            "id": "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourcegroups/rg/providers/Microsoft.ContainerService/managedClusters/aks",
            "location": "westeurope", "eTag": "e",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {
                "/subscriptions/s/x": {"principalId": "0a6c5ea2-1df1-4d36-9f4c-0d6e35be6f10"}}},
            "properties": {
                "provisioningState": "Succeeded", "fqdn": "a.azmk8s.io", "privateFQDN": "",
                "nodeResourceGroup": "MC_rg_aks", "future": {"kept": [1]},
                "identityProfile": {"kubeletidentity": {"resourceId": "/subscriptions/s/k",
                    "objectId": "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451"}},
                "podIdentityProfile": {"enabled": true, "allowNetworkPluginKubenet": true,
                    "userAssignedIdentities": [{"name": "a", "namespace": "n",
                        "provisioningState": "Assigned", "identity": {"resourceId": "r"}}],
                    "userAssignedIdentityExceptions": [{"name": "e", "namespace": "n"}]}
            }
        })
    }

    #[test]
    fn switching_off_changes_nothing_else() {
        let off = switched_off(record());
        assert!(is_off(&off) && !is_off(&record()));
        assert_eq!(profile(&off), &json!({"enabled": false}));
        assert_eq!(off["properties"]["future"], json!({"kept": [1]}));
        assert!(off.get("id").is_none() && off["properties"].get("fqdn").is_none());
        assert!(is_off(&json!({"properties": {}})), "never switched on");
    }

    #[test]
    fn one_identity_goes_and_nothing_else_changes() {
        let mut record = record();
        let list = &mut record["properties"]["podIdentityProfile"]["userAssignedIdentities"];
        let other = json!({"name": "a", "namespace": "m", "bindingSelector": "s"});
        list.as_array_mut().unwrap().push(other.clone());
        let wanted = [("n".to_owned(), "a".to_owned())];
        assert_eq!(entries(&record, &wanted).len(), 1);
        let body = without(record.clone(), &wanted);
        assert_eq!(entries(&body, &wanted), Vec::<Value>::new());
        assert_eq!(profile(&body)["userAssignedIdentities"], json!([other]));
        let mut expected = writable(record);
        expected["properties"]["podIdentityProfile"]["userAssignedIdentities"] = json!([other]);
        assert_eq!(body, expected);
    }

    #[test]
    fn the_sides_principals_and_hosts_are_read() {
        let side = side(&record());
        assert_eq!(side.hosts, ["a.azmk8s.io"]);
        assert!(side.node_group.unwrap().key().ends_with("/resourcegroups/mc_rg_aks"));
        let acts: Vec<ClusterPrincipal> = side.principals.into_values().collect();
        assert_eq!(acts, [ClusterPrincipal::ControlPlane, ClusterPrincipal::Kubelet]);
    }

    #[test]
    fn what_aks_placed_is_found_wherever_the_record_names_it() {
        let id = |name: &str| {
            format!(
                "/subscriptions/s/resourcegroups/mc/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
            )
        };
        let record = json!({
            "identity": {"userAssignedIdentities": {id("control"): {"principalId": "p"}}},
            "properties": {
                "identityProfile": {"kubeletidentity": {"resourceId": id("agentpool")}},
                "addonProfiles": {"omsagent": {"identity": {"resourceId": id("omsagent-aks")}}},
                "notYetInvented": [{"identities": [id("future")]}],
                "podIdentityProfile": {"userAssignedIdentities": [
                    {"identity": {"resourceId": id("app")}}]},
                "nodeResourceGroup": "mc",
            }
        });
        let placed = side(&record).placed;
        let shown: Vec<(&str, &str)> =
            placed.iter().map(|(id, at)| (id.name(), at.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("agentpool", "properties/identityProfile/kubeletidentity"),
                ("control", "identity/userAssignedIdentities"),
                ("future", "properties/notYetInvented/identities"),
                ("omsagent-aks", "properties/addonProfiles/omsagent/identity"),
            ]
        );
    }
}
