//! `verify`: the proof of every workload, without writing anything.

use std::collections::BTreeMap;

use super::Planned;
use crate::plan::{
    Action, Change, ObjectKind, Operation, Step, StepId, Value, report::Finding, step::Claim,
};
pub use crate::prove::{How as ProofMethod, pod::DEFAULT_IMAGE, retry::Window as ProofWindow};

/// The same plan reduced to what proves: no change, no write, no rollout. What the plan would
/// change is a finding: a chain that differs from the file is not proved by a token alone.
#[must_use]
pub fn proofs_only(planned: Planned) -> Planned {
    let Planned { scope, mut plan, mut report } = planned;
    let mut kept: Vec<Step> = Vec::new();
    let mut places = BTreeMap::new();
    for step in plan.steps {
        let ready = match &step.operation {
            Operation::ConfirmCluster { issuer, .. } => known(issuer),
            Operation::Prove { claim, .. } => claim_is_known(claim),
            Operation::ProvePods { client, .. } => known(client),
            Operation::EnableFeatures { .. }
            | Operation::CreateIdentity { .. }
            | Operation::TagIdentity { .. }
            | Operation::PutCredential { .. }
            | Operation::PutAssignment { .. }
            | Operation::SettleRoles { .. }
            | Operation::CreateAccount { .. }
            | Operation::AnnotateAccount { .. }
            | Operation::CheckInjection { .. }
            | Operation::RollTemplate { .. }
            | Operation::AwaitRollout { .. } => continue,
        };
        // What it rests on does not exist yet: that is among the changes below.
        if !ready {
            continue;
        }
        let id = StepId(kept.len());
        places.insert(step.id, id);
        let needs = step.needs.iter().filter_map(|need| places.get(need).copied()).collect();
        kept.push(Step { id, needs, change: None, ..step });
    }
    plan.steps = kept;
    report.not_proved.extend(plan.changes.drain(..).filter_map(|change| broken_link(&change)));
    plan.digests.clear();
    report.risks.clear();
    report.left_over.clear();
    Planned { scope, plan, report }
}

fn known<T>(value: &Value<T>) -> bool {
    matches!(value, Value::Known(_))
}

fn claim_is_known(claim: &Claim) -> bool {
    let Claim { client, principal, issuer, tenant: _, audience: _, identity: _, grants: _ } = claim;
    known(client) && known(principal) && known(issuer)
}

/// A difference that breaks the chain, as a finding; nothing for what the chain does not need.
fn broken_link(change: &Change) -> Option<Finding> {
    let (what, missing) = match (change.kind, change.action) {
        // Tags are our mark, no link.
        (ObjectKind::AzureUserAssignedIdentity, Action::Update) => return None,
        (ObjectKind::AzureUserAssignedIdentity, Action::Create) => ("the identity", true),
        (ObjectKind::AzureKubernetesCluster, _) => ("the cluster's issuer or webhook", false),
        (ObjectKind::AzureFederatedIdentityCredential, action) => {
            ("the federated credential", action == Action::Create)
        }
        (ObjectKind::AzureRoleAssignment, action) => {
            ("the role assignment", action == Action::Create)
        }
        (ObjectKind::KubernetesServiceAccount, action) => {
            ("the service account", action == Action::Create)
        }
        (ObjectKind::KubernetesPodTemplate, _) => ("the pod template", false),
        (ObjectKind::KubernetesRollout, _) => ("what live pods carry", false),
    };
    let how = if missing { "does not exist" } else { "is not as the file wants it" };
    Some(Finding {
        address: change.address.clone(),
        code: "chain-differs".to_owned(),
        message: format!("{what} {how}"),
        hint: Some("widentity plan shows the difference".to_owned()),
        origin: change.origin.clone(),
    })
}
