//! `Microsoft.ManagedIdentity/userAssignedIdentities`.
//!
//! Wire shape as recorded from Azure: ids with a lower-case `resourcegroups`, no `systemData`, a
//! relative `location` header on 201, 200 with an empty body on deletion.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    call::{Call, Refusal, Reply, items, page},
    groups,
};
use crate::sandbox::store::Write;

const KIND: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";
/// Identities on a page. The provider's own number is not documented; a choice.
const PAGE: usize = 500;

/// `/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{n}`.
pub(super) fn one(call: &Call) -> Result<Reply, Refusal> {
    let (group, name) = (&call.segments[3], &call.segments[7]);
    let key = key(&call.lower);
    match call.method {
        Method::GET => {
            let doc = call
                .ctx
                .store
                .get(&key)
                .ok_or_else(|| Refusal::resource_not_found(KIND, name, group))?;
            Ok(Reply::json(StatusCode::OK, render(&doc)))
        }
        Method::PUT => put(call, &key),
        Method::PATCH => patch(call, &key),
        Method::DELETE => delete(call, &key),
        _ => Err(groups::method_not_allowed(call)),
    }
}

/// The lists of a resource group or a whole subscription.
pub(super) fn list(call: &Call) -> Reply {
    let prefix = format!("arm/subscriptions/{}/", call.lower[1]);
    let group = (call.lower[2] == "resourcegroups").then(|| call.lower[3].as_str());
    let listed = call.listed();
    let world = call.ctx.store.lock();
    let items = items(call, &world, &prefix, |key| {
        let parts: Vec<&str> = key.split('/').collect();
        parts.len() == 9
            && parts[7] == "userassignedidentities"
            && parts[6] == "microsoft.managedidentity"
            && group.is_none_or(|group| parts[4] == group)
    });
    let items = items.filter(|(_, doc)| listed(&doc["created_ms"]));
    page(call, items, PAGE, |_, doc| render(&doc))
}

/// `POST …/listAssociatedResources`: nothing in the sandbox has identities assigned.
pub(super) fn associated(call: &Call) -> Result<Reply, Refusal> {
    let key = key(&call.lower);
    if call.ctx.store.get(&key).is_none() {
        return Err(Refusal::resource_not_found(KIND, &call.segments[7], &call.segments[3]));
    }
    Ok(Reply::json(StatusCode::OK, json!({ "totalCount": 0, "value": [] })))
}

pub(super) fn key(lower: &[String]) -> String {
    format!("arm/{}", lower[..8].join("/"))
}

/// The wire form of a stored identity.
fn render(doc: &Value) -> Value {
    let mut properties = json!({
        "tenantId": doc["tenantId"], "principalId": doc["principalId"], "clientId": doc["clientId"],
    });
    for name in ["isolationScope", "assignmentRestrictions"] {
        if let Some(value) = doc.get(name) {
            properties[name] = value.clone();
        }
    }
    json!({
        "id": doc["id"], "name": doc["name"], "type": KIND, "location": doc["location"],
        "tags": doc["tags"], "properties": properties,
    })
}

fn put(call: &Call, key: &str) -> Result<Reply, Refusal> {
    let (subscription, group, name) = (&call.segments[1], &call.segments[3], &call.segments[7]);
    valid_name(name)?;
    let body = call.object()?;
    let location = body.get("location").and_then(Value::as_str).filter(|l| !l.is_empty());
    let location = location.map(|l| l.to_lowercase().replace(' ', "")).ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "LocationRequired",
            "The location property is required for this definition.",
        )
    })?;
    let tags = tags(&body)?;
    let mut world = call.ctx.store.lock();
    if let Some(old) = world.get(key) {
        if old["location"] != location.as_str() {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "InvalidResourceLocation",
                format!(
                    "The resource '{name}' already exists in location '{}' in resource group \
                     '{group}'. A resource with the same name cannot be created in location \
                     '{location}'. Please select a new resource name.",
                    old["location"].as_str().unwrap_or_default()
                ),
            ));
        }
        let mut doc = (*old).clone();
        doc["tags"] = tags;
        settings(&mut doc, &body);
        let reply = Reply::json(StatusCode::OK, render(&doc));
        world.commit(vec![Write::put(key, doc)]).map_err(|error| Refusal::storage(&error))?;
        return Ok(reply);
    }
    let (principal, client) = (call.ctx.ids.guid(), call.ctx.ids.guid());
    let id =
        format!("/subscriptions/{subscription}/resourcegroups/{group}/providers/{KIND}/{name}");
    let now = call.now_ms();
    let mut doc = json!({
        "id": id, "name": name, "location": location, "tags": tags, "created_ms": now,
        "tenantId": call.ctx.settings.tenant, "principalId": principal, "clientId": client,
    });
    settings(&mut doc, &body);
    let reply = Reply::json(StatusCode::CREATED, render(&doc)).with("location", id.clone());
    world
        .commit(vec![
            Write::put(key, doc),
            Write::put(
                format!("principals/{principal}"),
                json!({
                    "type": "ServicePrincipal", "name": name, "client_id": client,
                    "identity": id, "created_ms": now,
                }),
            ),
            Write::put(
                format!("apps/{client}"),
                json!({ "principal": principal, "name": name, "identity": id }),
            ),
        ])
        .map_err(|error| Refusal::storage(&error))?;
    Ok(reply)
}

