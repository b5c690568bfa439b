//! From where a workload stands to the plan that moves it: the engine's own plan for the managed
//! identity that it answers as today, in which the roll also drops the old label, and the backup
//! of exactly what that plan changes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Phase, Workload, matching};
use crate::{
    model::{
        Address, ArmId, ClusterName, Origin, Project,
        address::Part,
        desired::{
            DesiredIdentity, DesiredState, DesiredWorkload, IdentityControl, ManagedBy,
            PodSelection, RolloutMode,
        },
        keeper, names,
        pod_identity::{BINDING_LABEL, Backup, Estate, EstateTemplate, Field, TemplateBackup},
    },
    plan::{
        Lock, Operation, Plan, Planned, Step, StepId, Value,
        step::{Sidecar, TemplateRef},
    },
};

/// What becomes of the label that Pod Identity selects by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldLabel {
    /// It goes in the same roll.
    Drop,
    /// It stays beside the new one: the workload is masked.
    Keep,
}

/// Whether `apply` takes a workload on: it may move and has not arrived. One whose pods are not
/// proved yet is waited for; of one that Git keeps only the identity is federated and proved.
/// Where the old label is kept, a masked one has arrived. One that was put back is left alone until
/// its application is changed or somebody names it: the same experiment would fail again.
pub fn is_due(workload: &Workload, old: OldLabel) -> bool {
    workload.may_move()
        && !workload.left_alone
        && workload.identity.is_some()
        && !workload.templates.is_empty()
        && match workload.phase {
            Phase::Discovered
            | Phase::IdentityFederated
            | Phase::TokenProved
            | Phase::Switched
            | Phase::HalfDone
            | Phase::Broken
            | Phase::RolledBack => true,
            Phase::Masked => old == OldLabel::Drop,
            Phase::Soaking | Phase::Soaked | Phase::BindingRemoved | Phase::Cleaned => false,
        }
}

/// What the engine is asked for: these workloads in this cluster, each acting as the managed
/// identity that it answers as today. No role is assigned and no identity is made.
pub fn desired(base: &DesiredState, cluster: &ClusterName, chosen: &[&Workload]) -> DesiredState {
    let mut identities = BTreeMap::new();
    let mut workloads = Vec::new();
    for workload in chosen {
        let Some(acts) = &workload.identity else { continue };
        let file = base
            .workloads
            .iter()
            .find(|w| w.namespace == workload.namespace && w.account == workload.account);
        let origin = file.map_or_else(nowhere, |file| file.origin.clone());
        identities.entry(acts.id.clone()).or_insert_with(|| external(&acts.id, &origin));
        workloads.push(DesiredWorkload {
            namespace: workload.namespace.clone(),
            account: workload.account.clone(),
            clusters: vec![cluster.clone()],
            identity: acts.id.clone(),
            tenant: acts.tenant,
            token_expiration: file.and_then(|file| file.token_expiration),
            pods: PodSelection::Named(workload.templates.clone()),
            rollout: RolloutMode::Auto,
            managed_by: file.map_or(ManagedBy::Auto, |file| file.managed_by),
            adopt: file.is_some_and(|file| file.adopt),
            probe: file.and_then(|file| file.probe.clone()),
            proxy: file.is_some_and(|file| file.proxy),
            chained: file.and_then(|file| file.chained),
            origin,
            selected: BTreeSet::from([cluster.clone()]),
        });
    }
    let clusters = base.clusters.iter().filter(|(name, _)| *name == cluster);
    DesiredState {
        project: base.project.clone(),
        tenant: base.tenant,
        home: base.home.clone(),
        clusters: clusters.map(|(name, cluster)| (name.clone(), cluster.clone())).collect(),
        identities,
        assignments: Vec::new(),
        workloads,
    }
}

fn nowhere() -> Origin {
    Origin { file: "AAD Pod Identity".to_owned(), line: 1, column: 1 }
}

fn external(id: &ArmId, origin: &Origin) -> DesiredIdentity {
    DesiredIdentity {
        id: id.clone(),
        control: IdentityControl::External,
        tags: BTreeMap::new(),
        adopt: true,
        origin: origin.clone(),
    }
}

