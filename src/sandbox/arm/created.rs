//! What the container service fills into a cluster that a client makes (recorded).

use serde_json::{Value, json};

/// Completes the properties of a new cluster: versions, pools, network, storage; drops what the
/// service does not show of a request. `had` are those of a cluster that is complete.
pub(super) fn fill(properties: &mut Value, had: &Value) {
    let version = had["kubernetesVersion"].clone();
    default(properties, "kubernetesVersion", &version);
    properties["currentKubernetesVersion"] = version.clone();
    for name in ["enableRBAC", "disableLocalAccounts", "supportPlan"] {
        default(properties, name, &had[name]);
    }
    default(properties, "storageProfile", &json!({}));
    default(properties, "workloadAutoScalerProfile", &json!({}));
    let drivers = &mut properties["storageProfile"];
    for name in ["diskCSIDriver", "fileCSIDriver", "snapshotController"] {
        default(drivers, name, &json!({ "enabled": true }));
    }
    if properties["addonProfiles"].as_object().is_some_and(serde_json::Map::is_empty) {
        remove(properties, "addonProfiles");
    }
    network(properties);
    for pool in properties["agentPoolProfiles"].as_array_mut().into_iter().flatten() {
        fill_pool(pool, &version);
    }
    // A cluster of its own settings: the identity of its nodes is made with them.
    default(properties, "identityProfile", &had["identityProfile"]);
}

fn network(properties: &mut Value) {
    default(properties, "networkProfile", &json!({ "networkPlugin": "kubenet" }));
    let network = &mut properties["networkProfile"];
    for (name, value) in [
        ("loadBalancerSku", "standard"),
        ("podCidr", "10.244.0.0/16"),
        ("serviceCidr", "10.0.0.0/16"),
        ("dnsServiceIP", "10.0.0.10"),
        ("outboundType", "loadBalancer"),
    ] {
        default(network, name, &value.into());
    }
    for (many, one) in [("podCidrs", "podCidr"), ("serviceCidrs", "serviceCidr")] {
        let value = json!([network[one]]);
        default(network, many, &value);
    }
    default(network, "ipFamilies", &json!(["IPv4"]));
    default(network, "loadBalancerProfile", &json!({ "managedOutboundIPs": { "count": 1 } }));
}

fn fill_pool(pool: &mut Value, version: &Value) {
    // Zero stands for the default size of the machine.
    if pool["osDiskSizeGB"] == 0 {
        pool["osDiskSizeGB"] = 128.into();
    }
    if pool["orchestratorVersion"] == "" {
        remove(pool, "orchestratorVersion");
    }
    for (name, value) in [
        ("count", json!(1)),
        ("osDiskSizeGB", json!(128)),
        ("osDiskType", json!("Managed")),
        ("kubeletDiskType", json!("OS")),
        ("maxPods", json!(110)),
        ("type", json!("VirtualMachineScaleSets")),
        ("enableAutoScaling", json!(false)),
        ("powerState", json!({ "code": "Running" })),
        ("orchestratorVersion", version.clone()),
        ("currentOrchestratorVersion", version.clone()),
        ("enableNodePublicIP", json!(false)),
        ("mode", json!("System")),
        ("enableEncryptionAtHost", json!(false)),
        ("enableUltraSSD", json!(false)),
        ("osType", json!("Linux")),
        ("osSKU", json!("Ubuntu")),
        ("nodeImageVersion", json!("AKSUbuntu-2204gen2containerd-202510.19.0")),
        ("upgradeSettings", json!({})),
        ("enableFIPS", json!(false)),
    ] {
        default(pool, name, &value);
    }
    // Shown of spot pools only, and of pools that have some.
    if pool["scaleSetPriority"] == "Regular" {
        for name in ["scaleSetPriority", "scaleSetEvictionPolicy", "spotMaxPrice"] {
            remove(pool, name);
        }
    }
    if pool["nodeTaints"].as_array().is_some_and(Vec::is_empty) {
        remove(pool, "nodeTaints");
    }
}

fn default(object: &mut Value, name: &str, value: &Value) {
    if object.get(name).is_none_or(|old| old.is_null() || old == "") {
        object[name] = value.clone();
    }
}

fn remove(object: &mut Value, name: &str) {
    object.as_object_mut().map(|object| object.remove(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_leaves_open_is_filled_and_what_it_says_stays() {
        let mut properties = json!({
            "kubernetesVersion": "", "addonProfiles": {},
            "agentPoolProfiles": [{ "name": "one", "count": 3, "osDiskSizeGB": 0,
                                    "scaleSetPriority": "Regular", "spotMaxPrice": -1.0 }],
            "networkProfile": { "podCidr": "10.9.0.0/16" },
        });
        fill(&mut properties, &json!({ "kubernetesVersion": "1.33.5", "enableRBAC": true }));
        let pool = &properties["agentPoolProfiles"][0];
        assert_eq!((&pool["count"], &pool["osDiskSizeGB"]), (&json!(3), &json!(128)));
        assert_eq!(pool["orchestratorVersion"], "1.33.5");
        assert!(pool.get("spotMaxPrice").is_none());
        assert!(properties.get("addonProfiles").is_none());
        assert_eq!(properties["networkProfile"]["podCidrs"], json!(["10.9.0.0/16"]));
    }
}
