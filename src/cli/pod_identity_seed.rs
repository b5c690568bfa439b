//! A world of the sandbox in which the workloads of the configuration live on AAD Pod Identity:
//! MIC, NMI, and for each workload a managed identity, an `AzureIdentity`, a binding, a service
//! account and a labelled pod template. Nothing of workload identity is there.
//!
//! The installation is the one of Azure/aad-pod-identity, `deploy/infra/deployment-rbac.yaml`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::seed;
use crate::{
    model::{
        ArmId,
        desired::{DesiredState, DesiredWorkload, PodSelection},
        pod_identity::BINDING_LABEL,
    },
    sandbox::{Seed, SeedCluster, SeedIdentity, SeedPodIdentity},
};

const GROUP: &str = "aadpodidentity.k8s.io";

/// The seed of such a world.
pub(super) fn of(desired: &DesiredState) -> Seed {
    let mut seed = seed::of(desired);
    let ids: BTreeSet<&ArmId> = desired.workloads.iter().map(|w| &w.identity).collect();
    seed.identities = ids
        .into_iter()
        .map(|id| SeedIdentity { id: id.to_string(), client_id: client(id).to_string() })
        .collect();
    let identities: Vec<String> = seed.identities.iter().map(|known| known.id.clone()).collect();
    for cluster in &mut seed.clusters {
        let here = desired.workloads.iter().filter(|workload| {
            workload.clusters.iter().any(|name| name.as_str() == cluster.cluster.name)
        });
        let here: Vec<&DesiredWorkload> = here.collect();
        if !here.is_empty() {
            fill(cluster, &here);
            let acts: BTreeSet<&str> = here.iter().map(|w| w.identity.as_str()).collect();
            let on = identities.iter().filter(|id| acts.contains(id.as_str())).cloned().collect();
            let cluster = cluster.cluster.id.clone();
            seed.pod_identity.push(SeedPodIdentity { cluster, identities: on });
        }
    }
    seed
}

/// Fixed, so that objects of the cluster can name it.
fn client(id: &ArmId) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, id.key().as_bytes())
}

fn fill(cluster: &mut SeedCluster, workloads: &[&DesiredWorkload]) {
    cluster.deployments.clear();
    cluster.objects = installation();
    for workload in workloads {
        let namespace = workload.namespace.as_str();
        let account = workload.account.as_str();
        cluster.objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": namespace}}));
        let named = match &workload.pods {
            PodSelection::All => BTreeSet::from([format!("deployment/{account}")]),
            PodSelection::Named(named) => named.clone(),
        };
        for key in named {
            if let Some((kind, name)) = key.split_once('/') {
                cluster.objects.extend(controller(kind, name, workload));
            }
        }
        let object = |kind: &str, name: String, spec: Value| {
            json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind,
                "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        };
        let id = &workload.identity;
        let identity = json!({"type": 0, "resourceID": id.as_str(),
            "clientID": client(id).to_string()});
        cluster.objects.push(object("AzureIdentity", account.to_owned(), identity));
        let binding = json!({"azureIdentity": account, "selector": account});
        cluster.objects.push(object("AzureIdentityBinding", format!("{account}-binding"), binding));
    }
}

/// A controller whose pods Pod Identity answers; none for kinds that only a cluster with extensions
/// has.
fn controller(kind: &str, name: &str, workload: &DesiredWorkload) -> Option<Value> {
    let account = workload.account.as_str();
    let probe = json!({"httpGet": {"path": "/ready", "port": 8080}});
    let mut template = json!({
        "metadata": {"labels": {"app": name, BINDING_LABEL: account}},
        "spec": {"serviceAccountName": account, "containers": [
            {"name": "app", "image": "registry.example/app:1", "readinessProbe": probe}]},
    });
    let selector = json!({"matchLabels": {"app": name}});
    let (version, kind, spec) = match kind {
        "deployment" => (
            "apps/v1",
            "Deployment",
            json!({"replicas": 2, "selector": selector, "template": template}),
        ),
        "statefulset" => (
            "apps/v1",
            "StatefulSet",
            json!({"replicas": 2, "serviceName": name, "selector": selector,
                "template": template}),
        ),
        "daemonset" => {
            ("apps/v1", "DaemonSet", json!({"selector": selector, "template": template}))
        }
        "cronjob" => {
            template["spec"]["restartPolicy"] = json!("Never");
            if let Some(container) = template["spec"]["containers"][0].as_object_mut() {
                container.remove("readinessProbe");
            }
            let job = json!({"spec": {"template": template}});
            ("batch/v1", "CronJob", json!({"schedule": "0 3 * * *", "jobTemplate": job}))
        }
        _ => return None,
    };
    Some(json!({"apiVersion": version, "kind": kind,
        "metadata": {"name": name, "namespace": workload.namespace.as_str()}, "spec": spec}))
}

/// Definitions, MIC, NMI and the exception that lets MIC through.
fn installation() -> Vec<Value> {
    let definition = |kind: &str, plural: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{GROUP}")},
            "spec": {"group": GROUP, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(),
                    "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema":
                    {"openAPIV3Schema": {"type": "object",
                        "x-kubernetes-preserve-unknown-fields": true}}}]}})
    };
    let account = |component: &str| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": format!("aad-pod-id-{component}-service-account"),
                "namespace": "default"}})
    };
    let pod = |component: &str, host_network: bool| {
        json!({"metadata": {"labels": {"component": component, "app": component}},
        "spec": {
            "serviceAccountName": format!("aad-pod-id-{component}-service-account"),
            "hostNetwork": host_network,
            "containers": [{"name": component,
                "image": format!("mcr.microsoft.com/oss/azure/aad-pod-identity/{component}:v1.8.17")}],
        }})
    };
    let meta = |name: &str| {
        json!({"name": name, "namespace": "default",
            "labels": {"component": name, "k8s-app": "aad-pod-id"}})
    };
    vec![
        definition("AzureIdentity", "azureidentities"),
        definition("AzureIdentityBinding", "azureidentitybindings"),
        definition("AzureAssignedIdentity", "azureassignedidentities"),
        definition("AzurePodIdentityException", "azurepodidentityexceptions"),
        account("mic"),
        account("nmi"),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("mic"),
            "spec": {"replicas": 2, "selector": {"matchLabels": {"component": "mic"}},
                "template": pod("mic", false)}}),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta("nmi"),
            "spec": {"selector": {"matchLabels": {"component": "nmi"}},
                "template": pod("nmi", true)}}),
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "AzurePodIdentityException",
            "metadata": {"name": "mic-exception", "namespace": "default"},
            "spec": {"podLabels": {"app": "mic", "component": "mic"}}}),
    ]
}
