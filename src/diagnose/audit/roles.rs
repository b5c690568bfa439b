//! Role assignments of identities that pods can become.

use std::collections::BTreeMap;

use super::{Audit, Severity, estate::Estate};
use crate::{
    diagnose::command::{Line, in_subscription},
    model::{
        ArmId, PrincipalId, names,
        roles::{self, Kind},
        snapshot::ObservedAssignment,
    },
};

/// Azure's limit of role assignments in one subscription.
const LIMIT: u32 = 4000;

pub(super) fn look(estate: &Estate, audit: &mut Audit) {
    for (scope, how) in &estate.assignments.looked {
        if let Some(failure) = how.failure() {
            audit.unseen.push(format!("role assignments at {scope}: {failure}"));
        }
    }
    let owners: BTreeMap<PrincipalId, &str> = estate
        .identities
        .iter()
        .map(|owner| (owner.identity.principal_id, owner.identity.id.name()))
        .collect();
    let unknown = |principal: &PrincipalId| {
        !owners.contains_key(principal) && !estate.other_principals.contains(principal)
    };
    let mark = estate.project.as_ref().map(names::role_assignment_description);
    for held in &estate.assignments.seen {
        if let Some(owner) = owners.get(&held.principal_id) {
            judge(estate, audit, owner, held);
        } else if estate.all_identities
            && unknown(&held.principal_id)
            && mark.is_some()
            && held.description == mark
        {
            audit.add(
                Severity::Low,
                "assignment-orphaned",
                held.scope.as_str(),
                format!(
                    "role assignment {} was made by widentity for principal {}, and no identity \
                     of any subscription that can be read has it: the identity is gone",
                    held.name, held.principal_id
                ),
                delete(held),
            );
        }
    }
    for target in &estate.targets {
        let here = estate.assignments.seen.iter().filter(|held| held.scope.is_within(target));
        let others = here.filter(|held| unknown(&held.principal_id)).count();
        if others > 0 {
            audit.add(
                Severity::Info,
                "assignment-principal-unknown",
                target.name(),
                format!(
                    "{others} of the role assignments on it are of principals that are no identity \
                     that was read: people, groups, applications, or nobody any more; only the \
                     directory knows, and it is not asked"
                ),
                Line::new("az")
                    .words(&["role", "assignment", "list", "--scope", target.as_str()])
                    .words(&["--query", "[?principalName=='']", "-o", "table"])
                    .text(),
            );
        }
    }
    policies(estate, audit, &owners);
    for (subscription, count) in &estate.counted {
        if *count >= LIMIT / 10 * 9 {
            audit.add(
                if *count >= LIMIT { Severity::High } else { Severity::Medium },
                "assignments-nearly-full",
                subscription.to_string(),
                format!("has {count} of the {LIMIT} role assignments Azure allows"),
                "delete orphaned assignments; assign at a common scope",
            );
        }
    }
}

/// What a scope is, for the sentence; none for a resource.
fn wide(scope: &ArmId) -> Option<(Severity, &'static str)> {
    if scope.resource_type().is_some() {
        return if scope.key().contains("/managementgroups/") {
            Some((Severity::High, "a management group"))
        } else {
            None
        };
    }
    if scope.resource_group().is_some() {
        return Some((Severity::Low, "a whole resource group"));
    }
    if scope.subscription().is_some() {
        return Some((Severity::Medium, "a whole subscription"));
    }
    Some((Severity::High, "everything"))
}

/// Access policies of vaults that honour role assignments.
fn policies(estate: &Estate, audit: &mut Audit, owners: &BTreeMap<PrincipalId, &str>) {
    for (vault, target) in estate.vaults.iter().filter(|(_, target)| target.rbac == Some(true)) {
        for (principal, owner) in owners.iter().filter(|(id, _)| target.policies.contains(id)) {
            audit.add(
                Severity::Low,
                "policy-without-effect",
                format!("{owner}: access policy of {}", vault.name()),
                "the vault asks role assignments, so its access policies do nothing",
                in_subscription(&["keyvault", "delete-policy"], vault)
                    .words(&["--name", vault.name(), "--object-id", &principal.to_string()])
                    .text(),
            );
        }
    }
}

fn delete(held: &ObservedAssignment) -> String {
    Line::new("az").words(&["role", "assignment", "delete", "--ids", held.id.as_str()]).text()
}

fn judge(estate: &Estate, audit: &mut Audit, owner: &str, held: &ObservedAssignment) {
    let role = roles::by_id(held.role);
    let name = role.map_or_else(|| held.role.to_string(), |role| role.name.to_owned());
    let object = format!("{owner}: {name} on {}", held.scope.name());
    let vault = estate.vaults.iter().find(|(vault, _)| held.scope.is_within(vault));
    if let Some((vault, target)) = vault.filter(|(_, target)| target.rbac == Some(false))
        && role.is_some_and(|role| roles::opens(role, vault))
    {
        let listed = target.policies.contains(&held.principal_id);
        audit.add(
            Severity::Medium,
            "role-without-effect",
            object,
            format!(
                "vault {} asks its access policies, not role assignments{}",
                vault.name(),
                if listed { "; one of them names the identity" } else { ", and none is for it" }
            ),
            in_subscription(&["keyvault", "update"], vault)
                .words(&["--name", vault.name(), "--enable-rbac-authorization", "true"])
                .text(),
        );
        return;
    }
    let delete = delete(held);
    if role.is_some_and(|role| role.kind == Kind::Privileged) {
        audit.add(
            Severity::High,
            "role-privileged",
            object,
            format!("{name} lets whoever gets into the pod give out access to {}", held.scope),
            format!("assign the data role that is needed, then: {delete}"),
        );
        return;
    }
    let scope = wide(&held.scope);
    if name == "Contributor" {
        audit.add(
            if scope.is_some() { Severity::High } else { Severity::Medium },
            "role-too-wide",
            object,
            format!("Contributor can change and delete {}", held.scope),
            format!("assign the data role that is needed, then: {delete}"),
        );
        return;
    }
    if let Some(roles::Misfit::ControlPlaneOnly { instead }) =
        role.and_then(|role| roles::misfit(role, &held.scope))
    {
        audit.add(
            Severity::Medium,
            "role-control-plane-only",
            object,
            format!("{name} manages the resource and does not open its data"),
            format!("assign {} if data is meant", instead.join(" or ")),
        );
        return;
    }
    if let Some((severity, what)) = scope {
        audit.add(
            severity,
            "scope-too-wide",
            object,
            format!("{name} is assigned on {what}: {}", held.scope),
            format!("assign it on the resource that is used, then: {delete}"),
        );
    }
}
