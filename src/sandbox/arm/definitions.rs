//! `Microsoft.Authorization/roleDefinitions`: the built-in table and roles that clients make.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    call::{Call, Refusal, Reply, page, stamp},
    groups,
};
use crate::sandbox::{
    roles::{self, BUILT_IN, CUSTOM},
    store::Write,
};

const KIND: &str = "Microsoft.Authorization/roleDefinitions";
/// Definitions on a page; a choice.
const PAGE: usize = 1000;

/// `/{scope}/providers/Microsoft.Authorization/roleDefinitions/{id}`.
pub(super) fn one(call: &Call, depth: usize) -> Result<Reply, Refusal> {
    let name = call.lower[depth + 3].clone();
    let key = format!("{CUSTOM}{name}");
    match call.method {
        Method::GET => {
            let found = all(call).into_iter().find(|(id, _)| *id == name);
            found.map(|(_, shown)| Reply::json(StatusCode::OK, shown)).ok_or_else(|| {
                Refusal::new(
                    StatusCode::NOT_FOUND,
                    "RoleDefinitionDoesNotExist",
                    format!(
                        "The specified role definition with ID '{}' does not exist.",
                        name.replace('-', "")
                    ),
                )
            })
        }
        Method::PUT => put(call, &name, &key),
        Method::DELETE => {
            let Some(doc) = call.ctx.store.get(&key) else {
                return Ok(Reply::empty(StatusCode::NO_CONTENT));
            };
            let used = call.ctx.store.select(roles::ASSIGNMENTS, |_, a| a.text().contains(&name));
            if used.iter().any(|(_, doc)| doc["role"] == name.as_str()) {
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "RoleDefinitionHasAssignments",
                    "There are existing role assignments referencing role.",
                ));
            }
            let shown = render(&name, &doc, call.subscription());
            call.ctx
                .store
                .commit(vec![Write::remove(key)])
                .map_err(|error| Refusal::storage(&error))?;
            Ok(Reply::json(StatusCode::OK, shown))
        }
        _ => Err(groups::method_not_allowed(call)),
    }
}

/// `/{scope}/providers/Microsoft.Authorization/roleDefinitions`, filtered by name or type.
pub(super) fn list(call: &Call) -> Result<Reply, Refusal> {
    let text = call.query("$filter").unwrap_or_default().trim().to_owned();
    let mut name = None;
    let mut kind = None;
    for term in text.split(" and ").map(str::trim).filter(|term| !term.is_empty()) {
        let lower = term.to_lowercase();
        if lower == "atscopeandbelow()" || lower == "atscope()" {
            continue;
        }
        let value = term.split_once(" eq ").and_then(|(_, value)| {
            Some(value.trim().strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'"))
        });
        match (lower.split(' ').next(), value) {
            (Some("rolename"), Some(value)) => name = Some(value.to_lowercase()),
            (Some("type"), Some(value)) => kind = Some(value.to_lowercase()),
            _ => {
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "UnsupportedQuery",
                    format!("The filter '{text}' is not supported."),
                ));
            }
        }
    }
    let same = |shown: &Value, member: &str, wanted: Option<&String>| {
        let value = shown["properties"][member].as_str().unwrap_or_default().to_lowercase();
        wanted.is_none_or(|wanted| value == *wanted)
    };
    let items = all(call).into_iter().filter(|(_, shown)| {
        same(shown, "roleName", name.as_ref()) && same(shown, "type", kind.as_ref())
    });
    Ok(page(call, items, PAGE, |_, shown| shown))
}

/// Every definition by its id, in id order.
fn all(call: &Call) -> Vec<(String, Value)> {
    let subscription = call.subscription();
    let mut all: Vec<(String, Value)> = BUILT_IN
        .iter()
        .map(|role| (role.id.to_owned(), roles::render_built_in(role, subscription)))
        .collect();
    all.extend(call.ctx.store.list(CUSTOM).into_iter().map(|(key, doc)| {
        let id = key.trim_start_matches(CUSTOM).to_owned();
        let shown = render(&id, &doc, subscription);
        (id, shown)
    }));
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

fn render(id: &str, doc: &Value, subscription: Option<&str>) -> Value {
    let time = stamp(doc["updated_ms"].as_i64().unwrap_or(0));
    json!({
        "properties": {
            "roleName": doc["roleName"],
            "type": "CustomRole",
            "description": doc["description"],
            "assignableScopes": doc["assignableScopes"],
            "permissions": doc["permissions"],
            "createdOn": time,
            "updatedOn": time,
            "createdBy": doc["by"],
            "updatedBy": doc["by"],
        },
        "id": roles::definition_id(id, subscription),
        "type": KIND,
        "name": id,
    })
}

fn put(call: &Call, name: &str, key: &str) -> Result<Reply, Refusal> {
    let invalid = |message: &str| {
        Refusal::new(StatusCode::BAD_REQUEST, "InvalidRoleDefinitionRequest", message)
    };
    if Uuid::parse_str(name).is_err() {
        return Err(invalid("The role definition ID must be a GUID."));
    }
    if BUILT_IN.iter().any(|role| role.id == name) {
        return Err(invalid("Built-in roles cannot be changed."));
    }
    let body = call.object()?;
    let properties = body.get("properties").cloned().unwrap_or_default();
    let role_name = properties.get("roleName").and_then(Value::as_str).unwrap_or_default();
    if role_name.is_empty() || !properties["assignableScopes"].is_array() {
        return Err(invalid("'roleName' and 'assignableScopes' are required."));
    }
    let twin = all(call).into_iter().any(|(id, shown)| {
        let other = shown["properties"]["roleName"].as_str().unwrap_or_default();
        id != name && other.eq_ignore_ascii_case(role_name)
    });
    if twin {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "RoleDefinitionWithSameNameExists",
            format!(
                "A custom role with the same name already exists in this directory. Use a \
                     different name: '{role_name}'."
            ),
        ));
    }
    let doc = json!({
        "roleName": role_name,
        "description": properties.get("description").cloned().unwrap_or(Value::Null),
        "assignableScopes": properties["assignableScopes"],
        "permissions": properties.get("permissions").cloned().unwrap_or_else(|| json!([])),
        "updated_ms": call.now_ms(),
        "by": call.caller.oid,
    });
    let shown = render(name, &doc, call.subscription());
    call.ctx.store.commit(vec![Write::put(key, doc)]).map_err(|error| Refusal::storage(&error))?;
    Ok(Reply::json(StatusCode::CREATED, shown))
}
