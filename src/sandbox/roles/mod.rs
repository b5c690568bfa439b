//! Role-based access control: definitions, assignments, and whether a principal may do a thing.
//!
//! Assignments are kept as `roles/<guid>`, because their names are unique in the whole tenant;
//! removed ones stay as `ended-roles/<guid>` until their removal would be honoured everywhere.

mod built_in;

use std::sync::Arc;

pub use built_in::{BUILT_IN, BuiltIn};
use serde_json::{Value, json};

use super::context::Context;

/// Where assignments are kept.
pub const ASSIGNMENTS: &str = "roles/";
/// Where removed assignments are kept while they still count.
pub const ENDED: &str = "ended-roles/";
/// Where role definitions that a client made are kept.
pub const CUSTOM: &str = "role-definitions/";

/// The permissions of one role.
pub struct Permissions {
    actions: Vec<String>,
    not_actions: Vec<String>,
    data_actions: Vec<String>,
    not_data_actions: Vec<String>,
}

impl Permissions {
    fn allow(&self, action: &str, data: bool) -> bool {
        let (yes, no) = if data {
            (&self.data_actions, &self.not_data_actions)
        } else {
            (&self.actions, &self.not_actions)
        };
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, action));
        any(yes) && !any(no)
    }
}

/// Whether an action pattern of a role, in which `*` stands for any text, covers an action.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_lowercase(), action.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = action.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The permissions of a role by its GUID; `None` if there is no such role.
pub fn permissions(ctx: &Context, role: &str) -> Option<Permissions> {
    let owned = |list: &[&str]| list.iter().map(|&item| item.to_owned()).collect();
    if let Some(role) = BUILT_IN.iter().find(|known| known.id.eq_ignore_ascii_case(role)) {
        return Some(Permissions {
            actions: owned(role.actions),
            not_actions: owned(role.not_actions),
            data_actions: owned(role.data_actions),
            not_data_actions: owned(role.not_data_actions),
        });
    }
    let doc = ctx.store.get(&format!("{CUSTOM}{}", role.to_lowercase()))?;
    let list = |name: &str| {
        let all = doc["permissions"].as_array().into_iter().flatten();
        all.flat_map(|set| set[name].as_array().into_iter().flatten())
            .filter_map(|action| Some(action.as_str()?.to_owned()))
            .collect()
    };
    Some(Permissions {
        actions: list("actions"),
        not_actions: list("notActions"),
        data_actions: list("dataActions"),
        not_data_actions: list("notDataActions"),
    })
}

/// Whether `principal` may do `action` on `scope`, by the assignments that have propagated.
///
/// `scope` is a path with or without a leading slash; assignments at it or above it count.
pub fn allowed(ctx: &Context, principal: &str, action: &str, scope: &str, data: bool) -> bool {
    let now = ctx.clock.now().as_millisecond();
    let delay = i64::try_from(ctx.settings.delays.role.as_millis()).unwrap_or(i64::MAX);
    let covers = |doc: &Value| {
        doc["principalId"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(principal))
            && within(scope, doc["scope"].as_str().unwrap_or_default())
            && doc["role"]
                .as_str()
                .and_then(|role| permissions(ctx, role))
                .is_some_and(|role| role.allow(action, data))
    };
    let theirs = |kept: &str| held_by(ctx, kept, principal);
    let (current, ended) = (theirs(ASSIGNMENTS), theirs(ENDED));
    current.iter().any(|(_, doc)| ms(doc, "since_ms").saturating_add(delay) <= now && covers(doc))
        || ended.iter().any(|(_, doc)| {
            ms(doc, "since_ms").saturating_add(delay) <= now
                && ms(doc, "ended_ms").saturating_add(delay) > now
                && covers(doc)
        })
}

