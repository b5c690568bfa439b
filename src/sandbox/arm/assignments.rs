//! `Microsoft.Authorization/roleAssignments` at any scope.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    call::{Call, Refusal, Reply, items, page, stamp},
    groups,
};
use crate::sandbox::{
    roles::{self, ASSIGNMENTS, ENDED},
    store::{Guard, Write},
};

const KIND: &str = "Microsoft.Authorization/roleAssignments";
/// Assignments on a page. Azure was recorded sending 252 KB without a next link; a choice.
const PAGE: usize = 1000;
/// Assignments in a subscription (Microsoft documentation on role assignment limits).
const MOST: usize = 4000;

/// `/{scope}/providers/Microsoft.Authorization/roleAssignments/{name}`; the scope is the first
/// `depth` segments.
pub(super) fn one(call: &Call, depth: usize) -> Result<Reply, Refusal> {
    let scope = scope(call, depth);
    let name = &call.segments[depth + 3];
    let guid = Uuid::parse_str(name).map_err(|_| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "InvalidRoleAssignmentId",
            format!("The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID."),
        )
    })?;
    let key = format!("{ASSIGNMENTS}{guid}");
    match call.method {
        Method::GET => {
            let doc = call.ctx.store.get(&key).filter(|doc| at(doc, &scope));
            let doc = doc.ok_or_else(|| {
                // Code and text are not documented; other emulators use the same code.
                Refusal::new(
                    StatusCode::NOT_FOUND,
                    "RoleAssignmentNotFound",
                    format!("The role assignment '{name}' is not found."),
                )
            })?;
            Ok(Reply::json(StatusCode::OK, render(&doc, call.subscription(), true)))
        }
        Method::PUT => put(call, &scope, guid, &key),
        Method::DELETE => delete(call, &scope, &key),
        _ => Err(groups::method_not_allowed(call)),
    }
}

/// `/{scope}/providers/Microsoft.Authorization/roleAssignments`.
pub(super) fn list(call: &Call, depth: usize) -> Result<Reply, Refusal> {
    let scope = scope(call, depth);
    let filter = Filter::parse(call.query("$filter").unwrap_or_default())?;
    let listed = call.listed();
    let world = call.ctx.store.lock();
    let items = items(call, &world, ASSIGNMENTS, |_| true).filter(|(_, doc)| {
        let held = doc["scope"].as_str().unwrap_or_default();
        let above = roles::within(&scope, held);
        let below = !filter.at_scope && roles::within(held, &scope);
        let principal = doc["principalId"].as_str().unwrap_or_default();
        (above || below)
            && listed(&doc["created_ms"])
            && filter.principal.as_deref().is_none_or(|id| id.eq_ignore_ascii_case(principal))
    });
    Ok(page(call, items, PAGE, |_, doc| render(&doc, call.subscription(), true)))
}

fn scope(call: &Call, depth: usize) -> String {
    call.segments[..depth].join("/")
}

fn at(doc: &Value, scope: &str) -> bool {
    doc["scope"].as_str().is_some_and(|held| held.eq_ignore_ascii_case(scope))
}

#[derive(Debug, Default, PartialEq)]
struct Filter {
    at_scope: bool,
    principal: Option<String>,
}

impl Filter {
    /// The filters that the API description lists. `atScope()` goes with `assignedTo` only.
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut filter = Self::default();
        let refused = || {
            // The code is a choice; the combination is refused in the field.
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "UnsupportedQuery",
                format!("The filter '{text}' is not supported."),
            )
        };
        let compact = text.trim();
        if compact.is_empty() {
            return Ok(filter);
        }
        let terms = split_and(compact);
        let several = terms.len() > 1;
        for term in terms {
            let lower = term.to_lowercase();
            if lower == "atscope()" {
                filter.at_scope = true;
            } else if let Some(id) =
                lower.strip_prefix("assignedto(").and_then(|rest| rest.strip_suffix(')'))
            {
                filter.principal = Some(unquote(id).ok_or_else(refused)?);
            } else if let Some(id) = lower.strip_prefix("principalid eq ") {
                if several {
                    return Err(refused());
                }
                filter.principal = Some(unquote(id).ok_or_else(refused)?);
            } else {
                return Err(refused());
            }
        }
        Ok(filter)
    }
}

/// The terms of a filter's conjunction; ids hold no blanks, so words can be looked at.
fn split_and(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    for word in text.split_whitespace() {
        if word.eq_ignore_ascii_case("and") {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            if !term.is_empty() {
                term.push(' ');
            }
            term.push_str(word);
        }
    }
    terms
}

fn unquote(text: &str) -> Option<String> {
    let inner = text.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    Some(inner.to_owned())
}

