//! Role assignments: principal, role, scope.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use uuid::Uuid;

use super::{
    Action, FieldChange, ObjectKind, Operation, Planned, Reason, StepId, Value,
    draft::{Draft, NewChange, NewStep, differs, finding, invented, known},
    identity::IdentityState,
    planner::{World, not_read},
};
use crate::model::{
    Address, ArmId, RoleId,
    desired::{DesiredAssignment, Role},
    names, roles,
    snapshot::{Observation, ObservedAssignment},
};

/// What the grants of one workload come down to.
#[derive(Default)]
pub(super) struct Grants {
    /// Steps that make or change its assignments.
    pub(super) steps: Vec<StepId>,
    /// Role and scope of each.
    pub(super) wanted: Vec<(RoleId, ArmId)>,
    /// The same in words.
    pub(super) labels: Vec<String>,
    /// Whether one could not be seen or must not be made: then pods are not pointed here anew.
    pub(super) held: bool,
}

/// Plans every assignment that a usable identity needs; per workload index what became of them.
pub(super) fn plan<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    identities: &BTreeMap<&'a ArmId, IdentityState<'a>>,
    usable: &BTreeSet<usize>,
) -> BTreeMap<usize, Grants> {
    let mut grants: BTreeMap<usize, Grants> = BTreeMap::new();
    // A custom role may stand in the file by its name and by its GUID: that is one object.
    let mut planned: BTreeMap<(&ArmId, RoleId, &ArmId), (&DesiredAssignment, Result<_, ()>)> =
        BTreeMap::new();
    for assignment in &world.desired.assignments {
        let needed: Vec<usize> =
            assignment.workloads.iter().copied().filter(|w| usable.contains(w)).collect();
        let Some(identity) = identities.get(&assignment.identity) else { continue };
        if needed.is_empty() {
            continue;
        }
        let addresses: Vec<Address> =
            needed.iter().map(|w| world.desired.workload(*w).address()).collect();
        let there = target_exists(world, draft, assignment, &addresses);
        let role = resolve(world, draft, assignment, &addresses).filter(|_| there);
        if let Some(role) = role {
            risks(world, draft, assignment, role);
        }
        let step =
            role.map(|role| match planned.entry((&assignment.identity, role, &assignment.scope)) {
                Entry::Vacant(entry) => {
                    let step = one(world, draft, assignment, role, identity, &addresses);
                    entry.insert((assignment, step)).1
                }
                Entry::Occupied(entry) => {
                    let (first, step) = entry.get();
                    if first.condition == assignment.condition {
                        return *step;
                    }
                    contradict(draft, first, assignment, &addresses);
                    Err(())
                }
            });
        for workload in needed {
            let grants = grants.entry(workload).or_default();
            match (role, step) {
                (Some(role), Some(Ok(step))) => {
                    grants.wanted.push((role, assignment.scope.clone()));
                    let (role, scope) = (assignment.role.label(), &assignment.scope);
                    grants.labels.push(format!("{role} on {scope}"));
                    grants.steps.extend(step);
                }
                _ => grants.held = true,
            }
        }
    }
    grants
}

/// Whether the target may be there; where Azure says that it is not, the report says so.
fn target_exists(
    world: &World<'_>,
    draft: &mut Draft,
    assignment: &DesiredAssignment,
    workloads: &[Address],
) -> bool {
    let scope = &assignment.scope;
    if !matches!(world.snapshot.targets.get(scope), Some(Observation::Absent)) {
        return true;
    }
    draft.block(
        workloads,
        "target-not-found",
        &format!("{scope} does not exist: no role can be assigned on it"),
        "make the vault first, or correct `target`: az keyvault list --query \"[].id\" -o tsv",
        &assignment.origin,
    );
    false
}

/// Says that two grants are one object that cannot have both conditions.
fn contradict(
    draft: &mut Draft,
    first: &DesiredAssignment,
    second: &DesiredAssignment,
    workloads: &[Address],
) {
    let message = format!(
        "`{}` and `{}` are one role on {}, with two conditions",
        first.role.label(),
        second.role.label(),
        second.scope
    );
    let hint = "write one condition for both grants";
    draft.block(workloads, "grants-contradict", &message, hint, &second.origin);
}

/// The role's GUID; none where it could not be found, and the report says why.
fn resolve(
    world: &World<'_>,
    draft: &mut Draft,
    assignment: &DesiredAssignment,
    workloads: &[Address],
) -> Option<RoleId> {
    let name = match &assignment.role {
        Role::Known { id, .. } => return Some(*id),
        Role::Named { name } => name,
    };
    let origin = &assignment.origin;
    let blocked = match world.snapshot.roles.get(&name.to_lowercase()) {
        Some(Observation::Present(found)) => match found.as_slice() {
            [one] => return Some(*one),
            [] => ("unknown-role", format!("no role is called `{name}` at {}", assignment.scope)),
            several => (
                "ambiguous-role",
                format!("{} roles are called `{name}`; write the GUID of one", several.len()),
            ),
        },
        Some(Observation::Absent) => {
            ("unknown-role", format!("no role is called `{name}` at {}", assignment.scope))
        }
        Some(Observation::Unknown(failure)) => {
            draft.unseen(assignment.address.clone(), failure, origin);
            return None;
        }
        None => {
            draft.unseen(assignment.address.clone(), &not_read(name), origin);
            return None;
        }
    };
    let hint = format!("az role definition list --name \"{name}\" --scope {}", assignment.scope);
    draft.block(workloads, blocked.0, &blocked.1, &hint, origin);
    None
}

