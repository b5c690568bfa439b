//! Federated credentials: issuer, subject, audience on an identity.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Lock, ObjectKind, Operation, Reason, StepId, Value,
    cluster::ClusterState,
    draft::{Draft, NewChange, NewStep, differs, finding, invented, known, near},
    identity::IdentityState,
    planner::{World, not_read},
};
use crate::model::{
    Address, ArmId, Issuer,
    address::Part,
    desired::DesiredWorkload,
    names::{self, MOST_CREDENTIALS},
    snapshot::{Observation, ObservedCredential},
};

/// How many credentials each identity has, those planned so far included.
pub(super) type Counts<'a> = BTreeMap<&'a ArmId, usize>;

/// Plans the credential of one workload in one cluster. `Err`: it is held and the report says
/// why; `Ok(None)`: it is as wanted.
pub(super) fn plan<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    counts: &mut Counts<'a>,
    workload: &DesiredWorkload,
    cluster: &ClusterState<'_>,
    identity: &IdentityState<'a>,
) -> Result<Option<StepId>, ()> {
    let place = workload.address().at(&cluster.cluster.name);
    let address = place.clone().part(Part::FederatedCredential);
    let nothing = Vec::new();
    let seen = match (&identity.client, world.snapshot.credentials.get(&identity.identity.id)) {
        (Value::AfterApply(_), _) | (Value::Known(_), Some(Observation::Absent)) => &nothing,
        (Value::Known(_), Some(Observation::Present(seen))) => seen,
        (Value::Known(_), Some(Observation::Unknown(failure))) => {
            draft.unseen(address, failure, &workload.origin);
            return Err(());
        }
        (Value::Known(_), None) => {
            draft.unseen(address, &not_read(&identity.identity.id), &workload.origin);
            return Err(());
        }
    };
    let count = counts.entry(&identity.identity.id).or_insert(seen.len());
    let project = &world.desired.project;
    let name = names::federated_credential(
        project,
        &cluster.cluster.id,
        &workload.namespace,
        &workload.account,
    );
    let subject = workload.subject();
    let issuer = match &cluster.issuer {
        Value::Known(issuer) => Some(issuer),
        Value::AfterApply(_) => None,
    };
    let by_pair =
        seen.iter().find(|c| Some(&c.issuer) == issuer && c.subject.as_ref() == Some(&subject));
    let found = by_pair.or_else(|| seen.iter().find(|c| c.name == name));
    let audience_is_right =
        found.is_some_and(|found| found.audiences == [cluster.cluster.audience.clone()]);
    if by_pair.is_some() && audience_is_right {
        return Ok(None);
    }
    if let Some(found) = found {
        if found.name != name {
            draft.report.risks.push(finding(
                address.clone(),
                "foreign-credential-changed",
                format!("credential {} was made by somebody else and is updated", found.name),
                None,
                &workload.origin,
            ));
        }
    } else {
        if *count >= MOST_CREDENTIALS {
            draft.report.blocked.push(finding(
                place,
                "twenty-credentials",
                format!(
                    "identity {} has no room for another federated credential: Azure allows {MOST_CREDENTIALS}",
                    identity.identity.id.name()
                ),
                "give some of its workloads an `identity` of their own".to_owned(),
                &workload.origin,
            ));
            return Err(());
        }
        *count += 1;
        look_alikes(draft, seen, &address, workload, issuer);
    }
    let before_issuer = found.map(|found| found.issuer.as_str());
    let before_subject =
        found.and_then(|found| found.subject.as_ref()).map(crate::model::Subject::as_str);
    let before_audience =
        found.and_then(|found| found.audiences.first()).map(crate::model::Audience::as_str);
    let issuer_formula = format!("issuer of cluster/{}", cluster.cluster.name);
    let all = vec![
        invented("issuer", before_issuer, &cluster.issuer, issuer_formula.clone()),
        known("subject", before_subject, subject.as_str()),
        known("audience", before_audience, cluster.cluster.audience.as_str()),
    ];
    let (fields, reasons) = if found.is_none() {
        (all, vec![Reason::Missing])
    } else {
        let want_issuer = issuer.map_or(issuer_formula, Issuer::to_string);
        let pairs = [
            ("issuer", before_issuer, want_issuer),
            ("subject", before_subject, subject.to_string()),
            ("audience", before_audience, cluster.cluster.audience.to_string()),
        ];
        let differing: Vec<_> =
            pairs.into_iter().filter(|(_, have, want)| *have != Some(want)).collect();
        let changed: BTreeSet<&str> = differing.iter().map(|(field, _, _)| *field).collect();
        let fields = all.into_iter().filter(|f| changed.contains(f.field.as_str())).collect();
        let reasons =
            differing.into_iter().map(|(field, have, want)| differs(field, have, want)).collect();
        (fields, reasons)
    };
    let used = found.map_or(name, |found| found.name.clone());
    let id = identity.identity.id.child("federatedIdentityCredentials", &used);
    let change = draft.change(NewChange {
        address: address.clone(),
        kind: ObjectKind::AzureFederatedIdentityCredential,
        action: if found.is_some() { Action::Update } else { Action::Create },
        id: id.to_string(),
        fields,
        reasons,
        workloads: vec![place.clone()],
        origin: workload.origin.clone(),
    });
    let mut needs = identity.needs.clone();
    if issuer.is_none() {
        needs.extend(&cluster.enabled);
    }
    Ok(Some(draft.step(NewStep {
        address,
        operation: Operation::PutCredential {
            identity: identity.identity.id.clone(),
            name: used,
            issuer: cluster.issuer.clone(),
            subject,
            audience: cluster.cluster.audience.clone(),
            expect: found.cloned(),
        },
        needs,
        locks: BTreeSet::from([Lock::Identity(identity.identity.id.clone())]),
        workloads: vec![place],
        origin: workload.origin.clone(),
        change: Some(change),
    })))
}

/// Names credentials that nearly are the wanted one: they explain why it "was there already".
fn look_alikes(
    draft: &mut Draft,
    seen: &[ObservedCredential],
    address: &Address,
    workload: &DesiredWorkload,
    issuer: Option<&Issuer>,
) {
    let Some(issuer) = issuer else { return };
    let subject = workload.subject();
    for credential in seen {
        let Some(have) = &credential.subject else { continue };
        let issuer_near = near(credential.issuer.as_str(), issuer.as_str());
        let subject_near = near(have.as_str(), subject.as_str());
        let what = match (issuer_near, subject_near) {
            (Some(how), None) if *have == subject => format!("{how} in its issuer"),
            (None, Some(how)) if credential.issuer == *issuer => format!("{how} in its subject"),
            (Some(issuer), Some(subject)) => {
                format!("{issuer} in its issuer and {subject} in its subject")
            }
            _ => continue,
        };
        draft.report.risks.push(finding(
            address.clone(),
            "look-alike-credential",
            format!(
                "credential {} looks like the one needed and does not match: {what}",
                credential.name
            ),
            None,
            &workload.origin,
        ));
    }
}
