//! [`Config`] to [`DesiredState`]: names, merged grants, and what was chosen.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Selection, SelectionError, checked::Workload};
use crate::model::{
    Address, ArmId, ClusterName,
    address::Part,
    desired::{DesiredAssignment, DesiredIdentity, DesiredState, DesiredWorkload, IdentityControl},
    names::{PROJECT_TAG, PROTECT_TAG, SOURCE_TAG, sha256_hex},
};

/// What the file asks for, all of it; what was not chosen is marked so. Fails only if the
/// selection chooses nothing.
pub fn compile(config: &Config, selection: &Selection) -> Result<DesiredState, SelectionError> {
    let chosen = selection.choose(config)?;
    Ok(DesiredState {
        project: config.project.clone(),
        tenant: config.tenant,
        home: config.home.clone(),
        clusters: config.clusters.clone(),
        identities: identities(config),
        assignments: assignments(config),
        workloads: config.workloads.iter().zip(chosen).map(|(w, c)| workload(w, c)).collect(),
    })
}

fn workload(workload: &Workload, selected: BTreeSet<ClusterName>) -> DesiredWorkload {
    DesiredWorkload {
        namespace: workload.namespace.clone(),
        account: workload.account.clone(),
        clusters: workload.clusters.clone(),
        identity: workload.identity.id.clone(),
        tenant: workload.tenant,
        token_expiration: workload.token_expiration,
        pods: workload.pods.clone(),
        rollout: workload.rollout,
        managed_by: workload.managed_by,
        adopt: workload.adopt,
        probe: workload.probe.clone(),
        proxy: workload.proxy,
        chained: workload.chained,
        origin: workload.origin.clone(),
        selected,
    }
}

fn identities(config: &Config) -> BTreeMap<ArmId, DesiredIdentity> {
    let mut identities: BTreeMap<ArmId, DesiredIdentity> = BTreeMap::new();
    for workload in &config.workloads {
        let identity = &workload.identity;
        let entry = identities.entry(identity.id.clone()).or_insert_with(|| {
            let tags = match identity.control {
                IdentityControl::Managed => tags(config),
                IdentityControl::External => BTreeMap::new(),
            };
            DesiredIdentity {
                id: identity.id.clone(),
                control: identity.control,
                tags,
                adopt: false,
                origin: identity.origin.clone(),
            }
        });
        entry.adopt |= workload.adopt || identity.written;
        if workload.protect && identity.control == IdentityControl::Managed {
            entry.tags.insert(PROTECT_TAG.to_owned(), "true".to_owned());
        }
    }
    identities
}

fn tags(config: &Config) -> BTreeMap<String, String> {
    // Azure takes 256 characters; the end of a path says more than its beginning.
    let long = config.source.chars().count().saturating_sub(256);
    let source: String = config.source.chars().skip(long).collect();
    let mut tags = config.tags.clone();
    tags.insert(PROJECT_TAG.to_owned(), config.project.to_string());
    tags.insert(SOURCE_TAG.to_owned(), source);
    tags
}

fn assignments(config: &Config) -> Vec<DesiredAssignment> {
    let mut merged: BTreeMap<(ArmId, (String, String)), DesiredAssignment> = BTreeMap::new();
    for (index, workload) in config.workloads.iter().enumerate() {
        for grant in &workload.grants {
            let key = (workload.identity.id.clone(), grant.key());
            let entry = merged.entry(key).or_insert_with(|| DesiredAssignment {
                identity: workload.identity.id.clone(),
                role: grant.role.clone(),
                scope: grant.scope.clone(),
                condition: grant.condition.clone(),
                workloads: Vec::new(),
                address: Address::workload(&workload.namespace, &workload.account)
                    .part(Part::RoleAssignment(short_name(&grant.role.label(), &grant.scope))),
                origin: grant.origin.clone(),
            });
            // Once: a workload has each role and target once.
            entry.workloads.push(index);
        }
    }
    let mut all: Vec<_> = merged.into_values().collect();
    tell_apart(&mut all);
    all.sort_by(|a, b| (&a.workloads, &a.address).cmp(&(&b.workloads, &b.address)));
    all
}

/// `<role in kebab case>.<last segment of the scope>`.
fn short_name(role: &str, scope: &ArmId) -> String {
    let words = role.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let role: Vec<String> = words.map(str::to_lowercase).collect();
    let last = scope.key().rsplit('/').next().filter(|last| !last.is_empty());
    format!("{}.{}", role.join("-"), last.unwrap_or("root"))
}

/// Adds four hex digits to addresses that several assignments would have: the same role on two
/// targets with one name.
fn tell_apart(assignments: &mut [DesiredAssignment]) {
    let mut count: BTreeMap<Address, usize> = BTreeMap::new();
    for assignment in &*assignments {
        *count.entry(assignment.address.clone()).or_default() += 1;
    }
    for assignment in assignments {
        if count.get(&assignment.address).is_some_and(|n| *n > 1)
            && let Address::Workload { part: Some(Part::RoleAssignment(name)), .. } =
                &mut assignment.address
        {
            let exact = format!("{}\0{}", assignment.role.label(), assignment.scope.key());
            *name = format!("{name}-{}", sha256_hex(&exact, 4));
        }
    }
}