/// The assignments that may be the principal's. Object ids are kept in lower case, so a look at the
/// text spares parsing the others.
fn held_by(ctx: &Context, kept: &str, principal: &str) -> Vec<(String, Arc<Value>)> {
    let id = principal.to_lowercase();
    ctx.store.select(kept, |_, doc| doc.text().contains(&id))
}

/// Whether the principal holds any assignment at, above or below `scope`, at once and without
/// delay: what decides whether it sees a subscription in a list.
pub fn holds_any(ctx: &Context, principal: &str, scope: &str) -> bool {
    held_by(ctx, ASSIGNMENTS, principal).iter().any(|(_, doc)| {
        let at = doc["scope"].as_str().unwrap_or_default();
        doc["principalId"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(principal))
            && (within(scope, at) || within(at, scope))
    })
}

/// Whether `scope` is `above` or lies below it. An empty `above` is the root.
pub fn within(scope: &str, above: &str) -> bool {
    let (scope, above) = (normal(scope), normal(above));
    // Management groups hold every subscription of the tenant: there is one hierarchy, flat.
    above.is_empty()
        || above.starts_with("providers/microsoft.management/managementgroups/")
        || scope == above
        || scope.strip_prefix(&above).is_some_and(|rest| rest.starts_with('/'))
}

fn normal(scope: &str) -> String {
    scope.trim_matches('/').to_lowercase()
}

fn ms(doc: &Value, name: &str) -> i64 {
    doc[name].as_i64().unwrap_or(0)
}

/// The wire form of a built-in role, its id rendered under `subscription` if there is one.
pub fn render_built_in(role: &BuiltIn, subscription: Option<&str>) -> Value {
    json!({
        "properties": {
            "roleName": role.name,
            "type": "BuiltInRole",
            "description": role.description,
            "assignableScopes": ["/"],
            "permissions": [{
                "actions": role.actions, "notActions": role.not_actions,
                "dataActions": role.data_actions, "notDataActions": role.not_data_actions,
            }],
            "createdOn": "2015-02-02T21:55:09.8806423Z",
            "updatedOn": "2021-11-11T20:13:47.8628684Z",
            "createdBy": null,
            "updatedBy": null,
        },
        "id": definition_id(role.id, subscription),
        "type": "Microsoft.Authorization/roleDefinitions",
        "name": role.id,
    })
}

/// The id of a role definition as it is shown for a scope in `subscription`.
pub fn definition_id(role: &str, subscription: Option<&str>) -> String {
    let under = subscription.map(|id| format!("/subscriptions/{id}")).unwrap_or_default();
    format!("{under}/providers/Microsoft.Authorization/roleDefinitions/{role}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_an_action_matches_any_text() {
        assert!(matches("*", "Microsoft.KeyVault/vaults/read"));
        assert!(matches("*/read", "microsoft.keyvault/vaults/READ"));
        assert!(!matches("*/read", "Microsoft.KeyVault/vaults/write"));
        assert!(matches("Microsoft.Authorization/*/read", "Microsoft.Authorization/x/y/read"));
        assert!(!matches("a/b", "a/b/c"));
        assert!(matches("a/*", "a/b/c"));
    }

    #[test]
    fn scopes_contain_what_is_below_them() {
        assert!(within("/subscriptions/A/resourceGroups/g", "/subscriptions/a"));
        assert!(!within("/subscriptions/ab", "/subscriptions/a"));
        assert!(within("/subscriptions/a", "/"));
        assert!(!within("/subscriptions/a", "/subscriptions/a/resourceGroups/g"));
    }

    #[test]
    fn role_ids_and_names_are_unique() {
        let ids: std::collections::BTreeSet<_> = BUILT_IN.iter().map(|role| role.id).collect();
        let names: std::collections::BTreeSet<_> = BUILT_IN.iter().map(|role| role.name).collect();
        assert_eq!((ids.len(), names.len()), (BUILT_IN.len(), BUILT_IN.len()));
        assert!(ids.iter().all(|id| uuid::Uuid::parse_str(id).is_ok()));
    }
}
