//! The second link: the user-assigned identity.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Lock, ObjectKind, Operation, Reason, StepId, Value,
    draft::{Draft, NewChange, NewStep, differs, finding, known},
    planner::{World, not_read},
};
use crate::model::{
    Address, ClientId, PrincipalId,
    desired::{DesiredIdentity, DesiredWorkload, IdentityControl},
    names,
    snapshot::{Observation, ObservedIdentity},
};

/// What later links need to know of an identity.
pub(super) struct IdentityState<'a> {
    pub(super) identity: &'a DesiredIdentity,
    pub(super) client: Value<ClientId>,
    pub(super) principal: Value<PrincipalId>,
    pub(super) needs: Vec<StepId>,
}

impl IdentityState<'_> {
    /// `client_id of identity/…`, as plans and digests say it.
    pub(super) fn client_formula(&self) -> String {
        format!("client_id of {}", address(self.identity))
    }

    /// `principal_id of identity/…`.
    pub(super) fn principal_formula(&self) -> String {
        format!("principal_id of {}", address(self.identity))
    }
}

/// The address of an identity.
pub(super) fn address(identity: &DesiredIdentity) -> Address {
    Address::Identity(identity.id.name().to_owned())
}

/// Plans one identity. None: what depends on it is held, and the report says why.
pub(super) fn plan<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    identity: &'a DesiredIdentity,
    workloads: &[&'a DesiredWorkload],
) -> Option<IdentityState<'a>> {
    match world.snapshot.identities.get(&identity.id) {
        Some(Observation::Present(seen)) => existing(world, draft, identity, seen, workloads),
        Some(Observation::Absent) => absent(world, draft, identity, workloads),
        Some(Observation::Unknown(failure)) => {
            draft.unseen(address(identity), failure, &identity.origin);
            None
        }
        None => {
            draft.unseen(address(identity), &not_read(&identity.id), &identity.origin);
            None
        }
    }
}

fn existing<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    identity: &'a DesiredIdentity,
    seen: &'a ObservedIdentity,
    workloads: &[&'a DesiredWorkload],
) -> Option<IdentityState<'a>> {
    let address = address(identity);
    for workload in workloads.iter().filter(|workload| workload.tenant != seen.tenant_id) {
        draft.report.refused.push(finding(
            workload.address(),
            "tenant-mismatch",
            format!(
                "identity {} is in tenant {}, not in {}",
                seen.id.name(),
                seen.tenant_id,
                workload.tenant
            ),
            format!("write `tenant = \"{}\"` for this workload", seen.tenant_id),
            &workload.origin,
        ));
    }
    if workloads.iter().any(|workload| workload.tenant != seen.tenant_id) {
        return None;
    }
    let project = world.desired.project.as_str();
    let mark = seen.tag(names::PROJECT_TAG).map(|(_, mark)| mark);
    let managed = identity.control == IdentityControl::Managed;
    if managed {
        if let Some(other) = mark.filter(|mark| *mark != project) {
            draft.report.refused.push(finding(
                address,
                "other-project",
                format!("identity {} belongs to project {other}", seen.id.name()),
                "give this workload an `identity` of its own, or the full id to use it as it is"
                    .to_owned(),
                &identity.origin,
            ));
            return None;
        }
        if mark.is_none() && !identity.adopt {
            draft.report.refused.push(finding(
                address,
                "identity-not-ours",
                format!("identity {} exists and does not carry our tag", seen.id.name()),
                format!(
                    "to take it over write `identity = \"{}\"` or `adopt = true`; to use it as \
                     it is write `identity = \"{}\"`",
                    seen.id.name(),
                    seen.id
                ),
                &identity.origin,
            ));
            return None;
        }
    }
    let missing: BTreeMap<String, String> = identity
        .tags
        .iter()
        .filter(|_| managed)
        .filter_map(|(key, value)| match seen.tag(key) {
            None => Some((key.clone(), value.clone())),
            Some((_, have)) if have == value => None,
            Some((_, have)) if key == names::SOURCE_TAG && is_same_file(have, value) => None,
            Some((name, _)) => Some((name.to_owned(), value.clone())),
        })
        .collect();
    let mut needs = Vec::new();
    if !missing.is_empty() {
        if mark.is_none() {
            draft.report.risks.push(finding(
                address.clone(),
                "identity-taken-over",
                format!("identity {} was made by somebody else and becomes ours", seen.id.name()),
                None,
                &identity.origin,
            ));
        }
        let have = |key: &str| seen.tags.get(key).map(String::as_str);
        let change = draft.change(NewChange {
            address: address.clone(),
            kind: ObjectKind::AzureUserAssignedIdentity,
            action: Action::Update,
            id: seen.id.to_string(),
            fields: missing
                .iter()
                .map(|(key, value)| known(format!("tags.{key}"), have(key), value.as_str()))
                .collect(),
            reasons: missing
                .iter()
                .map(|(key, value)| differs(&format!("tags.{key}"), have(key), value))
                .collect(),
            workloads: workloads.iter().map(|workload| workload.address()).collect(),
            origin: identity.origin.clone(),
        });
        needs.push(draft.step(NewStep {
            address,
            operation: Operation::TagIdentity {
                id: identity.id.clone(),
                expect:
                    missing.keys().map(|key| (key.clone(), seen.tags.get(key).cloned())).collect(),
                tags: missing,
                principal: seen.principal_id,
            },
            needs: Vec::new(),
            locks: BTreeSet::from([Lock::Identity(identity.id.clone())]),
            workloads: workloads.iter().map(|workload| workload.address()).collect(),
            origin: identity.origin.clone(),
            change: Some(change),
        }));
    }
    Some(IdentityState {
        identity,
        client: Value::Known(seen.client_id),
        principal: Value::Known(seen.principal_id),
        needs,
    })
}

