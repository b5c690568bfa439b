//! `Microsoft.Compute/virtualMachineScaleSets`: the model of a scale set and the identities on it.
//! Its instances are not emulated.
//!
//! A write is answered at once with `provisioningState: Updating` and an `Azure-AsyncOperation`
//! URL. `identity` merges as documented ("Configure managed identities on a virtual machine scale
//! set using REST API calls"): `null` takes one away, `{}` adds one, another type replaces all.
//! Codes and texts of refusals are those that clients report; what is a choice says so.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    call::{Call, Refusal, Reply, stamp},
    groups, identities,
};
use crate::sandbox::{
    roles,
    store::{Guard, Write},
};

/// The type as answers name it.
pub(super) const KIND: &str = "Microsoft.Compute/virtualMachineScaleSets";

/// `/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.Compute/virtualMachineScaleSets/{n}`.
pub(super) fn one(call: &Call) -> Result<Reply, Refusal> {
    let key = format!("arm/{}", call.lower.join("/"));
    let now = call.now_ms();
    let name = call.segments.last().map(String::as_str).unwrap_or_default();
    let missing = || Refusal::resource_not_found(KIND, name, &call.segments[3]);
    if matches!(call.method, Method::PUT | Method::PATCH) {
        may_assign(call, &key)?;
    }
    let mut world = call.ctx.store.lock();
    let old = world.get(&key);
    match call.method {
        Method::GET => {
            let doc = old.ok_or_else(missing)?;
            Ok(Reply::json(StatusCode::OK, render(&doc, now)))
        }
        Method::PUT => {
            if let Some(old) = &old {
                ready(call, old, now)?;
            }
            let mut doc = call.object()?;
            if doc["location"].as_str().is_none_or(str::is_empty) {
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "LocationRequired",
                    "The location property is required for this definition.",
                ));
            }
            doc["tags"] = identities::tags(&doc)?;
            doc["id"] = format!("/{}", call.segments.join("/")).into();
            doc["name"] = name.into();
            doc["type"] = KIND.into();
            let wanted = doc["identity"].take();
            doc["identity"] = merged(call, &world, &Value::Null, &wanted)?;
            let status = if old.is_some() { StatusCode::OK } else { StatusCode::CREATED };
            written(call, &mut world, &key, doc, status)
        }
        Method::PATCH => {
            let old = old.ok_or_else(missing)?;
            ready(call, &old, now)?;
            let mut doc = (*old).clone();
            let body = call.object()?;
            for (member, value) in body.as_object().into_iter().flatten() {
                match member.as_str() {
                    "identity" => {
                        doc["identity"] = merged(call, &world, &old["identity"], value)?;
                    }
                    "tags" => doc["tags"] = identities::tags(&body)?,
                    _ => merge(&mut doc[member.as_str()], value),
                }
            }
            written(call, &mut world, &key, doc, StatusCode::OK)
        }
        Method::DELETE => {
            let Some(old) = old else { return Ok(Reply::empty(StatusCode::NO_CONTENT)) };
            ready(call, &old, now)?;
            world.commit(vec![Write::remove(key)]).map_err(|error| Refusal::storage(&error))?;
            Ok(Reply::empty(StatusCode::OK))
        }
        _ => Err(groups::method_not_allowed(call)),
    }
}

/// `GET /subscriptions/{s}/providers/Microsoft.Compute/locations/{l}/operations/{id}`.
pub(super) fn operation(call: &Call) -> Result<Reply, Refusal> {
    let id = &call.lower[7];
    let doc = call.ctx.store.get(&format!("operations/{id}")).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("The operation '{id}' was not found."),
        )
    })?;
    let end = doc["end_ms"].as_i64().unwrap_or(0);
    let ended = end <= call.now_ms();
    let mut body = json!({
        "startTime": stamp(doc["start_ms"].as_i64().unwrap_or(0)),
        "status": if ended { "Succeeded" } else { "InProgress" }, "name": id,
    });
    if ended {
        body["endTime"] = stamp(end).into();
    }
    Ok(Reply::json(StatusCode::OK, body))
}

/// The wire form of a scale set at `now`.
pub(super) fn render(doc: &Value, now: i64) -> Value {
    let mut shown = doc.clone();
    shown.as_object_mut().map(|doc| doc.remove("operation"));
    if shown["identity"].is_null() {
        shown.as_object_mut().map(|doc| doc.remove("identity"));
    }
    let state = if under_way(doc, now) { "Updating" } else { "Succeeded" };
    shown["properties"]["provisioningState"] = state.into();
    shown
}

fn under_way(doc: &Value, now: i64) -> bool {
    doc["operation"]["end_ms"].as_i64().is_some_and(|end| end > now)
}

/// Whether a write is accepted now: the eTag fits, and no other is at work. That another one is
/// refused rather than cut short is a choice: the provider does either.
fn ready(call: &Call, doc: &Value, now: i64) -> Result<(), Refusal> {
    let tag = doc["etag"].as_str().unwrap_or_default();
    if let Some(wanted) = call.header("if-match")
        && wanted != "*"
        && wanted.trim_matches('"') != tag.trim_matches('"')
    {
        return Err(Refusal::new(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            format!("Etag provided in if-match header {wanted} does not match etag {tag}."),
        ));
    }
    if under_way(doc, now) {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "Conflict",
            "The request failed due to conflict with a concurrent request. To resolve it, please \
             refer to https://aka.ms/activitylog to get more details on the conflicting requests.",
        ));
    }
    Ok(())
}