/// Plans one assignment: no step where it is as wanted, an error where it is held.
fn one(
    world: &World<'_>,
    draft: &mut Draft,
    assignment: &DesiredAssignment,
    role: RoleId,
    identity: &IdentityState<'_>,
    workloads: &[Address],
) -> Result<Option<StepId>, ()> {
    let project = &world.desired.project;
    let address = assignment.address.clone();
    let Value::Known(principal) = identity.principal else {
        return Ok(Some(write(world, draft, assignment, role, identity, workloads, None, None)));
    };
    let name = names::role_assignment(&assignment.scope, principal, role, project);
    match world.snapshot.assignments.find(principal, role, &assignment.scope) {
        Observation::Unknown(failure) => {
            draft.unseen(address, &failure, &assignment.origin);
            Err(())
        }
        Observation::Absent => {
            let name = Some(name);
            Ok(Some(write(world, draft, assignment, role, identity, workloads, name, None)))
        }
        Observation::Present(seen) if seen.condition == assignment.condition => Ok(None),
        Observation::Present(seen) if seen.name.eq_ignore_ascii_case(&name.to_string()) => {
            let name = Some(name);
            Ok(Some(write(world, draft, assignment, role, identity, workloads, name, Some(seen))))
        }
        Observation::Present(seen) => {
            let message = format!(
                "role assignment {} has another condition and was not made by this project",
                seen.name
            );
            let hint = format!(
                "write its condition in the file, or remove it: az role assignment delete --ids {}",
                seen.id
            );
            let code = "foreign-assignment-condition";
            draft.block(workloads, code, &message, &hint, &assignment.origin);
            Err(())
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one role assignment")]
fn write(
    world: &World<'_>,
    draft: &mut Draft,
    assignment: &DesiredAssignment,
    role: RoleId,
    identity: &IdentityState<'_>,
    workloads: &[Address],
    name: Option<Uuid>,
    seen: Option<&ObservedAssignment>,
) -> StepId {
    let label = assignment.role.label();
    let description = names::role_assignment_description(&world.desired.project);
    let shown = name.map_or("(known after apply)".to_owned(), |name| name.to_string());
    let id = format!(
        "{}/providers/Microsoft.Authorization/roleAssignments/{shown}",
        assignment.scope.as_str().trim_end_matches('/')
    );
    let condition = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut fields: Vec<FieldChange> = Vec::new();
    let reasons = if let Some(seen) = seen {
        fields.push(known(
            "condition",
            seen.condition.as_deref(),
            condition(&assignment.condition),
        ));
        vec![differs("condition", seen.condition.as_deref(), condition(&assignment.condition))]
    } else {
        let formula = format!("guid of scope, {}, role and project", identity.principal_formula());
        let after = name.map_or_else(
            || Planned::AfterApply(formula.clone()),
            |name| Planned::Known(name.to_string().into()),
        );
        fields.push(FieldChange {
            field: "name".to_owned(),
            before: None,
            after,
            formula: Some(formula),
        });
        fields.push(invented(
            "principal_id",
            None,
            &identity.principal,
            identity.principal_formula(),
        ));
        fields.push(known("role", None, label.as_str()));
        fields.push(known("role_definition_id", None, role.to_string()));
        fields.push(known("scope", None, assignment.scope.as_str()));
        if let Some(condition) = &assignment.condition {
            fields.push(known("condition", None, condition.as_str()));
        }
        vec![Reason::Missing]
    };
    let change = draft.change(NewChange {
        address: assignment.address.clone(),
        kind: ObjectKind::AzureRoleAssignment,
        action: if seen.is_some() { Action::Update } else { Action::Create },
        id,
        fields,
        reasons,
        workloads: workloads.to_vec(),
        origin: assignment.origin.clone(),
    });
    draft.step(NewStep {
        address: assignment.address.clone(),
        operation: Operation::PutAssignment {
            identity: assignment.identity.clone(),
            principal: identity.principal.clone(),
            role,
            role_label: label,
            scope: assignment.scope.clone(),
            name,
            condition: assignment.condition.clone(),
            description,
            exists: seen.is_some(),
        },
        needs: identity.needs.clone(),
        locks: BTreeSet::new(),
        workloads: workloads.to_vec(),
        origin: assignment.origin.clone(),
        change: Some(change),
    })
}

/// Shows what a reviewer of access should look at, whether it is new or not yet.
fn risks(world: &World<'_>, draft: &mut Draft, assignment: &DesiredAssignment, role: RoleId) {
    let label = assignment.role.label();
    let scope = &assignment.scope;
    let mut risk = |code, message: String, hint: Option<String>| {
        let origin = &assignment.origin;
        draft.report.risks.push(finding(assignment.address.clone(), code, message, hint, origin));
    };
    if roles::by_id(role).is_some_and(|known| known.kind == roles::Kind::Privileged) {
        risk(
            "privileged-role",
            format!("role `{label}` can change or grant access to {scope}"),
            None,
        );
    }
    if scope.resource_group().is_none() {
        risk(
            "wide-scope",
            format!("role `{label}` is granted at {scope}, above any resource"),
            None,
        );
    }
    let target = world.snapshot.targets.get(scope).and_then(Observation::present);
    if target.is_some_and(|target| target.rbac == Some(false)) {
        risk(
            "vault-access-policies",
            format!("vault {} uses access policies: role assignments have no effect", scope.name()),
            Some(format!(
                "az keyvault update --name {} --enable-rbac-authorization true",
                scope.name()
            )),
        );
    }
}
