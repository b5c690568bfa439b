//! Objects with our marks that the file no longer explains. They are listed, never touched.

use std::collections::{BTreeMap, BTreeSet};

use super::{draft::Draft, planner::World, report::LeftOver};
use crate::model::{
    AccountName, ArmId, ClusterName, Namespace, PrincipalId,
    desired::{DesiredCluster, DesiredWorkload, IdentityControl, Role},
    names,
    snapshot::Observation,
};

/// Finds them. Workloads that `--only` left out explain their objects too.
pub(super) fn find(world: &World<'_>, draft: &mut Draft) {
    let left = &mut draft.report.left_over;
    for identity in &world.snapshot.other_identities {
        if !world.desired.identities.contains_key(&identity.id) {
            left.push(LeftOver {
                kind: "identity".to_owned(),
                id: Some(identity.id.clone()),
                name: identity.id.name().to_owned(),
            });
        }
    }
    credentials(world, left);
    assignments(world, left);
    accounts(world, left);
}

fn credentials(world: &World<'_>, left: &mut Vec<LeftOver>) {
    let desired = world.desired;
    let prefix = names::federated_credential_prefix(&desired.project);
    let mut explained: BTreeMap<&ArmId, BTreeSet<String>> = BTreeMap::new();
    for workload in &desired.workloads {
        for cluster in workload.clusters.iter().filter_map(|name| desired.clusters.get(name)) {
            let name = names::federated_credential(
                &desired.project,
                &cluster.id,
                &workload.namespace,
                &workload.account,
            );
            if !another_serves(world, workload, cluster, &name) {
                explained.entry(&workload.identity).or_default().insert(name);
            }
        }
    }
    for (identity, seen) in &world.snapshot.credentials {
        for credential in seen.present().into_iter().flatten() {
            let known =
                explained.get(identity).is_some_and(|names| names.contains(&credential.name));
            if credential.name.starts_with(&prefix) && !known {
                left.push(LeftOver {
                    kind: "federated credential".to_owned(),
                    id: Some(identity.child("federatedIdentityCredentials", &credential.name)),
                    name: format!("{} on identity {}", credential.name, identity.name()),
                });
            }
        }
    }
}

/// Whether a credential of another name already has this issuer and subject: then it is the one
/// used, and one under our name serves nobody.
fn another_serves(
    world: &World<'_>,
    workload: &DesiredWorkload,
    cluster: &DesiredCluster,
    ours: &str,
) -> bool {
    let seen = world.snapshot.credentials.get(&workload.identity).and_then(Observation::present);
    let arm = world.snapshot.clusters.get(&cluster.name).and_then(|c| c.arm.present());
    let Some(issuer) = arm.and_then(|arm| arm.issuer.as_ref()) else { return false };
    let subject = workload.subject();
    seen.into_iter().flatten().any(|credential| {
        credential.issuer == *issuer
            && credential.subject.as_ref() == Some(&subject)
            && credential.name != ours
    })
}

fn assignments(world: &World<'_>, left: &mut Vec<LeftOver>) {
    let desired = world.desired;
    let mark = names::role_assignment_description(&desired.project);
    let mut principals: BTreeMap<PrincipalId, &ArmId> = BTreeMap::new();
    for (id, identity) in &desired.identities {
        let seen = world.snapshot.identities.get(id).and_then(Observation::present);
        if let Some(seen) = seen.filter(|_| identity.control == IdentityControl::Managed) {
            principals.insert(seen.principal_id, id);
        }
    }
    for assignment in &world.snapshot.assignments.seen {
        let Some(identity) = principals.get(&assignment.principal_id) else { continue };
        let explained = desired.assignments.iter().any(|wanted| {
            wanted.identity == **identity
                && wanted.scope == assignment.scope
                && match &wanted.role {
                    Role::Known { id, .. } => *id == assignment.role,
                    Role::Named { name } => {
                        let found = world.snapshot.roles.get(&name.to_lowercase());
                        found
                            .and_then(Observation::present)
                            .is_some_and(|roles| roles.contains(&assignment.role))
                    }
                }
        });
        if assignment.description.as_deref() == Some(mark.as_str()) && !explained {
            left.push(LeftOver {
                kind: "role assignment".to_owned(),
                id: Some(assignment.id.clone()),
                name: format!("role {} at {}", assignment.role, assignment.scope),
            });
        }
    }
}

fn accounts(world: &World<'_>, left: &mut Vec<LeftOver>) {
    let desired = world.desired;
    let explained: BTreeSet<(&ClusterName, &Namespace, &AccountName)> = desired
        .workloads
        .iter()
        .flat_map(|workload| {
            workload.clusters.iter().map(move |name| (name, &workload.namespace, &workload.account))
        })
        .collect();
    for (cluster, seen) in &world.snapshot.clusters {
        let Some(kubernetes) = seen.kubernetes.present() else { continue };
        let mine =
            |mark: Option<&String>| mark.map(String::as_str) == Some(desired.project.as_str());
        for (namespace, accounts) in &kubernetes.accounts {
            for (name, account) in accounts.present().into_iter().flatten() {
                let ours = mine(account.meta.annotations.get(names::PROJECT_ANNOTATION));
                if ours && !explained.contains(&(cluster, namespace, name)) {
                    left.push(LeftOver {
                        kind: "service account".to_owned(),
                        id: None,
                        name: format!("{cluster}: {namespace}/{name}"),
                    });
                }
            }
        }
        for (namespace, templates) in &kubernetes.templates {
            for template in templates.present().into_iter().flatten() {
                let ours = mine(template.meta.annotations.get(names::PROJECT_ANNOTATION));
                if ours && !explained.contains(&(cluster, namespace, &template.account)) {
                    left.push(LeftOver {
                        kind: template.kind.as_str().to_owned(),
                        id: None,
                        name: format!("{cluster}: {namespace}/{}", template.name),
                    });
                }
            }
        }
    }
}