/// Makes every roll of the plan drop the old label too, and adds a roll where only the old label
/// is in the way. A workload without a proof among the steps was refused or blocked: nothing is
/// added for it.
pub fn drop_old_labels(plan: &mut Plan, estate: &Estate, cluster: &ClusterName, of: &DesiredState) {
    let old = |target: &TemplateRef| {
        let same = |t: &&EstateTemplate| t.namespace == target.namespace && t.uid == target.uid;
        let template = estate.templates.iter().find(same)?;
        let value = template.labels.get(BINDING_LABEL)?;
        Some(BTreeMap::from([(BINDING_LABEL.to_owned(), value.clone())]))
    };
    let mut rolled = BTreeSet::new();
    for step in &mut plan.steps {
        if let Operation::RollTemplate { target, remove_labels, .. } = &mut step.operation {
            rolled.insert(target.uid.clone());
            *remove_labels = old(target).unwrap_or_default();
        }
    }
    for workload in &of.workloads {
        // The engine leaves what Git keeps alone, and so does this.
        let ours = |template: &EstateTemplate| match workload.managed_by {
            ManagedBy::Widentity => true,
            ManagedBy::Git => false,
            ManagedBy::Auto => template.kept_by.as_deref().is_none_or(|by| !keeper::puts_back(by)),
        };
        let masked: Vec<&EstateTemplate> = estate
            .templates
            .iter()
            .filter(|t| t.namespace == workload.namespace && t.account == workload.account)
            .filter(|t| ours(t))
            .filter(|t| t.labels.contains_key(BINDING_LABEL) && !rolled.contains(&t.uid))
            .filter(|t| t.labelled() && t.writable())
            .collect();
        let account = estate
            .accounts
            .iter()
            .find(|a| a.namespace == workload.namespace && a.name == workload.account);
        let pointed = account.and_then(|account| account.client_id.as_deref());
        unmask(plan, workload, cluster, pointed, &masked);
    }
}

fn unmask(
    plan: &mut Plan,
    workload: &DesiredWorkload,
    cluster: &ClusterName,
    pointed: Option<&str>,
    masked: &[&EstateTemplate],
) {
    let address = Address::workload(&workload.namespace, &workload.account).at(cluster);
    let proof = plan.steps.iter().find_map(|step| {
        let Operation::Prove { namespace, account, claim, .. } = &step.operation else {
            return None;
        };
        let ours = *namespace == workload.namespace && *account == workload.account;
        ours.then(|| (step.id, claim.clone()))
    });
    let (Some((proof, claim)), Some(first)) = (proof, masked.first()) else { return };
    let annotated = plan.steps.iter().find_map(|step| {
        let Operation::AnnotateAccount { namespace, account, .. } = &step.operation else {
            return None;
        };
        let ours = *namespace == workload.namespace && *account == workload.account;
        ours.then_some(step.id)
    });
    // Without the old label only an account that points at the identity answers. Where Git keeps
    // the account, it comes first.
    let points = match &claim.client {
        Value::Known(client) => {
            pointed.is_some_and(|have| have.eq_ignore_ascii_case(&client.to_string()))
        }
        Value::AfterApply(_) => false,
    };
    if annotated.is_none() && !points {
        return;
    }
    let mut needs: Vec<StepId> = std::iter::once(proof).chain(annotated).collect();
    let expiration = workload.expiration();
    let mut add = |address: Address, operation: Operation, needs: Vec<StepId>, locks| {
        let id = StepId(plan.steps.len());
        plan.steps.push(Step {
            id,
            address: address.clone(),
            operation,
            needs,
            locks,
            workloads: vec![address],
            origin: workload.origin.clone(),
            change: None,
        });
        id
    };
    // A webhook that is down stops here, before the first pod is lost.
    let check = Operation::CheckInjection {
        namespace: workload.namespace.clone(),
        account: workload.account.clone(),
        like: target(first),
        audience: claim.audience.clone(),
        proxy: workload.proxy,
    };
    needs.push(add(address.clone().part(Part::Pods), check, vec![proof], BTreeSet::new()));
    let (mut rolls, mut awaited) = (Vec::new(), false);
    for template in masked {
        awaited |= template.strategy.rolls_by_itself();
        let of = |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned();
        let key = format!("{}/{}/{}", template.kind.as_str(), template.namespace, template.name);
        let operation = Operation::RollTemplate {
            target: target(template),
            account: workload.account.clone(),
            client: claim.client.clone(),
            tenant: workload.tenant,
            audience: claim.audience.clone(),
            expiration,
            round: 0,
            force: workload.adopt,
            wait: template.strategy.rolls_by_itself(),
            expect: (
                of(&template.labels, names::USE_LABEL),
                of(&template.annotations, names::CHAIN_ANNOTATION),
            ),
            remove_labels: of(&template.labels, BINDING_LABEL)
                .map(|value| (BINDING_LABEL.to_owned(), value))
                .into_iter()
                .collect(),
            // The plan would have rolled it if anything about the sidecar were to change; ours
            // stays ours.
            sidecar: if workload.proxy && template.proxied() {
                Sidecar::Set
            } else {
                Sidecar::NotOurs
            },
        };
        let at = address.clone().part(Part::PodTemplate(template.key()));
        let lock = BTreeSet::from([Lock::Object(cluster.clone(), key)]);
        rolls.push(add(at, operation, needs.clone(), lock));
    }
    if !awaited {
        return;
    }
    let operation = Operation::ProvePods {
        namespace: workload.namespace.clone(),
        account: workload.account.clone(),
        client: claim.client,
        tenant: workload.tenant,
        audience: claim.audience,
        expiration,
    };
    add(address.part(Part::Pods), operation, rolls, BTreeSet::new());
}

