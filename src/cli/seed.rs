//! What the sandbox's world begins with, out of the configuration: clusters, namespaces, a
//! controller for each workload, what its grants name; nothing of the chain.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    model::{
        ArmId, ClusterName,
        desired::{DesiredState, DesiredWorkload, Feature, PodSelection},
    },
    sandbox::{ClusterRef, Seed, SeedCluster, SeedDeployment},
};

/// The seed of a configuration. Seeding again adds what later edits of the file bring.
pub(super) fn of(desired: &DesiredState) -> Seed {
    let mut clusters: BTreeMap<&ClusterName, SeedCluster> = BTreeMap::new();
    for cluster in desired.clusters.values() {
        // What the file may enable is off at first; what it may not would block for ever.
        let on = |feature| !cluster.enable.contains(&feature);
        let seed = SeedCluster {
            cluster: ClusterRef {
                name: cluster.name.to_string(),
                id: cluster.id.as_str().to_owned(),
            },
            location: desired.home.location.clone(),
            oidc_issuer: on(Feature::OidcIssuer),
            workload_identity: on(Feature::WorkloadIdentity) && on(Feature::OidcIssuer),
            entra: false,
            namespaces: Vec::new(),
            deployments: Vec::new(),
            objects: Vec::new(),
        };
        clusters.insert(&cluster.name, seed);
    }
    for workload in &desired.workloads {
        for name in &workload.clusters {
            if let Some(cluster) = clusters.get_mut(name) {
                cluster.namespaces.push(workload.namespace.to_string());
                controllers(workload, cluster);
            }
        }
    }
    for cluster in clusters.values_mut() {
        cluster.namespaces.sort_unstable();
        cluster.namespaces.dedup();
    }
    let scopes: BTreeSet<&ArmId> = desired.assignments.iter().map(|a| &a.scope).collect();
    let is_resource = |scope: &ArmId| scope.resource_type().is_some();
    let subscription = ArmId::of_subscription(desired.home.subscription);
    let mut groups = vec![
        subscription.child("resourceGroups", &desired.home.resource_group).as_str().to_owned(),
    ];
    let wider = scopes.iter().filter(|scope| !is_resource(scope));
    groups.extend(wider.filter(|scope| scope.resource_group().is_some()).map(ToString::to_string));
    Seed {
        location: desired.home.location.clone(),
        clusters: clusters.into_values().collect(),
        resource_groups: groups,
        targets: scopes.iter().filter(|s| is_resource(s)).map(ToString::to_string).collect(),
        identities: Vec::new(),
        pod_identity: Vec::new(),
    }
}

/// A Deployment with the account's name, or the controllers that the file names.
fn controllers(workload: &DesiredWorkload, cluster: &mut SeedCluster) {
    let deployment = |name: &str| SeedDeployment {
        namespace: workload.namespace.to_string(),
        name: name.to_owned(),
        service_account: workload.account.to_string(),
        replicas: 1,
        labels: BTreeMap::new(),
    };
    match &workload.pods {
        PodSelection::All => cluster.deployments.push(deployment(workload.account.as_str())),
        PodSelection::Named(names) => {
            for named in names {
                match named.split_once('/') {
                    Some(("deployment", name)) => cluster.deployments.push(deployment(name)),
                    Some((kind, name)) => cluster.objects.extend(object(kind, name, workload)),
                    None => {}
                }
            }
        }
    }
}

/// A controller of another kind; nothing for kinds that only a cluster with extensions has.
fn object(kind: &str, name: &str, workload: &DesiredWorkload) -> Option<Value> {
    let labels = json!({ "app": name });
    let template = json!({
        "metadata": { "labels": labels },
        "spec": {
            "serviceAccountName": workload.account.as_str(),
            "containers": [{ "name": "app", "image": "registry.example/app:1" }],
        },
    });
    let spec = json!({ "selector": { "matchLabels": labels }, "template": template });
    let (api_version, kind, spec) = match kind {
        "statefulset" => {
            let mut spec = spec;
            spec["serviceName"] = json!(name);
            spec["replicas"] = json!(1);
            ("apps/v1", "StatefulSet", spec)
        }
        "daemonset" => ("apps/v1", "DaemonSet", spec),
        "cronjob" => {
            let mut template = template;
            template["spec"]["restartPolicy"] = json!("Never");
            let job = json!({ "spec": { "template": template } });
            ("batch/v1", "CronJob", json!({ "schedule": "0 3 * * *", "jobTemplate": job }))
        }
        _ => return None,
    };
    Some(json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": { "name": name, "namespace": workload.namespace.as_str() },
        "spec": spec,
    }))
}
