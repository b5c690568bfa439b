//! get, create, update, patch, apply, delete, evict, log.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use serde_json::{Value, json};

use super::{
    Kubernetes,
    apply::{managed, typed},
    error::{FieldError, Outcome, Status, respond},
    fields,
    http::{Call, patched, show, versioned},
    list,
    objects::{Writer, meta},
    storage::{Key, Tx},
};

/// Reads one object.
pub(super) fn get(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let target = call.target;
    let object = kube
        .begin()
        .get(&target.kind, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(&target.kind, &target.name))?;
    show(kube, call, 200, &object)
}

/// Decodes an object of the target's kind: type names, unknown fields, wrong types.
fn decode(call: &Call<'_>, mut object: Value) -> Outcome<(Value, Vec<String>)> {
    let kind = &call.target.kind;
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is unrecognized"));
    }
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

fn writer<'a>(call: &'a Call<'_>, manager: &'a str, version: &'a str, dry_run: bool) -> Writer<'a> {
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
    let duplicates = list::duplicate_fields(call.body);
    let (object, unknown) = decode(call, kube.json_body(call)?)?;
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
    let duplicates = list::duplicate_fields(call.body);
    let (object, unknown) = decode(call, kube.json_body(call)?)?;
    let warnings = field_validation(call, &unknown, &duplicates)?;
    let dry_run = call.options.dry_run(&Value::Null, "UpdateOptions")?;
    let (manager, version) = (call.options.manager(), target.kind.api_version());
    let name = meta(&object, "name");
    if name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
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
        return apply(kube, call);
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
    if meta(&object, "name") != target.name {
        return Err(Status::bad_request(
            "the name of the object does not match the name on the URL",
        ));
    }
    let writer = Writer { patch: true, ..writer(call, &manager, &version, dry_run) };
    let new = tx.update(&target.kind, &old, object, &writer)?;
    drop(tx);
    Ok(with_warnings(show(kube, call, 200, &new)?, &warnings))
}

/// Server-side apply.
fn apply(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
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
    let mut config: Value = serde_json::from_slice(call.body)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
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
        None => (201, apply_new(&mut tx, call, config, &writer)?),
        Some(old) => (200, apply_over(&mut tx, call, &old, &mut config, &writer)?),
    };
    drop(tx);
    show(kube, call, code, &object)
}

fn apply_new(
    tx: &mut Tx<'_>,
    call: &Call<'_>,
    config: Value,
    writer: &Writer<'_>,
) -> Outcome<Arc<Value>> {
    let target = call.target;
    let kind = &target.kind;
    // An apply that demands an identity does not create.
    let uid = meta(&config, "uid");
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
    let live = tx.empty(kind, &object);
    tx.finish_new(kind, &target.namespace, object, writer, |_, author| {
        managed::apply(&live, &config, Vec::new(), author, kind.ty(), true)
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
                return Err(Status::apply_conflict(conflicts.message(), conflicts.causes()));
            }
            managed::apply(&live, config, managers, &author, kind.ty(), true)
                .map_err(|c| Status::apply_conflict(c.message(), c.causes()))?
        }
        Err(conflicts) => {
            return Err(Status::apply_conflict(conflicts.message(), conflicts.causes()));
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

fn deletion(call: &Call<'_>, options: &Value, dry_run: bool) -> Outcome<super::delete::Deletion> {
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
    for (key, _) in &items {
        tx.delete(key, &deletion)?;
    }
    drop(tx);
    let kind = &call.target.kind;
    let items: Vec<Value> = items.iter().map(|(_, object)| list::item(kind, object)).collect();
    Ok(respond(
        200,
        &json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": items}),
    ))
}

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
                json!([{"reason": "DisruptionBudget", "message": format!(
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
    let mut text = format!("widentity sandbox: container {name} of pod {}\n", target.name);
    if let Some(started) = status["state"]["running"]["startedAt"].as_str() {
        text = format!("{text}started at {started}\n");
    }
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
