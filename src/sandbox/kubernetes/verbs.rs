//! get, create, update, patch, delete.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use serde_json::{Value, json};

use super::{
    Kubernetes,
    duplicates::duplicate_fields,
    error::{FieldError, Outcome, Status, respond, respond_with},
    fields,
    http::{self, Call, as_stored, patched, show, versioned},
    list,
    objects::{Writer, meta},
    request::Form,
    storage::Key,
};

/// Reads one object.
pub(super) fn get(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let target = call.target;
    let doc = kube
        .begin()
        .doc(&Key::new(&target.kind, &target.namespace, &target.name))
        .cloned()
        .ok_or_else(|| Status::not_found(&target.kind, &target.name))?;
    match as_stored(&doc, &target.kind.api_version()) {
        Some(text) if call.options.form()? == Form::Object => {
            Ok(respond_with(200, Body::from(format!("{text}\n"))))
        }
        _ => show(kube, call, 200, &doc.value()),
    }
}

/// Decodes an object of the target's kind: type names, unknown fields, wrong types.
fn decode(call: &Call<'_>, object: Value) -> Outcome<(Value, Vec<String>)> {
    let kind = &call.target.kind;
    let mut object = http::object(object)?;
    let (version, name) = (object["apiVersion"].as_str(), object["kind"].as_str());
    if let (Some(version), Some(name)) = (version, name) {
        let wanted = kind.api_version();
        if name != kind.kind || version != wanted {
            let (group, v) = version.split_once('/').unwrap_or(("", version));
            return Err(Status::bad_request(format!(
                "{name} in version \"{v}\" cannot be handled as a {}: no kind \"{name}\" is registered for version \"{}\"",
                kind.kind,
                super::kinds::api_version(group, v)
            )));
        }
    } else {
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.clone().into();
    }
    if let Some(text) = fields::mistyped(&object, kind.ty()) {
        return Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {text}",
            kind.kind, kind.version, kind.kind
        )));
    }
    let unknown = fields::prune(&mut object, kind.ty());
    Ok((object, unknown))
}

/// What `fieldValidation` asks for about fields that do not exist or stand twice.
fn field_validation(
    call: &Call<'_>,
    unknown: &[String],
    duplicates: &[String],
) -> Outcome<Vec<String>> {
    let mut problems: Vec<String> =
        unknown.iter().map(|f| format!("unknown field \"{f}\"")).collect();
    problems.extend(duplicates.iter().map(|f| format!("duplicate field \"{f}\"")));
    match call.options.get("fieldValidation") {
        "Strict" if !problems.is_empty() => {
            let kind = &call.target.kind;
            Err(Status::bad_request(if call.options.content_type().ends_with("patch+json") {
                format!(
                    " \"\" is invalid: patch: Invalid value: strict decoding error: {}",
                    problems.join(", ")
                )
            } else {
                format!(
                    "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                    kind.kind,
                    kind.version,
                    kind.kind,
                    problems.join(", ")
                )
            }))
        }
        "Ignore" => Ok(Vec::new()),
        _ => Ok(problems),
    }
}

/// Adds the warnings of the field validation as RFC 7234 `Warning` headers.
fn with_warnings(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

pub(super) fn writer<'a>(
    call: &'a Call<'_>,
    manager: &'a str,
    version: &'a str,
    dry_run: bool,
) -> Writer<'a> {
    Writer {
        manager,
        subresource: &call.target.subresource,
        api_version: Some(version),
        dry_run,
        patch: false,
    }
}

/// Creates an object.
pub(super) fn create(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let target = call.target;
    if target.kind.namespaced && target.namespace.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let duplicates = duplicate_fields(call.body);
    let (object, unknown) = decode(call, Kubernetes::json_body(call)?)?;
    let warnings = field_validation(call, &unknown, &duplicates)?;
    let dry_run = call.options.dry_run(&Value::Null, "CreateOptions")?;
    let (manager, version) = (call.options.manager(), target.kind.api_version());
    let created = kube.begin().create(
        &target.kind,
        &target.namespace,
        object,
        &writer(call, &manager, &version, dry_run),
    )?;
    Ok(with_warnings(show(kube, call, 201, &created)?, &warnings))
}

/// Replaces an object.
pub(super) fn update(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let target = call.target;
    let duplicates = duplicate_fields(call.body);
    let (object, unknown) = decode(call, Kubernetes::json_body(call)?)?;
    let warnings = field_validation(call, &unknown, &duplicates)?;
    let dry_run = call.options.dry_run(&Value::Null, "UpdateOptions")?;
    let (manager, version) = (call.options.manager(), target.kind.api_version());
    check_name(&object, &target.name)?;
    let mut tx = kube.begin();
    let old = tx
        .get(&target.kind, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(&target.kind, &target.name))?;
    if target.kind.custom && meta(&object, "resourceVersion").is_empty() {
        return Err(Status::invalid_named(
            &target.kind.group,
            &target.kind.plural,
            &target.name,
            &[FieldError {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion".into(),
                message: "Invalid value: 0x0: must be specified for an update".into(),
            }],
        ));
    }
    let new = tx.update(&target.kind, &old, object, &writer(call, &manager, &version, dry_run))?;
    drop(tx);
    Ok(with_warnings(show(kube, call, 200, &new)?, &warnings))
}

