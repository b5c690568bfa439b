//! What a world begins with. Seeding again adds what is missing and removes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    arm,
    clusters::{self, NewCluster},
    context::{ClusterRef, Context},
    roles,
    store::{Guard, Write},
};

/// Everything that a world should have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seed {
    /// Region of groups and targets that name none; `westeurope` if empty.
    pub location: String,
    /// Clusters, each with what runs in it.
    pub clusters: Vec<SeedCluster>,
    /// Resource groups as ids, `/subscriptions/{s}/resourceGroups/{g}`.
    pub resource_groups: Vec<String>,
    /// Ids of the resources that workloads are granted access to.
    pub targets: Vec<String>,
    /// User-assigned identities that have been there for long.
    pub identities: Vec<SeedIdentity>,
    /// What AAD Pod Identity's documentation makes people set up in Azure.
    pub pod_identity: Vec<SeedPodIdentity>,
}

/// What AAD Pod Identity finds in Azure: a scale set of nodes with identities on it, and the roles
/// by which the nodes' identity puts them there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedPodIdentity {
    /// The id of a cluster of the seed.
    pub cluster: String,
    /// The ids of identities of the seed.
    pub identities: Vec<String>,
}

/// A user-assigned identity of the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedIdentity {
    /// Its id.
    pub id: String,
    /// Its client id, which objects of the seed may name.
    pub client_id: String,
}

/// A cluster of the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedCluster {
    /// Name and ARM id.
    #[serde(flatten)]
    pub cluster: ClusterRef,
    /// The region; the seed's if empty.
    #[serde(default)]
    pub location: String,
    /// Whether the OIDC issuer is on from the start.
    #[serde(default)]
    pub oidc_issuer: bool,
    /// Whether the workload identity add-on is on from the start; turns the issuer on too.
    #[serde(default)]
    pub workload_identity: bool,
    /// Whether people sign in with Entra.
    #[serde(default)]
    pub entra: bool,
    /// Namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Deployments.
    #[serde(default)]
    pub deployments: Vec<SeedDeployment>,
    /// Further Kubernetes objects, complete with `apiVersion`, `kind` and `metadata`.
    #[serde(default)]
    pub objects: Vec<Value>,
}

/// A Deployment of the seed: one container, no identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedDeployment {
    /// Namespace; made if it is not listed.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The account that its pods run as. It is not made: that is part of the chain.
    pub service_account: String,
    /// Pods.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Labels of Deployment and pods, besides `app`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl Seed {
    /// Adds the Azure side to the world: subscriptions, groups, clusters, targets.
    pub fn apply(&self, ctx: &Context) -> std::io::Result<()> {
        let region = if self.location.is_empty() { "westeurope" } else { &self.location };
        let mut world = ctx.store.lock();
        let mut adding = Adding { world: &mut world, writes: Vec::new() };
        adding.subscription(&ctx.settings.subscription.to_string());
        for cluster in &self.clusters {
            let location = if cluster.location.is_empty() { region } else { &cluster.location };
            adding.containers(&cluster.cluster.id, location);
            let new = NewCluster {
                cluster: &cluster.cluster,
                location,
                oidc_issuer: cluster.oidc_issuer || cluster.workload_identity,
                workload_identity: cluster.workload_identity,
                entra: cluster.entra,
            };
            let key = format!("arm/{}", cluster.cluster.key());
            if adding.world.get(&key).is_none() {
                let record = clusters::record(ctx, &new);
                adding.writes.push(clusters::issuer_entry(&record));
                adding.writes.push(Write::put(key, record));
            }
        }
        for id in &self.resource_groups {
            adding.containers(id, region);
        }
        for id in &self.targets {
            adding.containers(id, region);
            adding.target(ctx, id, region);
        }
        for identity in &self.identities {
            adding.containers(&identity.id, region);
            adding.identity(ctx, identity, region);
        }
        for nodes in &self.pod_identity {
            adding.nodes(ctx, nodes, region);
        }
        let writes = std::mem::take(&mut adding.writes);
        if !writes.is_empty() {
            world.commit(writes)?;
        }
        Ok(())
    }
}

impl SeedCluster {
    /// The Kubernetes objects of the seed, in the order in which they can be made.
    pub fn kubernetes_objects(&self) -> Vec<Value> {
        let mut namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        namespaces.extend(self.deployments.iter().map(|deployment| deployment.namespace.as_str()));
        namespaces.sort_unstable();
        namespaces.dedup();
        let namespaces = namespaces.into_iter().map(
            |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
        );
        let deployments = self.deployments.iter().map(SeedDeployment::object);
        namespaces.chain(deployments).chain(self.objects.iter().cloned()).collect()
    }
}

