//! `Microsoft.ContainerService/managedClusters/agentPools`, to be read: a cluster holds its pools,
//! and they are changed by writing the cluster.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    call::{Call, Refusal, Reply},
    clusters, groups,
};

const KIND: &str = "Microsoft.ContainerService/managedClusters/agentPools";

/// `GET …/managedClusters/{c}/agentPools`.
pub(super) fn list(call: &Call) -> Result<Reply, Refusal> {
    let cluster = clusters::shown(call)?;
    if call.method != Method::GET {
        return Err(groups::method_not_allowed(call));
    }
    Ok(Reply::pretty(StatusCode::OK, json!({ "value": pools(&cluster) })))
}

/// `GET …/managedClusters/{c}/agentPools/{p}`. The words of the 404 are those of Azure Resource
/// Manager; what the provider itself says is documented nowhere.
pub(super) fn one(call: &Call) -> Result<Reply, Refusal> {
    let cluster = clusters::shown(call)?;
    if call.method != Method::GET {
        return Err(groups::method_not_allowed(call));
    }
    let name = &call.segments[9];
    let mut pools = pools(&cluster).into_iter();
    let found =
        pools.find(|pool| pool["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
    let missing = || {
        let path = format!("{}/{name}", call.segments[7]);
        Refusal::resource_not_found(KIND, &path, &call.segments[3])
    };
    Ok(Reply::pretty(StatusCode::OK, found.ok_or_else(missing)?))
}

/// The pools of a cluster's wire form, as resources of their own.
fn pools(cluster: &Value) -> Vec<Value> {
    let profiles = cluster["properties"]["agentPoolProfiles"].as_array();
    profiles
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .map(|profile| resource(cluster, profile))
        .collect()
}

fn resource(cluster: &Value, profile: &Map<String, Value>) -> Value {
    let mut properties = profile.clone();
    let name = properties.remove("name").unwrap_or_default();
    let id = cluster["id"].as_str().unwrap_or_default();
    json!({
        "id": format!("{id}/agentPools/{}", name.as_str().unwrap_or_default()),
        "name": name, "type": KIND, "properties": properties,
    })
}