/// Patches an object, or applies one.
pub(super) fn patch(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    if matches!(
        call.options.content_type(),
        "application/apply-patch+yaml" | "application/apply-patch+cbor"
    ) {
        return super::server_side_apply::apply(kube, call);
    }
    let target = call.target;
    if call.options.flag("force") {
        return Err(Status::invalid_named(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[FieldError::forbidden("force", "may not be specified for non-apply patch")],
        ));
    }
    let dry_run = call.options.dry_run(&Value::Null, "PatchOptions")?;
    let (manager, version) = (call.options.manager(), target.kind.api_version());
    let mut tx = kube.begin();
    let old = tx
        .get(&target.kind, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(&target.kind, &target.name))?;
    let mut object = versioned(&old, &version).into_owned();
    // The patch sees the bookkeeping, but only an explicit change of it counts.
    let before = object["metadata"]["managedFields"].clone();
    patched(call, &mut object)?;
    if object["metadata"]["managedFields"] == before
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("managedFields");
    }
    let (object, unknown) = decode(call, object)?;
    let warnings = field_validation(call, &unknown, &[])?;
    check_name(&object, &target.name)?;
    let writer = Writer { patch: true, ..writer(call, &manager, &version, dry_run) };
    let new = tx.update(&target.kind, &old, object, &writer)?;
    drop(tx);
    Ok(with_warnings(show(kube, call, 200, &new)?, &warnings))
}

/// Refuses a body that names another object than the path does, or none.
fn check_name(object: &Value, name: &str) -> Outcome<()> {
    match meta(object, "name") {
        same if same == name => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        other => Err(Status::bad_request(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        ))),
    }
}

/// How a deletion treats dependents.
fn propagation(call: &Call<'_>, options: &Value) -> String {
    let asked = options["propagationPolicy"]
        .as_str()
        .unwrap_or_else(|| call.options.get("propagationPolicy"))
        .to_owned();
    let orphan = options["orphanDependents"] == true || call.options.flag("orphanDependents");
    if asked.is_empty() && orphan { "Orphan".to_owned() } else { asked }
}

/// Deletes an object.
pub(super) fn delete(
    kube: &Kubernetes,
    call: &Call<'_>,
    options: &Value,
) -> Outcome<Response<Body>> {
    let target = call.target;
    let dry_run = call.options.dry_run(options, "DeleteOptions")?;
    let mut tx = kube.begin();
    let deletion = deletion(call, options, dry_run)?;
    let object = tx
        .get(&target.kind, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(&target.kind, &target.name))?;
    let key = Key::new(&target.kind, &target.namespace, &target.name);
    let kept = tx.delete(&key, &deletion)?;
    drop(tx);
    if let Some(object) = kept {
        show(kube, call, 200, &object)
    } else {
        let kind = &target.kind;
        let mut details =
            json!({"name": target.name, "kind": kind.plural, "uid": object["metadata"]["uid"]});
        if !kind.group.is_empty() {
            details["group"] = kind.group.clone().into();
        }
        Ok(respond(
            200,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Success", "details": details}),
        ))
    }
}

pub(super) fn deletion(
    call: &Call<'_>,
    options: &Value,
    dry_run: bool,
) -> Outcome<super::delete::Deletion> {
    let grace = match options["gracePeriodSeconds"].as_i64() {
        Some(seconds) => Some(seconds),
        None => call.options.number("gracePeriodSeconds")?,
    };
    let text = |name: &str| options["preconditions"][name].as_str().map(str::to_owned);
    Ok(super::delete::Deletion {
        propagation: propagation(call, options),
        grace,
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        dry_run,
    })
}

/// Deletes what a list would show.
pub(super) fn delete_collection(
    kube: &Kubernetes,
    call: &Call<'_>,
    options: &Value,
) -> Outcome<Response<Body>> {
    let dry_run = call.options.dry_run(options, "DeleteOptions")?;
    let deletion = deletion(call, options, dry_run)?;
    let (items, revision) = list::select(kube, call)?;
    let mut tx = kube.begin();
    for key in items.iter().filter_map(|(path, _)| kube.key(path)) {
        tx.delete(&key, &deletion)?;
    }
    drop(tx);
    let docs = items.into_iter().map(|(_, doc)| doc).collect();
    let metadata = json!({"resourceVersion": revision.to_string()});
    Ok(list::objects(Arc::clone(&call.target.kind), docs, metadata))
}
