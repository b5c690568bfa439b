//! The scale subresource, for built-in kinds and for definitions that declare it.

use axum::{body::Body, http::Response};
use serde_json::{Map, Value, json};

use super::{
    Kubernetes,
    error::{FieldError, Outcome, Status, respond},
    fields::{at_path, set_path},
    http::{Call, patched},
    kinds::{Kind, Scale},
    objects::{Writer, meta},
    selectors::LabelSelector,
};

/// Answers get, update and patch of `…/scale`.
pub(super) fn answer(kube: &Kubernetes, verb: &str, call: &Call<'_>) -> Outcome<Response<Body>> {
    let target = call.target;
    let kind = &target.kind;
    let Some(paths) = &kind.scale else { return Err(Status::no_such_path()) };
    let mut tx = kube.begin();
    let old = tx
        .get(kind, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(kind, &target.name))?;
    let now = scale_of(kind, paths, &old);
    let wanted = match verb {
        "get" => return Ok(respond(200, &now)),
        "update" => Kubernetes::json_body(call)?,
        "patch" => {
            let mut scale = now.clone();
            patched(call, &mut scale)?;
            scale
        }
        _ => return Err(Status::method_not_allowed()),
    };
    let given = meta(&wanted, "resourceVersion");
    if !given.is_empty() && given != meta(&old, "resourceVersion") {
        return Err(Status::modified(kind, &target.name));
    }
    let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid(
            "spec.replicas",
            &replicas.into(),
            "must be greater than or equal to 0",
        );
        return Err(Status::invalid_named("autoscaling", "Scale", &target.name, &[error]));
    }
    let dry_run = call.options.dry_run(&Value::Null, "UpdateOptions")?;
    let (manager, version) = (call.options.manager(), kind.api_version());
    let writer = Writer {
        manager: &manager,
        // Entries name the subresource since 1.22.
        subresource: "scale",
        api_version: Some(&version),
        dry_run,
        patch: true,
    };
    let new = tx.modify(kind, &old, &writer, |object| {
        set_path(object, &paths.spec, replicas.into());
    })?;
    drop(tx);
    Ok(respond(200, &scale_of(kind, paths, &new)))
}

fn scale_of(kind: &Kind, paths: &Scale, object: &Value) -> Value {
    let number = |path: &str| at_path(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let mut status = json!({"replicas": number(&paths.status)});
    let selector = match &paths.selector {
        Some(path) => at_path(object, path).and_then(Value::as_str).map(str::to_owned),
        None if kind.custom => None,
        None if kind.plural == "replicationcontrollers" => Some(
            LabelSelector::from_object(&json!({"matchLabels": object["spec"]["selector"]})).show(),
        ),
        None => Some(LabelSelector::from_object(&object["spec"]["selector"]).show()),
    };
    if let Some(selector) = selector {
        status["selector"] = selector.into();
    }
    let mut spec = json!({});
    let replicas = number(&paths.spec);
    if replicas != 0 {
        spec["replicas"] = replicas.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}
