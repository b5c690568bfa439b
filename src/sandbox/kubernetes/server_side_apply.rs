//! Server-side apply: the request around the bookkeeping of [`super::apply`].

use std::sync::Arc;

use axum::{body::Body, http::Response};
use serde_json::Value;

use super::{
    Kubernetes,
    apply::{managed, typed},
    error::{FieldError, Outcome, Status},
    http::{Call, object, show, versioned, yaml},
    objects::{Writer, meta},
    storage::Tx,
    verbs::writer,
};

/// Server-side apply.
pub(super) fn apply(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let target = call.target;
    let kind = &target.kind;
    let manager = call.options.get("fieldManager");
    if manager.is_empty() {
        return Err(Status::invalid_named(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[FieldError::required("fieldManager", "is required for apply patch")],
        ));
    }
    let dry_run = call.options.dry_run(&Value::Null, "PatchOptions")?;
    let mut config = yaml(call.body).map_err(Status::bad_request).and_then(object)?;
    let version = kind.api_version();
    if config["apiVersion"] != version.as_str() || config["kind"] != kind.kind.as_str() {
        return Err(Status::bad_request(format!(
            "apiVersion and kind of the applied object must be {version} and {}",
            kind.kind
        )));
    }
    if config["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let name = meta(&config, "name");
    if !name.is_empty() && name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let namespace = meta(&config, "namespace");
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let typed = |object: &Value| {
        typed::validate(object, kind.ty()).map_err(|error| {
            Status::plain(
                500,
                format!(
                    "failed to create typed patch object ({}/{}; {version}, Kind={}): {error}",
                    target.namespace, target.name, kind.kind
                ),
            )
        })
    };
    typed(&config)?;
    let mut tx = kube.begin();
    let writer = Writer { patch: true, ..writer(call, manager, &version, dry_run) };
    let old = tx.get(kind, &target.namespace, &target.name);
    let (code, object) = match old {
        None if !target.subresource.is_empty() => {
            return Err(Status::not_found(kind, &target.name));
        }
        None => (201, apply_new(&mut tx, call, &config, &writer)?),
        Some(old) => (200, apply_over(&mut tx, call, &old, &mut config, &writer)?),
    };
    drop(tx);
    show(kube, call, code, &object)
}

fn apply_new(
    tx: &mut Tx<'_>,
    call: &Call<'_>,
    config: &Value,
    writer: &Writer<'_>,
) -> Outcome<Arc<Value>> {
    let target = call.target;
    let kind = &target.kind;
    // An apply that demands an identity does not create.
    let uid = meta(config, "uid");
    if !uid.is_empty() {
        return Err(Status::conflict(
            kind,
            &target.name,
            &format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            ),
        ));
    }
    let mut object = config.clone();
    object["metadata"]["name"] = target.name.clone().into();
    if kind.namespaced {
        object["metadata"]["namespace"] = target.namespace.clone().into();
    }
    if object["metadata"].get("resourceVersion").is_some_and(Value::is_string) {
        return Err(Status::modified(kind, &target.name));
    }
    let live = Tx::empty(kind, &object);
    tx.finish_new(kind, &target.namespace, object, writer, |_, author| {
        managed::apply(&live, config, Vec::new(), author, kind.ty(), true)
            .map(|applied| applied.managers)
            .unwrap_or_default()
    })
}

fn apply_over(
    tx: &mut Tx<'_>,
    call: &Call<'_>,
    old: &Arc<Value>,
    config: &mut Value,
    writer: &Writer<'_>,
) -> Outcome<Arc<Value>> {
    let target = call.target;
    let kind = &target.kind;
    let version = kind.api_version();
    let given = meta(config, "resourceVersion").to_owned();
    if !given.is_empty() && given != meta(old, "resourceVersion") {
        return Err(Status::modified(kind, &target.name));
    }
    let mut live = versioned(old, &version).into_owned();
    let mut managers = managed::take(&mut live);
    let now = super::objects::stamp(tx.now);
    let author = managed::Author {
        manager: writer.manager,
        api_version: &version,
        subresource: writer.subresource,
        now: &now,
        minor: tx.facts.minor,
    };
    if managers.is_empty() {
        managers.push(managed::before_first_apply(&live, &author, kind.ty()));
    }
    // Through the main path status is not applied, through /status nothing else is.
    if kind.status
        && let Some(fields) = config.as_object_mut()
    {
        if writer.subresource == "status" {
            fields.retain(|key, _| {
                matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status")
            });
        } else {
            fields.remove("status");
        }
    }
    let force = call.options.flag("force");
    let result = managed::apply(&live, config, managers.clone(), &author, kind.ty(), force);
    let applied = match result {
        Ok(applied) => applied,
        Err(conflicts) if writer.manager == "kubectl" => {
            // kubectl moving from client-side to server-side apply takes over what it had written.
            let own = client_side_fields(old, kind.ty());
            if !conflicts.are_within(&own) {
                return Err(Status::apply_conflict(conflicts.message(), &conflicts.causes()));
            }
            managed::apply(&live, config, managers, &author, kind.ty(), true)
                .map_err(|c| Status::apply_conflict(c.message(), &c.causes()))?
        }
        Err(conflicts) => {
            return Err(Status::apply_conflict(conflicts.message(), &conflicts.causes()));
        }
    };
    let managers = applied.managers;
    tx.finish_update(kind, old, applied.object, writer, |_, _| managers)
}

/// What the annotation of client-side apply says was written.
fn client_side_fields(old: &Value, ty: &super::schema::Type) -> super::apply::FieldSet {
    old["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .map(|config: Value| typed::field_set(&config, ty))
        .unwrap_or_default()
}
