//! The JSON of a managed cluster: what is read from it, and what is sent back to switch features
//! on. The body is never turned into a type of ours, so that settings newer than this program
//! survive the round trip.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::operation::provisioning_state;
use crate::model::{
    ArmId, Issuer,
    desired::Feature,
    snapshot::{ObservedCluster, PodIdentityProfile},
};

/// Members that Azure documents as read-only and that a PUT therefore leaves out. `*` stands for
/// every element or member.
///
/// Source: `readOnly` in the `managedClusters` specification 2025-10-01,
/// Azure/azure-rest-api-specs.
const READ_ONLY: &[&str] = &[
    "/id",
    "/name",
    "/type",
    "/systemData",
    "/eTag",
    "/identity/principalId",
    "/identity/tenantId",
    "/identity/userAssignedIdentities/*/clientId",
    "/identity/userAssignedIdentities/*/principalId",
    "/properties/provisioningState",
    "/properties/powerState",
    "/properties/maxAgentPools",
    "/properties/currentKubernetesVersion",
    "/properties/fqdn",
    "/properties/privateFQDN",
    "/properties/azurePortalFQDN",
    "/properties/resourceUID",
    "/properties/status/provisioningError",
    "/properties/agentPoolProfiles/*/eTag",
    "/properties/agentPoolProfiles/*/currentOrchestratorVersion",
    "/properties/agentPoolProfiles/*/nodeImageVersion",
    "/properties/agentPoolProfiles/*/provisioningState",
    "/properties/agentPoolProfiles/*/status/provisioningError",
    "/properties/agentPoolProfiles/*/localDNSProfile/state",
    "/properties/addonProfiles/*/identity",
    "/properties/ingressProfile/webAppRouting/identity",
    "/properties/networkProfile/loadBalancerProfile/effectiveOutboundIPs",
    "/properties/networkProfile/natGatewayProfile/effectiveOutboundIPs",
    "/properties/oidcIssuerProfile/issuerURL",
    "/properties/podIdentityProfile/userAssignedIdentities/*/provisioningState",
    "/properties/podIdentityProfile/userAssignedIdentities/*/provisioningInfo",
    "/properties/privateLinkResources/*/privateLinkServiceID",
];

fn remove(value: &mut Value, path: &[&str]) {
    match (path, value) {
        ([last], Value::Object(members)) => {
            members.remove(*last);
        }
        (["*", rest @ ..], Value::Object(members)) => {
            for member in members.values_mut() {
                remove(member, rest);
            }
        }
        (["*", rest @ ..], Value::Array(elements)) => {
            for element in elements {
                remove(element, rest);
            }
        }
        ([first, rest @ ..], Value::Object(members)) => {
            if let Some(member) = members.get_mut(*first) {
                remove(member, rest);
            }
        }
        _ => {}
    }
}

/// The setting of each feature, below `properties`.
fn setting(feature: Feature) -> [&'static str; 2] {
    match feature {
        Feature::OidcIssuer => ["oidcIssuerProfile", ""],
        Feature::WorkloadIdentity => ["securityProfile", "workloadIdentity"],
    }
}

/// A member that is an object; made one where it is not.
pub(super) fn object<'a>(value: &'a mut Value, member: &str) -> &'a mut Value {
    if !value[member].is_object() {
        value[member] = Value::Object(Map::new());
    }
    &mut value[member]
}

/// Whether a feature is on.
pub(super) fn has(cluster: &Value, feature: Feature) -> bool {
    let [profile, part] = setting(feature);
    let mut at = &cluster["properties"][profile];
    if !part.is_empty() {
        at = &at[part];
    }
    at["enabled"] == json!(true)
}

/// What may be sent back of a record: what was read, minus the read-only members.
pub(super) fn writable(mut cluster: Value) -> Value {
    for path in READ_ONLY {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        remove(&mut cluster, &segments);
    }
    if cluster.is_object() { cluster } else { json!({}) }
}

/// The body of the PUT that switches features on: exactly these settings are added.
pub(super) fn enabling(cluster: Value, features: &BTreeSet<Feature>) -> Value {
    let mut cluster = writable(cluster);
    for feature in features {
        let [profile, part] = setting(*feature);
        let mut at = object(object(&mut cluster, "properties"), profile);
        if !part.is_empty() {
            at = object(at, part);
        }
        at["enabled"] = json!(true);
    }
    cluster
}

/// The eTag, as its own member in newer versions of the API.
pub(super) fn etag(cluster: &Value) -> Option<String> {
    let tag = cluster.get("eTag").or_else(|| cluster.get("etag"))?.as_str()?;
    (!tag.is_empty()).then(|| tag.to_owned())
}

