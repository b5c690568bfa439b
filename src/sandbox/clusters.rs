//! The record of a cluster: what a new one has, and what is going on with it.
//!
//! The record is kept at `arm/<cluster id>`:
//! `{id, name, location, tags, identity, sku, properties, issuer, cluster, etag, operation,
//! external}`. `cluster` is the name that configuration and kubeconfigs use.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    context::{ClusterRef, Context},
    store::{Guard, Write},
};

/// The records of all clusters with their keys, also of those whose deletion has ended.
pub(super) fn all(world: &Guard<'_>) -> Vec<(String, Arc<Value>)> {
    world.select("arm/subscriptions/", |key, _| {
        let parts: Vec<&str> = key.split('/').collect();
        parts.len() == 9 && parts[7] == "managedclusters"
    })
}

/// The operation of a record that has not ended at `now`, in milliseconds.
pub(super) fn under_way(doc: &Value, now: i64) -> Option<&Value> {
    let operation = doc.get("operation").filter(|operation| operation.is_object())?;
    (operation["end_ms"].as_i64().unwrap_or(0) > now).then_some(operation)
}

/// Whether a deletion has ended and the record only waits to be swept.
pub(super) fn gone(doc: &Value, now: i64) -> bool {
    doc["operation"]["kind"] == "delete" && under_way(doc, now).is_none()
}

/// What a new cluster is made with.
#[derive(Debug, Clone)]
pub struct NewCluster<'a> {
    /// Its name and id.
    pub cluster: &'a ClusterRef,
    /// The region.
    pub location: &'a str,
    /// Whether its OIDC issuer is on from the start.
    pub oidc_issuer: bool,
    /// Whether its workload identity webhook is on from the start.
    pub workload_identity: bool,
    /// Whether people sign in with Entra.
    pub entra: bool,
}