/// Whether two paths may name one file: from a Git work tree it is its path from the root, from an
/// unpacked artifact or another directory a shorter one. No run is to write what the next takes
/// back.
fn is_same_file(a: &str, b: &str) -> bool {
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    ends(a, b) || ends(b, a)
}

fn absent<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    identity: &'a DesiredIdentity,
    workloads: &[&'a DesiredWorkload],
) -> Option<IdentityState<'a>> {
    let home = &world.desired.home;
    let blocked = match (&identity.control, &world.snapshot.home) {
        (IdentityControl::External, _) => Some((
            "identity-not-found",
            format!(
                "identity {} does not exist, and one named by its id is never made",
                identity.id
            ),
            "correct `identity`, or write only its name to have it made".to_owned(),
        )),
        (IdentityControl::Managed, Observation::Absent) => Some((
            "resource-group-missing",
            format!("resource group {} does not exist", home.resource_group),
            format!(
                "az group create --subscription {} --name {} --location {}",
                home.subscription, home.resource_group, home.location
            ),
        )),
        (IdentityControl::Managed, Observation::Unknown(failure)) => {
            draft.unseen(address(identity), failure, &identity.origin);
            return None;
        }
        (IdentityControl::Managed, Observation::Present(())) => None,
    };
    if let Some((code, message, hint)) = blocked {
        for workload in workloads {
            let origin = &workload.origin;
            draft.report.blocked.push(finding(
                workload.address(),
                code,
                message.clone(),
                hint.clone(),
                origin,
            ));
        }
        return None;
    }
    let address = address(identity);
    let mut fields = vec![known("location", None, home.location.as_str())];
    fields.extend(
        identity.tags.iter().map(|(key, value)| known(format!("tags.{key}"), None, value.as_str())),
    );
    let change = draft.change(NewChange {
        address: address.clone(),
        kind: ObjectKind::AzureUserAssignedIdentity,
        action: Action::Create,
        id: identity.id.to_string(),
        fields,
        reasons: vec![Reason::Missing],
        workloads: workloads.iter().map(|workload| workload.address()).collect(),
        origin: identity.origin.clone(),
    });
    let step = draft.step(NewStep {
        address: address.clone(),
        operation: Operation::CreateIdentity {
            id: identity.id.clone(),
            location: home.location.clone(),
            tags: identity.tags.clone(),
        },
        needs: Vec::new(),
        locks: BTreeSet::from([Lock::Identity(identity.id.clone())]),
        workloads: workloads.iter().map(|workload| workload.address()).collect(),
        origin: identity.origin.clone(),
        change: Some(change),
    });
    Some(IdentityState {
        identity,
        client: Value::AfterApply(address.clone()),
        principal: Value::AfterApply(address),
        needs: vec![step],
    })
}