/// How the plan names this template.
pub fn target(template: &EstateTemplate) -> TemplateRef {
    TemplateRef {
        namespace: template.namespace.clone(),
        kind: template.kind,
        api_version: template.api_version.clone(),
        name: template.name.clone(),
        uid: template.uid.clone(),
    }
}

/// The backup of one workload before this plan: for each field that the plan changes, its value now
/// and the one it will get; none where nothing changes. Where an earlier run wrote the present value,
/// the older one is kept; any other present value is somebody's later change, and a rollback returns
/// to it.
pub fn backup(
    plan: &Plan,
    project: &Project,
    estate: &Estate,
    workload: &Workload,
) -> Option<Backup> {
    let acts = workload.identity.as_ref()?;
    let of = |b: &&Backup| b.namespace == workload.namespace && b.account == workload.account;
    let earlier = estate.backups.iter().find(of);
    let mut backup = earlier.cloned().unwrap_or_default();
    // One that was put back and is taken up again is on its way; one that the plan refuses is not.
    let name = workload.name();
    let taken = |step: &Step| step.address.workload_name().as_deref() == Some(name.as_str());
    let mut changes = backup.rolled_back && plan.steps.iter().any(taken);
    if backup.rolled_back {
        (backup.rolled_back, backup.blameless) = (false, false);
        (backup.removed, backup.add_on) = Default::default();
        (backup.bindings, backup.unrun) = Default::default();
    }
    backup.namespace = workload.namespace.clone();
    backup.account = workload.account.clone();
    backup.identity = acts.id.to_string();
    backup.client_id = acts.client.to_string();
    let bindings: BTreeSet<String> =
        backup.bindings.iter().chain(&workload.bindings).cloned().collect();
    backup.bindings = bindings.into_iter().collect();
    for step in &plan.steps {
        match &step.operation {
            Operation::CreateAccount { namespace, account }
                if *namespace == workload.namespace && *account == workload.account =>
            {
                backup.account_made = true;
                (backup.account_uid, backup.annotations) = (None, BTreeMap::new());
                changes = true;
            }
            Operation::AnnotateAccount {
                namespace,
                account,
                uid,
                tenant,
                expiration,
                expect,
                ..
            } if *namespace == workload.namespace && *account == workload.account => {
                changes = true;
                // An account that was made again has nothing of the one before.
                let known = backup.account_uid.as_ref();
                if uid.as_ref().is_some_and(|uid| known.is_some_and(|known| known != uid)) {
                    backup.annotations.clear();
                }
                backup.account_uid.clone_from(uid);
                for (key, before) in expect {
                    let after = match key.as_str() {
                        names::CLIENT_ID_ANNOTATION => Some(acts.client.to_string()),
                        names::TENANT_ID_ANNOTATION => Some(tenant.to_string()),
                        names::EXPIRATION_ANNOTATION => expiration.map(|s| s.to_string()),
                        _ => mark(plan, key),
                    };
                    remember(&mut backup.annotations, key, before.clone(), after);
                }
            }
            Operation::RollTemplate {
                target,
                account,
                client: _,
                tenant,
                audience,
                expiration,
                round,
                expect,
                remove_labels,
                sidecar,
                ..
            } if target.namespace == workload.namespace && *account == workload.account => {
                changes = true;
                let seen = estate
                    .templates
                    .iter()
                    .find(|t| t.namespace == target.namespace && t.uid == target.uid);
                let kept = entry(&mut backup.templates, target);
                kept.shape = seen.map(|t| t.shape.clone()).unwrap_or_default();
                // A label that an earlier run dropped is not there any more: what it noted counts.
                if let Some(selector) = seen.and_then(EstateTemplate::selector) {
                    kept.unanswered = !matching::gives(estate, &target.namespace, selector);
                }
                let chain = names::chain_value(
                    acts.client,
                    *tenant,
                    audience,
                    *expiration,
                    account,
                    *round,
                );
                let used = Some("true".to_owned());
                remember(&mut kept.labels, names::USE_LABEL, expect.0.clone(), used);
                remember(
                    &mut kept.annotations,
                    names::CHAIN_ANNOTATION,
                    expect.1.clone(),
                    Some(chain),
                );
                for (label, value) in remove_labels {
                    remember(&mut kept.labels, label, Some(value.clone()), None);
                }
                let before = seen.and_then(|t| t.annotations.get(names::PROXY_ANNOTATION).cloned());
                let proxy = names::PROXY_ANNOTATION;
                match sidecar {
                    Sidecar::Set if before.is_none() => {
                        remember(&mut kept.annotations, proxy, None, Some("true".to_owned()));
                    }
                    Sidecar::Dropped { value } => {
                        remember(&mut kept.annotations, proxy, Some(value.clone()), None);
                    }
                    Sidecar::Set | Sidecar::NotOurs => {}
                }
                let had = seen.and_then(|t| t.project.clone());
                kept.mark = Some(again(kept.mark.take(), had, Some(project.to_string())));
            }
            Operation::EnableFeatures { .. }
            | Operation::CreateIdentity { .. }
            | Operation::TagIdentity { .. }
            | Operation::PutCredential { .. }
            | Operation::PutAssignment { .. }
            | Operation::SettleRoles { .. }
            | Operation::ConfirmCluster { .. }
            | Operation::CreateAccount { .. }
            | Operation::Prove { .. }
            | Operation::AnnotateAccount { .. }
            | Operation::CheckInjection { .. }
            | Operation::RollTemplate { .. }
            | Operation::AwaitRollout { .. }
            | Operation::ProvePods { .. } => {}
        }
    }
    changes.then_some(backup)
}