/// The record of a new cluster, with many settings that a current api-version returns, so that a
/// client that drops what it does not know is found out.
pub fn record(ctx: &Context, new: &NewCluster<'_>) -> Value {
    let parts: Vec<&str> = new.cluster.id.trim_matches('/').split('/').collect();
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    let (subscription, group, name) = (part(1), part(3), part(7));
    let location = new.location;
    let (tenant, version) = (ctx.settings.tenant, &ctx.settings.kubernetes_version);
    let hash = hex(&new.cluster.key())[..8].to_owned();
    let host = format!("{}-{hash}", name.chars().take(40).collect::<String>().to_lowercase());
    let issuer = format!("https://{location}.oic.prod-aks.azure.com/{tenant}/{}/", ctx.ids.guid());
    let nodes = format!("MC_{group}_{name}_{location}");
    let pool = |pool: &str, mode: &str, count: u32| {
        json!({
            "name": pool, "count": count, "vmSize": "Standard_D4ds_v5", "osDiskSizeGB": 150,
            "osDiskType": "Ephemeral", "kubeletDiskType": "OS", "workloadRuntime": "OCIContainer",
            "maxPods": 250, "type": "VirtualMachineScaleSets", "enableAutoScaling": true,
            "minCount": 1, "maxCount": 5, "scaleDownMode": "Delete",
            "availabilityZones": ["1", "2", "3"], "provisioningState": "Succeeded",
            "powerState": { "code": "Running" }, "orchestratorVersion": version,
            "currentOrchestratorVersion": version, "enableNodePublicIP": false,
            "nodeLabels": { "team": "platform" }, "nodeTaints": null, "mode": mode,
            "enableEncryptionAtHost": false, "enableUltraSSD": false, "osType": "Linux",
            "osSKU": "AzureLinux", "nodeImageVersion": "AKSAzureLinux-V3gen2-202510.19.0",
            "upgradeSettings": { "maxSurge": "10%", "maxUnavailable": "0" },
            "enableFIPS": false, "networkProfile": { "allowedHostPorts": null },
            "securityProfile": {
                "enableVTPM": false, "enableSecureBoot": false, "sshAccess": "LocalUser",
            },
            "eTag": ctx.ids.guid(),
        })
    };
    let mut properties = json!({
        "provisioningState": "Succeeded",
        "powerState": { "code": "Running" },
        "kubernetesVersion": version,
        "currentKubernetesVersion": version,
        "dnsPrefix": host,
        "fqdn": format!("{host}.hcp.{location}.azmk8s.io"),
        "azurePortalFQDN": format!("{host}.portal.hcp.{location}.azmk8s.io"),
        "agentPoolProfiles": [pool("system", "System", 3), pool("user", "User", 2)],
        "linuxProfile": {
            "adminUsername": "azureuser",
            "ssh": { "publicKeys": [{ "keyData": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC sandbox" }] },
        },
        "servicePrincipalProfile": { "clientId": "msi" },
        "addonProfiles": {
            "azureKeyvaultSecretsProvider": {
                "enabled": true,
                "config": { "enableSecretRotation": "true", "rotationPollInterval": "2m" },
            },
            "azurepolicy": { "enabled": true, "config": null },
        },
        "nodeResourceGroup": nodes,
        "enableRBAC": true,
        "supportPlan": "KubernetesOfficial",
        "networkProfile": {
            "networkPlugin": "azure", "networkPluginMode": "overlay", "networkPolicy": "cilium",
            "networkDataplane": "cilium", "loadBalancerSku": "standard",
            "loadBalancerProfile": {
                "managedOutboundIPs": { "count": 1 }, "backendPoolType": "nodeIPConfiguration",
            },
            "podCidr": "10.244.0.0/16", "serviceCidr": "10.0.0.0/16", "dnsServiceIP": "10.0.0.10",
            "outboundType": "loadBalancer", "podCidrs": ["10.244.0.0/16"],
            "serviceCidrs": ["10.0.0.0/16"], "ipFamilies": ["IPv4"],
            "podLinkLocalAccess": "IMDS",
            "advancedNetworking": {
                "enabled": true, "observability": { "enabled": true },
                "security": { "enabled": true, "advancedNetworkPolicies": "FQDN" },
            },
        },
        "maxAgentPools": 100,
        "identityProfile": { "kubeletidentity": {
            "resourceId": format!(
                "/subscriptions/{subscription}/resourcegroups/{nodes}/providers/Microsoft.\
                 ManagedIdentity/userAssignedIdentities/{name}-agentpool"
            ),
            "clientId": ctx.ids.guid(), "objectId": ctx.ids.guid(),
        }},
        "autoScalerProfile": {
            "balance-similar-node-groups": "true", "expander": "least-waste",
            "max-empty-bulk-delete": "10", "scan-interval": "10s",
        },
        "autoUpgradeProfile": { "upgradeChannel": "stable", "nodeOSUpgradeChannel": "NodeImage" },
        "apiServerAccessProfile": { "authorizedIPRanges": null, "enableVnetIntegration": false },
        "disableLocalAccounts": false,
        "securityProfile": {
            "defender": null,
            "imageCleaner": { "enabled": true, "intervalHours": 168 },
            "imageIntegrity": null,
        },
        "storageProfile": {
            "diskCSIDriver": { "enabled": true }, "fileCSIDriver": { "enabled": true },
            "snapshotController": { "enabled": true }, "blobCSIDriver": { "enabled": true },
        },
        "ingressProfile": { "webAppRouting": {
            "enabled": true, "dnsZoneResourceIds": null,
            "nginx": { "defaultIngressControllerType": "AnnotationControlled" },
        }},
        "oidcIssuerProfile": { "enabled": new.oidc_issuer },
        "workloadAutoScalerProfile": { "keda": { "enabled": true }, "verticalPodAutoscaler": null },
        "azureMonitorProfile": { "metrics": { "enabled": true, "kubeStateMetrics": {
            "metricLabelsAllowlist": "", "metricAnnotationsAllowList": "",
        }}},
        "metricsProfile": { "costAnalysis": { "enabled": true } },
        "nodeProvisioningProfile": { "mode": "Manual", "defaultNodePools": "Auto" },
        "bootstrapProfile": { "artifactSource": "Direct", "containerRegistryId": null },
        "serviceMeshProfile": { "mode": "Disabled", "istio": null },
        "resourceUID": hex(&issuer)[..24],
        "windowsProfile": null,
        "httpProxyConfig": null,
    });
    if new.oidc_issuer {
        properties["oidcIssuerProfile"]["issuerURL"] = issuer.clone().into();
    }
    if new.workload_identity {
        properties["securityProfile"]["workloadIdentity"] = json!({ "enabled": true });
    }
    if new.entra {
        properties["aadProfile"] = json!({
            "managed": true, "enableAzureRBAC": true, "adminGroupObjectIDs": null,
            "tenantID": tenant,
        });
    }
    json!({
        "id": format!(
            "/subscriptions/{subscription}/resourcegroups/{group}/providers/Microsoft.\
             ContainerService/managedClusters/{name}"
        ),
        "name": name,
        "location": location,
        "tags": { "Environment": "sandbox" },
        "kind": "Base",
        "identity": {
            "type": "SystemAssigned", "principalId": ctx.ids.guid(), "tenantId": tenant,
            "delegatedResources": null,
        },
        "sku": { "name": "Base", "tier": "Standard" },
        "properties": properties,
        "issuer": issuer,
        "cluster": new.cluster.name,
        "etag": ctx.ids.guid(),
        "operation": null,
    })
}

/// The entry by which the issuer's documents find their cluster.
pub(super) fn issuer_entry(doc: &Value) -> Write {
    let issuer = doc["issuer"].as_str().unwrap_or_default().trim_end_matches('/');
    let id = issuer.rsplit('/').next().unwrap_or_default();
    Write::put(format!("issuers/{id}"), json!({ "cluster": doc["id"] }))
}

fn hex(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}