fn patch(call: &Call, key: &str) -> Result<Reply, Refusal> {
    let body = call.object()?;
    let mut world = call.ctx.store.lock();
    let old = world
        .get(key)
        .ok_or_else(|| Refusal::resource_not_found(KIND, &call.segments[7], &call.segments[3]))?;
    let mut doc = (*old).clone();
    // `tags` of an update replaces the whole set; without it the set stays.
    if body.get("tags").is_some() {
        doc["tags"] = tags(&body)?;
    }
    settings(&mut doc, &body);
    let reply = Reply::json(StatusCode::OK, render(&doc));
    world.commit(vec![Write::put(key, doc)]).map_err(|error| Refusal::storage(&error))?;
    Ok(reply)
}

fn delete(call: &Call, key: &str) -> Result<Reply, Refusal> {
    let mut world = call.ctx.store.lock();
    let Some(doc) = world.get(key) else {
        return Ok(Reply::empty(StatusCode::NO_CONTENT));
    };
    let mut writes = removal(key, &doc);
    let below = format!("{key}/");
    writes.extend(world.range(&below, "").map(|(child, _)| Write::remove(child)));
    world.commit(writes).map_err(|error| Refusal::storage(&error))?;
    // Its role assignments stay, as they do in Azure ("Identity not found").
    Ok(Reply::empty(StatusCode::OK))
}

/// What goes when an identity goes: its record, its principal, its application.
pub(super) fn removal(key: &str, doc: &Value) -> Vec<Write> {
    let text = |name: &str| doc[name].as_str().unwrap_or_default().to_owned();
    vec![
        Write::remove(key),
        Write::remove(format!("principals/{}", text("principalId"))),
        Write::remove(format!("apps/{}", text("clientId"))),
    ]
}

fn settings(doc: &mut Value, body: &Value) {
    for name in ["isolationScope", "assignmentRestrictions"] {
        if let Some(value) = body.get("properties").and_then(|properties| properties.get(name)) {
            doc[name] = value.clone();
        }
    }
}

/// The tags of a body: at most 50, names of at most 512 and values of at most 256 characters
/// (Microsoft documentation on tags).
pub(super) fn tags(body: &Value) -> Result<Value, Refusal> {
    let tags = match body.get("tags") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(tags)) => tags.clone(),
        Some(_) => return Err(bad_tags("The tags must be an object of strings.".into())),
    };
    if tags.len() > 50 {
        return Err(bad_tags(format!("The number of tags '{}' exceeds 50.", tags.len())));
    }
    for (name, value) in &tags {
        let Some(text) = value.as_str() else {
            return Err(bad_tags(format!("The value of tag '{name}' is not a string.")));
        };
        if name.chars().count() > 512 || text.chars().count() > 256 {
            return Err(bad_tags(format!("The tag '{name}' is too long.")));
        }
    }
    Ok(Value::Object(tags))
}

fn bad_tags(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "InvalidTagValue", message)
}

/// 3 to 128 characters, letters, digits, `-` and `_`, a letter or digit first (Microsoft
/// documentation on resource name rules).
fn valid_name(name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (3..=128).contains(&name.len())
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "InvalidIdentityName",
        format!(
            "The resource name '{name}' is invalid. The name must be between 3 and 128 \
             characters, start with a letter or number, and contain only letters, numbers, \
             hyphens and underscores."
        ),
    ))
}