/// The entry of a template; what was written down of one that was made again says nothing of it.
fn entry<'a>(kept: &'a mut Vec<TemplateBackup>, target: &TemplateRef) -> &'a mut TemplateBackup {
    let key = format!("{}/{}", target.kind.as_str(), target.name);
    kept.retain(|t| t.key != key || t.uid == target.uid);
    let at = kept.iter().position(|t| t.key == key).unwrap_or_else(|| {
        let uid = target.uid.clone();
        kept.push(TemplateBackup { key, uid, ..TemplateBackup::default() });
        kept.len() - 1
    });
    &mut kept[at]
}

/// The project's mark, as the plan's changes have it.
fn mark(plan: &Plan, key: &str) -> Option<String> {
    let path = format!("metadata.annotations[\"{key}\"]");
    let fields = plan.changes.iter().flat_map(|change| &change.fields);
    let field = fields.into_iter().find(|field| field.field == path)?;
    match &field.after {
        Planned::Known(value) => value.as_str().map(str::to_owned),
        Planned::AfterApply(_) => None,
    }
}

/// A field that is about to change. `present` is its value now: where that is not what an earlier
/// run left, it is the value to go back to.
fn again(earlier: Option<Field>, present: Option<String>, after: Option<String>) -> Field {
    let before = match earlier {
        Some(earlier) if earlier.after == present => earlier.before,
        Some(_) | None => present,
    };
    Field { before, after }
}

fn remember(
    fields: &mut BTreeMap<String, Field>,
    key: &str,
    present: Option<String>,
    after: Option<String>,
) {
    let field = again(fields.remove(key), present, after);
    fields.insert(key.to_owned(), field);
}