fn render(doc: &Value, subscription: Option<&str>, later: bool) -> Value {
    let scope = doc["scope"].as_str().unwrap_or_default();
    let prefix = if scope.is_empty() { String::new() } else { format!("/{scope}") };
    let (created, updated) = (doc["created_ms"].as_i64(), doc["updated_ms"].as_i64());
    let updated = updated.unwrap_or_default();
    let mut properties = json!({
        "roleDefinitionId":
            roles::definition_id(doc["role"].as_str().unwrap_or_default(), subscription),
        "principalId": doc["principalId"],
        "principalType": doc["principalType"],
        "scope": if scope.is_empty() { "/" } else { &prefix },
        // The answer to a write shows the times of its two halves and no creator; later reads
        // show the creator (recorded).
        "createdOn": stamp(if later { updated } else { created.unwrap_or(updated) }),
        "updatedOn": stamp(updated),
        "createdBy": if later { doc["createdBy"].clone() } else { Value::Null },
        "updatedBy": doc["updatedBy"],
    });
    for name in
        ["condition", "conditionVersion", "delegatedManagedIdentityResourceId", "description"]
    {
        properties[name] = doc[name].clone();
    }
    json!({
        "properties": properties,
        "id": format!("{prefix}/providers/{KIND}/{}", doc["name"].as_str().unwrap_or_default()),
        "type": KIND,
        "name": doc["name"],
    })
}

fn put(call: &Call, scope: &str, guid: Uuid, key: &str) -> Result<Reply, Refusal> {
    let ctx = &call.ctx;
    let body = call.object()?;
    let properties = body.get("properties").cloned().unwrap_or(body);
    let invalid = |message: String| {
        Refusal::new(StatusCode::BAD_REQUEST, "InvalidCreateRoleAssignmentRequest", message)
    };
    let text = |name: &str| properties.get(name).and_then(Value::as_str);
    let role_id = text("roleDefinitionId").unwrap_or_default();
    let role = role_id.rsplit('/').next().unwrap_or_default();
    let role = Uuid::parse_str(role).map_err(|_| {
        invalid("The role assignment request is invalid: 'roleDefinitionId'.".into())
    })?;
    let principal = text("principalId").and_then(|id| Uuid::parse_str(id).ok()).ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "InvalidPrincipalId",
            format!(
                "A valid principal ID must be provided for role assignment. The principal ID '{}' \
                 is not valid.",
                text("principalId").unwrap_or_default()
            ),
        )
    })?;
    if roles::permissions(ctx, &role.to_string()).is_none() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "RoleDefinitionDoesNotExist",
            format!("The specified role definition with ID '{}' does not exist.", role.simple()),
        ));
    }
    if text("condition").is_some() && text("conditionVersion") != Some("2.0") {
        return Err(invalid("The condition version '2.0' is required with a condition.".into()));
    }
    let kind = principal_type(call, principal, text("principalType"))?;
    let now = call.now_ms();
    let mut world = ctx.store.lock();
    groups::scope_exists(&world, &call.segments, scope)?;
    let old = world.get(key);
    if let Some(old) = &old {
        let same = at(old, scope)
            && old["principalId"] == principal.to_string()
            && old["role"] == role.to_string();
        if !same {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "RoleAssignmentUpdateNotPermitted",
                "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
            ));
        }
    } else {
        unique(&world, scope, principal, role)?;
        limit(&world, call)?;
    }
    let created = old.as_ref().and_then(|old| old["created_ms"].as_i64()).unwrap_or(now);
    let since = old.as_ref().and_then(|old| old["since_ms"].as_i64()).unwrap_or(now);
    let by =
        old.as_ref().map_or_else(|| call.caller.oid.clone().into(), |o| o["createdBy"].clone());
    let mut doc = json!({
        "name": guid, "scope": scope, "role": role, "principalId": principal,
        "principalType": kind, "created_ms": created, "updated_ms": now, "since_ms": since,
        "createdBy": by, "updatedBy": call.caller.oid,
    });
    for name in
        ["condition", "conditionVersion", "delegatedManagedIdentityResourceId", "description"]
    {
        doc[name] = properties.get(name).cloned().unwrap_or(Value::Null);
    }
    let status = if old.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let shown = render(&doc, call.subscription(), old.is_some());
    let mut writes = forget_ended(&world, now, call);
    writes.push(Write::put(key, doc));
    world.commit(writes).map_err(|error| Refusal::storage(&error))?;
    Ok(Reply::json(status, shown))
}

