//! What a world is, as a plain object for `sandbox show`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{roles, store::Store};

/// `{tenant, revision, clusters, identities, resources, other_assignments}`:
///
/// - clusters: `{name, id, oidc_issuer, workload_identity, objects}` with the number of
///   Kubernetes objects of each kind;
/// - identities: `{name, id, client_id, credentials: [{name, issuer, subject}],
///   roles: [{role, scope}]}`;
/// - resources: the ids of what roles can be granted on;
/// - `other_assignments`: how many role assignments belong to no identity of the world.
pub fn of(store: &Store) -> Value {
    let world = store.lock();
    let mut clusters = Vec::new();
    let mut identities: BTreeMap<String, Value> = BTreeMap::new();
    let mut resources = Vec::new();
    for (key, doc) in world.list("arm/subscriptions/") {
        let parts: Vec<&str> = key.split('/').collect();
        match parts.as_slice() {
            [.., "managedclusters", _] if parts.len() == 9 => {
                let properties = &doc["properties"];
                let prefix = format!("kube/{}/", parts[1..].join("/"));
                clusters.push(json!({
                    "name": doc["cluster"], "id": doc["id"],
                    "oidc_issuer": properties["oidcIssuerProfile"]["issuerURL"],
                    "workload_identity":
                        properties["securityProfile"]["workloadIdentity"]["enabled"] == true,
                    "objects": objects(&prefix, world.list(&prefix)),
                }));
            }
            [.., "userassignedidentities", _] if parts.len() == 9 => {
                let identity = json!({
                    "name": doc["name"], "id": doc["id"], "client_id": doc["clientId"],
                    "principal_id": doc["principalId"], "credentials": [], "roles": [],
                });
                identities.insert(key.clone(), identity);
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
    let mut other = 0;
    for (_, doc) in world.list(roles::ASSIGNMENTS) {
        let holder =
            identities.values_mut().find(|identity| identity["principal_id"] == doc["principalId"]);
        if holder.is_none() {
            other += 1;
        }
        let role = doc["role"].as_str().unwrap_or_default();
        let known = roles::BUILT_IN.iter().find(|known| known.id.eq_ignore_ascii_case(role));
        let role = known.map_or(role, |known| known.name);
        let scope = format!("/{}", doc["scope"].as_str().unwrap_or_default());
        push(holder, "roles", json!({ "role": role, "scope": scope }));
    }
    let tenant = world.get("world").map_or(Value::Null, |doc| doc["tenant"].clone());
    json!({
        "tenant": tenant, "revision": world.revision(), "clusters": clusters,
        "identities": identities.into_values().collect::<Vec<_>>(), "resources": resources,
        "other_assignments": other,
    })
}

fn push(into: Option<&mut Value>, list: &str, item: Value) {
    if let Some(list) = into.and_then(|into| into[list].as_array_mut()) {
        list.push(item);
    }
}

/// How many objects there are of each kind; the cluster's own notes begin with a tilde.
fn objects<T>(prefix: &str, docs: Vec<(String, T)>) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (key, _) in docs {
        let mut parts = key[prefix.len()..].split('/');
        if let (Some(group), Some(kind), Some(_)) = (parts.next(), parts.next(), parts.next())
            && !group.starts_with('~')
        {
            *counts.entry(kind.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}