fn written(
    call: &Call,
    world: &mut Guard<'_>,
    key: &str,
    mut doc: Value,
    status: StatusCode,
) -> Result<Reply, Refusal> {
    let now = call.now_ms();
    let takes = call.ctx.settings.delays.cluster_update.as_millis();
    let end = now.saturating_add(i64::try_from(takes).unwrap_or(0));
    let id = call.ctx.ids.guid().to_string();
    let operation = json!({"start_ms": now, "end_ms": end});
    doc["operation"] = operation.clone();
    doc["etag"] = format!("\"{}\"", call.ctx.ids.guid().simple()).into();
    let url = format!(
        "{}/subscriptions/{}/providers/Microsoft.Compute/locations/{}/operations/{id}?api-version={}",
        call.base(),
        call.segments[1],
        doc["location"].as_str().unwrap_or_default(),
        call.api_version()
    );
    let shown = render(&doc, now);
    let writes = vec![Write::put(key, doc), Write::put(format!("operations/{id}"), operation)];
    world.commit(writes).map_err(|error| Refusal::storage(&error))?;
    Ok(Reply::json(status, shown).with("azure-asyncoperation", url))
}

/// A JSON merge patch (RFC 7396).
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in members {
        if value.is_null() {
            into.as_object_mut().map(|into| into.remove(name));
        } else {
            merge(&mut into[name], value);
        }
    }
}

/// What becomes of `identity` under a request.
fn merged(call: &Call, world: &Guard<'_>, old: &Value, wanted: &Value) -> Result<Value, Refusal> {
    if wanted.is_null() {
        return Ok(old.clone());
    }
    let kind = wanted["type"].as_str().or_else(|| old["type"].as_str()).unwrap_or("None");
    let (system, user) = match kind.replace(' ', "").to_lowercase().as_str() {
        "none" => return Ok(Value::Null),
        "systemassigned" => (true, false),
        "userassigned" => (false, true),
        "systemassigned,userassigned" => (true, true),
        _ => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "InvalidParameter",
                format!("The value '{kind}' of parameter identity.type is invalid."),
            ));
        }
    };
    let mut identity = json!({ "type": kind });
    if system {
        let principal = old["principalId"].clone();
        let made = || call.ctx.ids.guid().to_string().into();
        identity["principalId"] = if principal.is_null() { made() } else { principal };
        identity["tenantId"] = call.ctx.settings.tenant.to_string().into();
    }
    if !user {
        return Ok(identity);
    }
    let mut on: Map<String, Value> =
        old["userAssignedIdentities"].as_object().cloned().unwrap_or_default();
    for (id, value) in wanted["userAssignedIdentities"].as_object().into_iter().flatten() {
        let same = on.keys().find(|known| known.eq_ignore_ascii_case(id)).cloned();
        match (value, same) {
            // Taking away what is not there is no error: a choice.
            (Value::Null, same) => {
                same.map(|same| on.remove(&same));
            }
            (Value::Object(_), Some(_)) => {}
            (Value::Object(_), None) => {
                on.insert(id.clone(), assigned(call, world, id)?);
            }
            (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_), _) => {
                return Err(invalid_identities());
            }
        }
    }
    if on.is_empty() {
        return Err(invalid_identities());
    }
    identity["userAssignedIdentities"] = Value::Object(on);
    Ok(identity)
}

fn invalid_identities() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "InvalidIdentityValues",
        "Invalid value for the identities. The 'UserAssignedIdentities' property keys should only \
         be empty json objects, null or the resource exisiting property.",
    )
}

/// An identity that is put on the scale set, as it is shown there.
fn assigned(call: &Call, world: &Guard<'_>, id: &str) -> Result<Value, Refusal> {
    let path = id.trim_matches('/').to_lowercase();
    let Some(identity) = world.get(&format!("arm/{path}")) else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "FailedIdentityOperation",
            format!(
                "Identity operation for resource '/{}' failed with error 'Failed to perform \
                 resource identity operation. Status: 'BadRequest'. Response: \
                 '{{\"error\":{{\"code\":\"BadRequest\",\"message\":\"Resource '{id}' was not \
                 found.\"}}}}'.'.",
                call.segments.join("/")
            ),
        ));
    };
    Ok(json!({ "principalId": identity["principalId"], "clientId": identity["clientId"] }))
}

/// Whether the caller may put what it names on a scale set, where it is not on it yet.
fn may_assign(call: &Call, key: &str) -> Result<(), Refusal> {
    const ACTION: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action";
    let caller = &call.caller;
    if caller.operator {
        return Ok(());
    }
    let old = call.ctx.store.get(key);
    let on = old.as_ref().and_then(|old| old["identity"]["userAssignedIdentities"].as_object());
    let body = call.object()?;
    let wanted = body["identity"]["userAssignedIdentities"].as_object().into_iter().flatten();
    for (id, _) in wanted.filter(|(_, value)| value.is_object()) {
        let there = on.is_some_and(|on| on.keys().any(|known| known.eq_ignore_ascii_case(id)));
        let scope = id.trim_matches('/').to_lowercase();
        if !there && !roles::allowed(&call.ctx, &caller.oid, ACTION, &scope, false) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "LinkedAuthorizationFailed",
                format!(
                    "The client '{}' with object id '{}' has permission to perform action \
                     'Microsoft.Compute/virtualMachineScaleSets/write' on scope '/{}'; however, it \
                     does not have permission to perform action '{ACTION}' on the linked scope(s) \
                     '{id}' or the linked scope(s) are invalid.",
                    caller.appid,
                    caller.oid,
                    call.segments.join("/")
                ),
            ));
        }
    }
    Ok(())
}