impl SeedDeployment {
    fn object(&self) -> Value {
        let mut labels = self.labels.clone();
        labels.insert("app".to_owned(), self.name.clone());
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": labels },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": { "app": self.name } },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "serviceAccountName": self.service_account,
                        "containers": [{
                            "name": "app",
                            "image": format!("registry.example/{}:1.0", self.name),
                        }],
                    },
                },
            },
        })
    }
}

struct Adding<'a, 'b> {
    world: &'a mut Guard<'b>,
    writes: Vec<Write>,
}

impl Adding<'_, '_> {
    fn absent(&self, key: &str) -> bool {
        self.world.get(key).is_none() && !self.writes.iter().any(|write| write.key == key)
    }

    fn subscription(&mut self, id: &str) {
        let key = format!("arm/subscriptions/{}", id.to_lowercase());
        if self.absent(&key) {
            let name = format!("Sandbox {}", id.get(..8).unwrap_or(id));
            self.writes.push(Write::put(key, json!({ "id": id, "name": name })));
        }
    }

    /// The subscription and resource group in which an id lies.
    fn containers(&mut self, id: &str, location: &str) {
        let parts: Vec<&str> = id.trim_matches('/').split('/').collect();
        if let [kind, subscription, ..] = parts.as_slice()
            && kind.eq_ignore_ascii_case("subscriptions")
        {
            self.subscription(subscription);
            if let [_, _, groups, group, ..] = parts.as_slice()
                && groups.eq_ignore_ascii_case("resourceGroups")
            {
                let key = format!("arm/{}", parts[..4].join("/").to_lowercase());
                if self.absent(&key) {
                    let doc = arm::group_doc(subscription, group, location);
                    self.writes.push(Write::put(key, doc));
                }
            }
        }
    }

    fn identity(&mut self, ctx: &Context, seed: &SeedIdentity, location: &str) {
        let (id, client) = (&seed.id, &seed.client_id);
        let key = format!("arm/{}", id.trim_matches('/').to_lowercase());
        if !self.absent(&key) {
            return;
        }
        let name = id.rsplit('/').next().unwrap_or_default();
        let principal = ctx.ids.guid();
        let doc = json!({
            "id": id, "name": name, "location": location, "tags": {}, "created_ms": 0,
            "tenantId": ctx.settings.tenant, "principalId": principal, "clientId": client,
        });
        self.writes.push(Write::put(key, doc));
        let service = json!({
            "type": "ServicePrincipal", "name": name, "client_id": client, "identity": id,
            "created_ms": 0,
        });
        self.writes.push(Write::put(format!("principals/{principal}"), service));
        let app = json!({ "principal": principal, "name": name, "identity": id });
        self.writes.push(Write::put(format!("apps/{client}"), app));
    }

    /// A document, there already or added by this seed.
    fn doc(&self, key: &str) -> Option<Value> {
        let added = self.writes.iter().rev().find(|write| write.key == key);
        let added = added.and_then(|write| Some(write.value.as_ref()?.value()));
        added.or_else(|| self.world.get(key).map(|doc| (*doc).clone()))
    }