/// The principal's type, looked up unless the client gave it. A client that gives it also gets
/// around the directory's replication delay, as documented.
fn principal_type(call: &Call, principal: Uuid, given: Option<&str>) -> Result<String, Refusal> {
    let ctx = &call.ctx;
    let delay = i64::try_from(ctx.settings.delays.principal.as_millis()).unwrap_or(i64::MAX);
    let known = ctx.store.get(&format!("principals/{principal}")).filter(|doc| {
        doc["created_ms"].as_i64().unwrap_or(0).saturating_add(delay) <= call.now_ms()
    });
    match (given, known) {
        (Some(given), Some(known)) if known["type"].as_str() != Some(given) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "UnmatchedPrincipalType",
            format!(
                "The PrincipalId '{}' has type '{}' , which is different from specified \
                 PrinciaplType '{given}'.",
                principal.simple(),
                known["type"].as_str().unwrap_or_default()
            ),
        )),
        (Some(given), _) => match given {
            "User" | "Group" | "ServicePrincipal" | "ForeignGroup" | "Device" => {
                Ok(given.to_owned())
            }
            _ => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "InvalidPrincipalType",
                format!("The principal type '{given}' is invalid."),
            )),
        },
        (None, Some(known)) => Ok(known["type"].as_str().unwrap_or("ServicePrincipal").to_owned()),
        (None, None) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "PrincipalNotFound",
            format!(
                "Principal {} does not exist in the directory {}. Check that you have the correct \
                 principal ID. If you are creating this principal and then immediately assigning \
                 a role, this error might be related to a replication delay. In this case, set \
                 the role assignment principalType property to a value, such as ServicePrincipal, \
                 User, or Group.  See https://aka.ms/docs-principaltype",
                principal.simple(),
                ctx.settings.tenant
            ),
        )),
    }
}

fn unique(world: &Guard<'_>, scope: &str, principal: Uuid, role: Uuid) -> Result<(), Refusal> {
    let (principal, role) = (principal.to_string(), role.to_string());
    let theirs = world.select(ASSIGNMENTS, |_, doc| doc.text().contains(&principal));
    let twin = theirs.into_iter().find(|(_, doc)| {
        doc["principalId"] == principal.as_str() && doc["role"] == role.as_str() && at(doc, scope)
    });
    let Some((_, twin)) = twin else { return Ok(()) };
    let id = twin["name"].as_str().unwrap_or_default().replace('-', "");
    Err(Refusal::new(
        StatusCode::CONFLICT,
        "RoleAssignmentExists",
        format!(
            "The role assignment already exists. The ID of the existing role assignment is {id}."
        ),
    ))
}

fn limit(world: &Guard<'_>, call: &Call) -> Result<(), Refusal> {
    let Some(subscription) = call.subscription() else { return Ok(()) };
    if world.range(ASSIGNMENTS, "").take(MOST).count() < MOST {
        return Ok(());
    }
    let below = format!("/subscriptions/{subscription}");
    let count = world
        .list(ASSIGNMENTS)
        .iter()
        .filter(|(_, doc)| roles::within(doc["scope"].as_str().unwrap_or_default(), &below))
        .count();
    if count < MOST {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "RoleAssignmentLimitExceeded",
        "No more role assignments can be created",
    ))
}

fn delete(call: &Call, scope: &str, key: &str) -> Result<Reply, Refusal> {
    let now = call.now_ms();
    let mut world = call.ctx.store.lock();
    let Some(doc) = world.get(key).filter(|doc| at(doc, scope)) else {
        return Ok(Reply::empty(StatusCode::NO_CONTENT));
    };
    let shown = render(&doc, call.subscription(), true);
    let mut writes = forget_ended(&world, now, call);
    writes.extend(end(key, &doc, now));
    world.commit(writes).map_err(|error| Refusal::storage(&error))?;
    Ok(Reply::json(StatusCode::OK, shown))
}

/// The writes that end an assignment: it goes from the lists at once, and counts a while longer.
pub(super) fn end(key: &str, doc: &Value, now: i64) -> [Write; 2] {
    let mut ended = doc.clone();
    ended["ended_ms"] = now.into();
    let name = doc["name"].as_str().unwrap_or_default();
    [Write::remove(key), Write::put(format!("{ENDED}{name}"), ended)]
}

/// Drops ended assignments that no longer count.
fn forget_ended(world: &Guard<'_>, now: i64, call: &Call) -> Vec<Write> {
    let delay = i64::try_from(call.ctx.settings.delays.role.as_millis()).unwrap_or(i64::MAX);
    let over = |doc: &Value| doc["ended_ms"].as_i64().unwrap_or(0).saturating_add(delay) <= now;
    let ended = world.list(ENDED);
    ended.into_iter().filter(|(_, doc)| over(doc)).map(|(key, _)| Write::remove(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_filters_are_understood() {
        let parse = |text: &str| Filter::parse(text).ok();
        let of = |at_scope, principal: Option<&str>| {
            Some(Filter { at_scope, principal: principal.map(str::to_owned) })
        };
        assert_eq!(parse(""), of(false, None));
        assert_eq!(parse("atScope()"), of(true, None));
        assert_eq!(parse("principalId eq 'a'"), of(false, Some("a")));
        assert_eq!(parse("atScope() and assignedTo('a')"), of(true, Some("a")));
        assert_eq!(parse("atScope() and principalId eq 'a'"), None);
        assert_eq!(parse("roleName eq 'a'"), None);
    }
}