/// What widentity reads of a cluster. None if the body has no id, which no cluster's has.
pub(super) fn observe(cluster: &Value) -> Option<ObservedCluster> {
    let properties = &cluster["properties"];
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let issuer = has(cluster, Feature::OidcIssuer)
        .then(|| text(&properties["oidcIssuerProfile"]["issuerURL"]))
        .flatten();
    let pod_identity = properties.get("podIdentityProfile").filter(|p| p.is_object()).map(|p| {
        let identities = p["userAssignedIdentities"].as_array().into_iter().flatten();
        let name = |entry: &Value| {
            Some(format!("{}/{}", entry["namespace"].as_str()?, entry["name"].as_str()?))
        };
        PodIdentityProfile {
            enabled: p["enabled"] == json!(true),
            identities: identities.filter_map(name).collect(),
        }
    });
    Some(ObservedCluster {
        id: ArmId::new(text(&cluster["id"])?),
        location: text(&cluster["location"]).unwrap_or_default(),
        provisioning_state: provisioning_state(cluster).to_owned(),
        power_state: text(&properties["powerState"]["code"]),
        issuer: issuer.map(Issuer),
        workload_identity: has(cluster, Feature::WorkloadIdentity),
        fqdn: text(&properties["fqdn"]),
        private_fqdn: text(&properties["privateFQDN"]),
        etag: etag(cluster),
        kubernetes_version: text(&properties["currentKubernetesVersion"])
            .or_else(|| text(&properties["kubernetesVersion"])),
        pod_identity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shaped after an AKS cluster of 2025 with everything switched on, and settings that no
    /// version of the API knows yet.
    fn modern() -> Value {
        let text = r#"{
            "id": "/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/rg/providers/Microsoft.ContainerService/managedClusters/aks",
            "location": "westeurope",
            "name": "aks",
            "type": "Microsoft.ContainerService/ManagedClusters",
            "eTag": "1f0c5a4e",
            "kind": "Base",
            "tags": {"team": "platform", "empty": ""},
            "systemData": {"createdBy": "x"},
            "sku": {"name": "Base", "tier": "Standard"},
            "identity": {
                "type": "UserAssigned",
                "principalId": "p", "tenantId": "t",
                "userAssignedIdentities": {
                    "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/cp":
                        {"clientId": "c", "principalId": "p"}
                }
            },
            "newTopLevelSetting": {"a": [1, 2.5, null, {"deep": true}]},
            "properties": {
                "provisioningState": "Succeeded",
                "powerState": {"code": "Running"},
                "kubernetesVersion": "1.33",
                "currentKubernetesVersion": "1.33.2",
                "dnsPrefix": "aks-x",
                "fqdn": "aks-x.hcp.westeurope.azmk8s.io",
                "azurePortalFQDN": "aks-x.portal.hcp.westeurope.azmk8s.io",
                "privateFQDN": null,
                "resourceUID": "68ae1a",
                "maxAgentPools": 100,
                "nodeResourceGroup": "MC_rg_aks_westeurope",
                "enableRBAC": true,
                "supportPlan": "KubernetesOfficial",
                "disableLocalAccounts": true,
                "windowsProfile": null,
                "agentPoolProfiles": [{
                    "name": "system", "count": 3, "vmSize": "Standard_D4ds_v5", "mode": "System",
                    "eTag": "aa", "currentOrchestratorVersion": "1.33.2", "orchestratorVersion": "1.33",
                    "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202510.01.0",
                    "provisioningState": "Succeeded", "powerState": {"code": "Running"},
                    "availabilityZones": ["1", "2", "3"], "upgradeSettings": {"maxSurge": "10%"},
                    "localDNSProfile": {"mode": "Preferred", "state": "Enabled"},
                    "securityProfile": {"enableVTPM": false, "enableSecureBoot": false},
                    "futureSetting": {"x": 1}
                }],
                "addonProfiles": {
                    "azureKeyvaultSecretsProvider": {
                        "enabled": true, "config": {"enableSecretRotation": "false"},
                        "identity": {"resourceId": "r", "clientId": "c", "objectId": "o"}
                    },
                    "omsagent": {"enabled": false, "config": null}
                },
                "networkProfile": {
                    "networkPlugin": "azure", "networkPluginMode": "overlay", "networkDataplane": "cilium",
                    "loadBalancerSku": "Standard", "podCidrs": ["10.244.0.0/16"],
                    "loadBalancerProfile": {
                        "managedOutboundIPs": {"count": 1},
                        "effectiveOutboundIPs": [{"id": "ip"}],
                        "backendPoolType": "nodeIPConfiguration"
                    },
                    "advancedNetworking": {"enabled": true, "observability": {"enabled": true}}
                },
                "identityProfile": {"kubeletidentity": {"resourceId": "r", "clientId": "c", "objectId": "o"}},
                "ingressProfile": {"webAppRouting": {
                    "enabled": true, "dnsZoneResourceIds": [],
                    "identity": {"resourceId": "r"}, "nginx": {"defaultIngressControllerType": "None"}
                }},
                "securityProfile": {"imageCleaner": {"enabled": true, "intervalHours": 168}},
                "oidcIssuerProfile": {"enabled": false, "issuerURL": ""},
                "autoUpgradeProfile": {"upgradeChannel": "stable", "nodeOSUpgradeChannel": "NodeImage"},
                "storageProfile": {"diskCSIDriver": {"enabled": true}},
                "nodeProvisioningProfile": {"mode": "Auto", "defaultNodePools": "Auto"},
                "bootstrapProfile": {"artifactSource": "Direct"},
                "workloadAutoScalerProfile": {"keda": {"enabled": true}},
                "notYetInvented": [{"k": "v"}]
            }
        }"#;
        serde_json::from_str(text).unwrap()
    }

    /// Every leaf and empty container by its JSON pointer.
    fn leaves(value: &Value, at: &str, out: &mut Vec<(String, Value)>) {
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        let members = value.as_object().into_iter().flatten();
        let members = members.map(|(name, member)| (escaped(name), member));
        let elements = value.as_array().into_iter().flatten().enumerate();
        let elements = elements.map(|(index, element)| (index.to_string(), element));
        let before = out.len();
        for (name, child) in members.chain(elements) {
            leaves(child, &format!("{at}/{name}"), out);
        }
        if out.len() == before {
            out.push((at.to_owned(), value.clone()));
        }
    }

    fn matches(pointer: &str, pattern: &str) -> bool {
        let pattern: Vec<&str> = pattern.split('/').collect();
        let pointer: Vec<&str> = pointer.split('/').collect();
        pointer.len() >= pattern.len()
            && pattern.iter().zip(&pointer).all(|(p, s)| *p == "*" || p == s)
    }

    #[test]
    fn nothing_but_the_two_settings_and_read_only_members_differs() {
        let before = modern();
        let both = BTreeSet::from([Feature::OidcIssuer, Feature::WorkloadIdentity]);
        let after = enabling(before.clone(), &both);
        let (mut was, mut is) = (Vec::new(), Vec::new());
        leaves(&before, "", &mut was);
        leaves(&after, "", &mut is);

        let gone: Vec<&String> =
            was.iter().filter(|leaf| !is.contains(leaf)).map(|(at, _)| at).collect();
        for pointer in &gone {
            let read_only = READ_ONLY.iter().any(|pattern| matches(pointer, pattern));
            assert!(read_only || *pointer == "/properties/oidcIssuerProfile/enabled", "{pointer}");
        }
        assert!(gone.len() > 20, "the read-only members are left out");

        let new: Vec<&(String, Value)> = is.iter().filter(|leaf| !was.contains(leaf)).collect();
        let of_identity = "/identity/userAssignedIdentities/";
        let (emptied, set): (Vec<_>, Vec<_>) = new
            .into_iter()
            .partition(|(at, value)| at.starts_with(of_identity) && *value == json!({}));
        assert_eq!(emptied.len(), 1, "a user-assigned identity keeps its key");
        assert_eq!(
            set,
            [
                &("/properties/oidcIssuerProfile/enabled".to_owned(), json!(true)),
                &("/properties/securityProfile/workloadIdentity/enabled".to_owned(), json!(true)),
            ]
        );
    }

    #[test]
    fn one_feature_leaves_the_other_alone() {
        let body = enabling(modern(), &BTreeSet::from([Feature::OidcIssuer]));
        assert!(has(&body, Feature::OidcIssuer));
        assert!(!has(&body, Feature::WorkloadIdentity));
        assert_eq!(
            body["properties"]["securityProfile"],
            modern()["properties"]["securityProfile"]
        );
    }

    #[test]
    fn a_security_profile_that_is_null_or_absent_is_made() {
        for profile in [Value::Null, json!({})] {
            let mut cluster = modern();
            cluster["properties"]["securityProfile"] = profile;
            let body = enabling(cluster, &BTreeSet::from([Feature::WorkloadIdentity]));
            assert_eq!(
                body["properties"]["securityProfile"],
                json!({"workloadIdentity": {"enabled": true}})
            );
        }
    }

    #[test]
    fn a_cluster_is_observed() {
        let mut cluster = modern();
        let seen = observe(&cluster).unwrap();
        assert_eq!(seen.issuer, None);
        assert!(!seen.workload_identity);
        assert_eq!(seen.etag.as_deref(), Some("1f0c5a4e"));
        assert_eq!(seen.kubernetes_version.as_deref(), Some("1.33.2"));
        assert_eq!(seen.private_fqdn, None);
        assert_eq!(seen.pod_identity, None);

        let issuer = "https://westeurope.oic.prod-aks.azure.com/t/u/";
        cluster["properties"]["oidcIssuerProfile"] = json!({"enabled": true, "issuerURL": issuer});
        cluster["properties"]["podIdentityProfile"] =
            json!({"enabled": true, "userAssignedIdentities": [{"name": "a", "namespace": "n"}]});
        let seen = observe(&cluster).unwrap();
        assert_eq!(seen.issuer.unwrap().as_str(), issuer);
        assert_eq!(seen.pod_identity.unwrap().identities, ["n/a"]);
    }
}
