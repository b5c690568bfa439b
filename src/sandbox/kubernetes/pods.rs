//! Subresources of pods: eviction and log.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use serde_json::{Value, json};

use super::{
    Kubernetes,
    error::{Outcome, Status, respond},
    http::Call,
    objects::meta,
    storage::Key,
    verbs::deletion,
};

/// Evicts a pod unless a disruption budget forbids it.
pub(super) fn evict(
    kube: &Kubernetes,
    call: &Call<'_>,
    eviction: &Value,
) -> Outcome<Response<Body>> {
    let target = call.target;
    let mut tx = kube.begin();
    let pod = tx
        .get(&target.kind, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(&target.kind, &target.name))?;
    let options = &eviction["deleteOptions"];
    let dry_run = call.options.dry_run(options, "CreateOptions")?;
    for (_, budget) in tx.list("policy/poddisruptionbudgets/", Some(&target.namespace)) {
        let selector = super::selectors::LabelSelector::from_object(&budget["spec"]["selector"]);
        if selector.matches(&pod["metadata"]["labels"])
            && budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) <= 0
        {
            let name = meta(&budget, "name");
            return Err(Status::too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                &json!([{"reason": "DisruptionBudget", "message": format!(
                    "The disruption budget {name} needs {} healthy pods and has {} currently",
                    budget["status"]["desiredHealthy"].as_i64().unwrap_or(0),
                    budget["status"]["currentHealthy"].as_i64().unwrap_or(0))}]),
            ));
        }
    }
    let deletion = deletion(call, options, dry_run)?;
    tx.delete(&Key::new(&target.kind, &target.namespace, &target.name), &deletion)?;
    drop(tx);
    Ok(respond(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// The log of a container: what the emulated kubelet did.
pub(super) fn log(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let target = call.target;
    let pod = kube
        .begin()
        .get(&target.kind, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(&target.kind, &target.name))?;
    let containers: Vec<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .filter_map(|c| c["name"].as_str())
        .collect();
    let count = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let asked = call.options.get("container");
    if asked.is_empty() && count > 1 {
        return Err(Status::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            target.name,
            containers[..count].join(" ")
        )));
    }
    let name =
        if asked.is_empty() { containers.first().copied().unwrap_or_default() } else { asked };
    if !containers.contains(&name) {
        return Err(Status::bad_request(format!(
            "container {name} is not valid for pod {}",
            target.name
        )));
    }
    let status = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|s| s["name"] == name)
        .cloned()
        .unwrap_or_default();
    if status["state"]["waiting"].is_object() || status.is_null() {
        let reason = status["state"]["waiting"]["reason"].as_str().unwrap_or("ContainerCreating");
        return Err(Status::bad_request(format!(
            "container \"{name}\" in pod \"{}\" is waiting to start: {reason}",
            target.name
        )));
    }
    let started = status["state"]["running"]["startedAt"].as_str();
    let text = format!(
        "widentity sandbox: container {name} of pod {}\n{}",
        target.name,
        started.map(|at| format!("started at {at}\n")).unwrap_or_default()
    );
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
