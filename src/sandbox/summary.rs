//! What a world is, as a plain object for `sandbox show`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    clusters,
    context::Context,
    roles,
    store::{Guard, Store},
};

/// Where pods of workloads are stamped from: what keys of such objects hold, and where the template is.
const WORKLOADS: [(&str, &str); 6] = [
    ("/apps/deployments/", "/spec/template"),
    ("/apps/statefulsets/", "/spec/template"),
    ("/apps/daemonsets/", "/spec/template"),
    ("/argoproj.io/rollouts/", "/spec/template"),
    ("/batch/cronjobs/", "/spec/jobTemplate/spec/template"),
    ("/batch/jobs/", "/spec/template"),
];

/// `{tenant, revision, clusters, identities, resources, other_assignments}`:
///
/// - clusters: `{name, id, kubernetes_version, oidc_issuer, workload_identity, webhook_down,
///   namespaces: [{name, workloads: [{kind, name, service_account, replicas, ready}]}], objects}`
///   with the number of Kubernetes objects of each kind; `replicas` is null where a kind has none;
/// - identities: `{name, id, client_id, principal_id, credentials: [{name, issuer, subject}],
///   roles: [{role, scope}]}`;
/// - resources: the ids of what roles can be granted on;
/// - `other_assignments`: how many role assignments belong to no identity of the world.
pub fn of(store: &Store) -> Value {
    let world = store.lock();
    let mut identities: BTreeMap<String, Value> = BTreeMap::new();
    let mut resources = Vec::new();
    let clusters: Vec<Value> =
        clusters::all(&world).iter().map(|(key, doc)| cluster(&world, key, doc)).collect();
    for (key, doc) in world.range("arm/subscriptions/", "") {
        let parts: Vec<&str> = key.split('/').collect();
        let doc = doc.value();
        match parts.as_slice() {
            [.., "managedclusters", _] => {}
            [.., "userassignedidentities", _] if parts.len() == 9 => {
                let identity = json!({
                    "name": doc["name"], "id": doc["id"], "client_id": doc["clientId"],
                    "principal_id": doc["principalId"], "credentials": [], "roles": [],
                });
                identities.insert(key.to_owned(), identity);
            }
            [.., "federatedidentitycredentials", _] if parts.len() == 11 => {
                let credential = json!({
                    "name": doc["name"], "issuer": doc["issuer"], "subject": doc["subject"],
                });
                // Keys are sorted: the identity came before.
                push(identities.get_mut(&parts[..9].join("/")), "credentials", credential);
            }
            _ if parts.len() >= 9 => resources.push(doc["id"].clone()),
            _ => {}
        }
    }
    let mut holders: BTreeMap<String, &mut Value> = identities
        .values_mut()
        .filter_map(|identity| Some((identity["principal_id"].as_str()?.to_owned(), identity)))
        .collect();
    let mut other = 0;
    for (_, doc) in world.range(roles::ASSIGNMENTS, "") {
        let doc = doc.value();
        let holder = holders.get_mut(doc["principalId"].as_str().unwrap_or_default());
        if holder.is_none() {
            other += 1;
        }
        let role = doc["role"].as_str().unwrap_or_default();
        let known = roles::BUILT_IN.iter().find(|known| known.id.eq_ignore_ascii_case(role));
        let custom = world.get(&format!("{}{role}", roles::CUSTOM));
        let custom = custom.as_ref().and_then(|doc| doc["roleName"].as_str());
        let role = known.map(|known| known.name).or(custom).unwrap_or(role);
        let scope = format!("/{}", doc["scope"].as_str().unwrap_or_default());
        push(holder.map(|holder| &mut **holder), "roles", json!({ "role": role, "scope": scope }));
    }
    let tenant = world.get("world").map_or(Value::Null, |doc| doc["tenant"].clone());
    json!({
        "tenant": tenant, "revision": world.revision(), "clusters": clusters,
        "identities": identities.into_values().collect::<Vec<_>>(), "resources": resources,
        "other_assignments": other,
    })
}

/// [`of`], and how the world behaves while it is served: `limits` (whether the published throttles
/// answer), `random_faults`, `faults: [{rule, seen}]`.
pub(super) fn served(ctx: &Context) -> Value {
    let mut world = of(&ctx.store);
    let rules = ctx.faults.list().into_iter();
    world["limits"] = ctx.settings.limits.into();
    world["random_faults"] = ctx.faults.are_random().into();
    world["faults"] = rules.map(|(rule, seen)| json!({ "rule": rule, "seen": seen })).collect();
    world
}

fn push(into: Option<&mut Value>, list: &str, item: Value) {
    if let Some(list) = into.and_then(|into| into[list].as_array_mut()) {
        list.push(item);
    }
}

fn cluster(world: &Guard<'_>, key: &str, doc: &Value) -> Value {
    let properties = &doc["properties"];
    let prefix = format!("kube/{}/", key.trim_start_matches("arm/"));
    let mut objects: BTreeMap<&str, usize> = BTreeMap::new();
    let mut namespaces: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (key, doc) in world.range(&prefix, "") {
        let parts: Vec<&str> = key[prefix.len()..].split('/').collect();
        // The cluster's own notes begin with a tilde.
        let [group, kind, namespace, name] = parts.as_slice() else { continue };
        if group.starts_with('~') {
            continue;
        }
        *objects.entry(kind).or_insert(0) += 1;
        if (*group, *kind) == ("core", "namespaces") {
            namespaces.entry(name).or_default();
        }
        let found = WORKLOADS.iter().find(|(kind, _)| key[prefix.len() - 1..].starts_with(kind));
        if let Some((_, template)) = found {
            let object = doc.value();
            let owned = &object["metadata"]["ownerReferences"];
            if owned.as_array().is_none_or(Vec::is_empty) {
                namespaces.entry(namespace).or_default().push(workload(&object, template));
            }
        }
    }
    let namespaces: Vec<Value> = namespaces
        .into_iter()
        .map(|(name, workloads)| json!({ "name": name, "workloads": workloads }))
        .collect();
    let options = world.get(&format!("{prefix}~options"));
    json!({
        "name": doc["cluster"], "id": doc["id"],
        "kubernetes_version": properties["currentKubernetesVersion"],
        "oidc_issuer": properties["oidcIssuerProfile"]["issuerURL"],
        "workload_identity": properties["securityProfile"]["workloadIdentity"]["enabled"] == true,
        "webhook_down": options.is_some_and(|options| options["webhook_down"] == true),
        "namespaces": namespaces, "objects": objects,
    })
}

fn workload(object: &Value, template: &str) -> Value {
    let status = &object["status"];
    let (replicas, ready) = if object["kind"] == "DaemonSet" {
        (&status["desiredNumberScheduled"], &status["numberReady"])
    } else {
        (&object["spec"]["replicas"], &status["readyReplicas"])
    };
    let template = object.pointer(template).unwrap_or(&Value::Null);
    let account = template["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    json!({
        "kind": object["kind"], "name": object["metadata"]["name"], "service_account": account,
        "replicas": replicas, "ready": ready.as_u64().unwrap_or(0),
    })
}
