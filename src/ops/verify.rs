//! `verify`: the proof of every workload, without writing anything.

use std::collections::BTreeMap;

use super::Planned;
use crate::{
    model::{Address, address::Part},
    plan::{Operation, Step, StepId, Value, report::Finding, step::Claim},
};

/// The same plan reduced to what proves: no change, no write, no rollout. A proof whose identity
/// does not exist yet is a finding.
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
        if !ready {
            if matches!(step.operation, Operation::Prove { .. }) {
                report.not_proved.push(incomplete(&step));
            }
            continue;
        }
        let id = StepId(kept.len());
        places.insert(step.id, id);
        let needs = step.needs.iter().filter_map(|need| places.get(need).copied()).collect();
        kept.push(Step { id, needs, change: None, ..step });
    }
    plan.steps = kept;
    plan.changes.clear();
    // What waits for somebody else's write is not what is asked here.
    report.pending_git.clear();
    report.pending_rollout.clear();
    report.risks.clear();
    report.left_over.clear();
    Planned { scope, plan, report }
}

fn known<T>(value: &Value<T>) -> bool {
    matches!(value, Value::Known(_))
}

fn claim_is_known(claim: &Claim) -> bool {
    let Claim { client, principal, tenant: _, issuer, audience: _, identity: _ } = claim;
    known(client) && known(principal) && known(issuer)
}

fn incomplete(step: &Step) -> Finding {
    Finding {
        address: proof_of(&step.address),
        code: "chain-incomplete".to_owned(),
        message: "the chain is not complete: its identity or issuer does not exist yet".to_owned(),
        hint: Some("widentity plan shows what is missing; widentity apply makes it".to_owned()),
        origin: step.origin.clone(),
    }
}

/// The workload in its cluster, without the word `proof`.
fn proof_of(address: &Address) -> Address {
    match address {
        Address::Workload { namespace, account, cluster, part: Some(Part::Proof) } => {
            Address::Workload {
                namespace: namespace.clone(),
                account: account.clone(),
                cluster: cluster.clone(),
                part: None,
            }
        }
        Address::Cluster(_) | Address::Identity(_) | Address::Workload { .. } => address.clone(),
    }
}
