//! Role assignments of identities that pods can become.

use std::collections::BTreeMap;

use super::{Audit, Severity, estate::Estate};
use crate::model::{
    ArmId, PrincipalId,
    roles::{self, Kind},
    snapshot::ObservedAssignment,
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
    for held in &estate.assignments.seen {
        if estate.gone_principals.contains(&held.principal_id) {
            audit.add(
                Severity::Low,
                "assignment-orphaned",
                held.scope.as_str(),
                format!(
                    "role assignment {} is of principal {}, which no longer exists",
                    held.name, held.principal_id
                ),
                format!("az role assignment delete --ids {}", held.id),
            );
            continue;
        }
        if let Some(owner) = owners.get(&held.principal_id) {
            judge(audit, owner, held);
        }
    }
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

fn judge(audit: &mut Audit, owner: &str, held: &ObservedAssignment) {
    let role = roles::by_id(held.role);
    let name = role.map_or_else(|| held.role.to_string(), |role| role.name.to_owned());
    let object = format!("{owner}: {name} on {}", held.scope.name());
    let delete = format!("az role assignment delete --ids {}", held.id);
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