    /// The scale set of a cluster's nodes with the kubelet identity and others on it, and the roles
    /// of the kubelet identity.
    fn nodes(&mut self, ctx: &Context, seed: &SeedPodIdentity, location: &str) {
        const OPERATOR: &str = "f1a07417-d97a-45cb-824c-7a7467783830";
        const CONTRIBUTOR: &str = "9980e02c-c2be-4d73-94e8-173b1dc7cf3c";
        let key = format!("arm/{}", seed.cluster.trim_matches('/').to_lowercase());
        let Some(cluster) = self.doc(&key) else { return };
        let parts: Vec<&str> = seed.cluster.trim_matches('/').split('/').collect();
        let [_, subscription, ..] = parts.as_slice() else { return };
        let nodes = cluster["properties"]["nodeResourceGroup"].as_str().unwrap_or_default();
        let group = format!("subscriptions/{subscription}/resourceGroups/{nodes}");
        self.containers(&group, location);
        let name = "aks-system-12345678-vmss";
        let id = format!("{group}/providers/Microsoft.Compute/virtualMachineScaleSets/{name}");
        let key = format!("arm/{}", id.to_lowercase());
        if !self.absent(&key) {
            return;
        }
        let kubelet = &cluster["properties"]["identityProfile"]["kubeletidentity"];
        let principal = kubelet["objectId"].as_str().unwrap_or_default().to_owned();
        let mut on = json!({});
        let acts = json!({ "principalId": principal, "clientId": kubelet["clientId"] });
        on[kubelet["resourceId"].as_str().unwrap_or_default()] = acts;
        let mut grants = vec![(group.clone(), CONTRIBUTOR), (group, OPERATOR)];
        for id in &seed.identities {
            let scope = id.trim_matches('/');
            let Some(identity) = self.doc(&format!("arm/{}", scope.to_lowercase())) else {
                continue;
            };
            on[id.as_str()] = json!({
                "principalId": identity["principalId"], "clientId": identity["clientId"],
            });
            grants.push((scope.to_owned(), OPERATOR));
        }
        self.writes.push(Write::put(
            key,
            json!({
                "id": format!("/{id}"), "name": name, "type": "Microsoft.Compute/virtualMachineScaleSets",
                "location": location, "tags": {}, "etag": format!("\"{}\"", ctx.ids.guid().simple()),
                "sku": { "name": "Standard_D4ds_v5", "tier": "Standard", "capacity": 3 },
                "identity": { "type": "UserAssigned", "userAssignedIdentities": on },
                "properties": { "upgradePolicy": { "mode": "Manual" }, "singlePlacementGroup": true },
            }),
        ));
        let known = json!({
            "type": "ServicePrincipal", "name": "agentpool", "client_id": kubelet["clientId"],
            "identity": kubelet["resourceId"], "created_ms": 0,
        });
        self.writes.push(Write::put(format!("principals/{principal}"), known));
        for (scope, role) in grants {
            let name = ctx.ids.guid();
            let doc = json!({
                "name": name, "scope": scope, "role": role, "principalId": principal,
                "principalType": "ServicePrincipal", "created_ms": 0, "updated_ms": 0,
                "since_ms": 0, "createdBy": null, "updatedBy": null, "condition": null,
                "conditionVersion": null, "delegatedManagedIdentityResourceId": null,
                "description": null,
            });
            self.writes.push(Write::put(format!("{}{name}", roles::ASSIGNMENTS), doc));
        }
    }

    /// The resource of an id, or the one around it when the id names a part such as a secret.
    fn target(&mut self, ctx: &Context, id: &str, location: &str) {
        let parts: Vec<&str> = id.trim_matches('/').split('/').collect();
        let [_, _, _, _, providers, namespace, kind, name, ..] = parts.as_slice() else { return };
        if !providers.eq_ignore_ascii_case("providers") {
            return;
        }
        let key = format!("arm/{}", parts[..8].join("/").to_lowercase());
        if !self.absent(&key) {
            return;
        }
        let full = format!("{namespace}/{kind}");
        let mut doc = json!({
            "id": format!("/{}", parts[..8].join("/")), "name": name, "type": full,
            "location": location, "tags": {}, "properties": { "provisioningState": "Succeeded" },
        });
        match full.to_lowercase().as_str() {
            "microsoft.keyvault/vaults" => {
                doc["properties"] = json!({
                    "provisioningState": "Succeeded", "tenantId": ctx.settings.tenant,
                    "sku": { "family": "A", "name": "standard" }, "accessPolicies": [],
                    "enableRbacAuthorization": true, "enableSoftDelete": true,
                    "softDeleteRetentionInDays": 90, "enablePurgeProtection": true,
                    "publicNetworkAccess": "Enabled",
                });
                doc["secrets"] = json!({ "example": "not a secret: made by the sandbox" });
            }
            "microsoft.storage/storageaccounts" => {
                doc["kind"] = "StorageV2".into();
                doc["sku"] = json!({ "name": "Standard_LRS", "tier": "Standard" });
                doc["properties"]["allowSharedKeyAccess"] = false.into();
                doc["containers"] = json!(["example"]);
            }
            "microsoft.appconfiguration/configurationstores" => {
                doc["properties"]["publicNetworkAccess"] = "Enabled".into();
                doc["keys"] = json!({ "example": "made by the sandbox" });
            }
            _ => {}
        }
        self.writes.push(Write::put(key, doc));
    }
}
