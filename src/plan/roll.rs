//! The steps of a roll: the check of the webhook, the write, the wait, the proof of the pods.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Lock, ObjectKind, Operation, Reason, StepId, Value,
    draft::{Draft, NewChange, NewStep, differs, finding, invented, known},
    ownership,
    planner::{Place, World, take_over},
    sidecar::{self, Wish},
    step::TemplateRef,
    template::{CHAIN_PATH, LABEL_PATH, Rolling, template_path, wanted},
};
use crate::model::{
    Address,
    address::Part,
    names,
    snapshot::{ObservedPod, ObservedTemplate, OwnedField, Strategy},
};

/// How one template is written.
pub(super) struct Writing {
    pub(super) round: u32,
    pub(super) stale: Option<(usize, String)>,
    pub(super) wish: Wish,
}

/// Plans the write of one template; none where a foreign manager's field refuses it.
pub(super) fn write(
    world: &World<'_>,
    draft: &mut Draft,
    rolling: &Rolling<'_, '_>,
    template: &ObservedTemplate,
    writing: Writing,
    own: &[&ObservedPod],
) -> Option<StepId> {
    let Writing { round, stale, wish } = writing;
    let place = rolling.place;
    let workload = place.workload;
    let label = template.labels.get(names::USE_LABEL).map(String::as_str);
    // A rollout that only re-triggers stale pods is no change of the object.
    let labelled = template.labelled();
    let only_rolls = labelled && !wish.changes();
    let address = if only_rolls {
        place.address.clone().part(Part::Rollout(template.key()))
    } else {
        place.address.clone().part(Part::PodTemplate(template.key()))
    };
    let mut changing = vec![OwnedField::TemplateAnnotation(names::CHAIN_ANNOTATION.to_owned())];
    if !labelled {
        changing.push(OwnedField::TemplateLabel(names::USE_LABEL.to_owned()));
    }
    let conflicts = ownership::conflicts(&template.meta, &world.desired.project, &changing);
    let force = take_over(draft, place, &address, &conflicts).ok()?;
    let wanted = wanted(world, rolling, Some(template));
    let chain = template.annotations.get(names::CHAIN_ANNOTATION).map(String::as_str);
    let value = match wanted.client {
        Some(client) => Value::Known(names::chain_value(
            client,
            wanted.tenant,
            &wanted.audience,
            wanted.expiration,
            &workload.account,
            round,
        )),
        None => Value::AfterApply(super::identity::address(rolling.identity.identity)),
    };
    let mut fields = Vec::new();
    let mut reasons = Vec::new();
    if !labelled {
        let path = template_path(template.kind, LABEL_PATH);
        reasons.push(differs(&path, label, "true"));
        fields.push(known(path, label, "true"));
    }
    if let Some((field, reason)) = wish.change(|path| template_path(template.kind, path)) {
        fields.push(field);
        reasons.push(reason);
    }
    if wish == Wish::Set {
        sidecar::warn(draft, place, template);
    }
    let chain_path = template_path(template.kind, CHAIN_PATH);
    let formula = format!("chain of {}", rolling.identity.client_formula());
    let same = matches!(&value, Value::Known(value) if Some(value.as_str()) == chain);
    if !same {
        fields.push(invented(chain_path, chain, &value, formula));
    }
    if let Some((pods, why)) = stale {
        reasons.push(Reason::PodsStale { pods, why });
    }
    if only_rolls && rolling.annotated.is_some() {
        let of = place.address.clone().part(Part::ServiceAccount);
        reasons.push(Reason::Follows { of });
    }
    restarts(draft, place, template, &address, own);
    let change = draft.change(NewChange {
        address: address.clone(),
        kind: if only_rolls {
            ObjectKind::KubernetesRollout
        } else {
            ObjectKind::KubernetesPodTemplate
        },
        action: Action::Update,
        id: place.object(template.kind.as_str(), &template.name),
        fields,
        reasons,
        workloads: vec![place.address.clone()],
        origin: workload.origin.clone(),
    });
    let mut needs = rolling.needs.clone();
    needs.extend(rolling.annotated);
    needs.push(injection(draft, rolling, template));
    Some(draft.step(NewStep {
        address,
        operation: Operation::RollTemplate {
            target: target(place, template),
            account: workload.account.clone(),
            client: rolling.identity.client.clone(),
            tenant: wanted.tenant,
            audience: wanted.audience,
            expiration: wanted.expiration,
            round,
            force,
            wait: template.strategy.rolls_by_itself(),
            expect: (label.map(str::to_owned), chain.map(str::to_owned)),
            remove_labels: BTreeMap::new(),
            sidecar: wish.step(),
        },
        needs,
        locks: BTreeSet::from([lock(place, template)]),
        workloads: vec![place.address.clone()],
        origin: workload.origin.clone(),
        change: Some(change),
    }))
}

/// The code of the risk that pods are restarted one after the other.
pub(super) const RESTARTS: &str = "restarts-pods";
/// The code of the risk that pods are restarted all at once.
pub(super) const RESTARTS_AT_ONCE: &str = "restarts-with-downtime";

/// Says which pods are restarted, and how.
fn restarts(
    draft: &mut Draft,
    place: &Place<'_>,
    template: &ObservedTemplate,
    address: &Address,
    own: &[&ObservedPod],
) {
    if own.is_empty() || !template.strategy.rolls_by_itself() {
        return;
    }
    let (code, how) = if template.strategy == Strategy::Recreate {
        (RESTARTS_AT_ONCE, "all at once (strategy Recreate)")
    } else {
        (RESTARTS, "one after the other")
    };
    draft.report.risks.push(finding(
        address.clone(),
        code,
        format!("{} restarts {} pods, {how}", template.key(), own.len()),
        None,
        &place.workload.origin,
    ));
}

/// The dry run before the first rollout of a place: a webhook that is down stops here, before the
/// first pod is lost. One a place, not one a namespace: workloads never wait for each other.
fn injection(draft: &mut Draft, rolling: &Rolling<'_, '_>, template: &ObservedTemplate) -> StepId {
    if let Some(step) = rolling.injection.get() {
        return step;
    }
    let place = rolling.place;
    let mut needs = place.cluster.confirmed.clone();
    needs.extend(rolling.account.made);
    let step = draft.step(NewStep {
        address: place.address.clone().part(Part::Pods),
        operation: Operation::CheckInjection {
            namespace: place.workload.namespace.clone(),
            account: place.workload.account.clone(),
            like: target(place, template),
            audience: place.cluster.cluster.audience.clone(),
            proxy: place.workload.proxy,
        },
        needs,
        locks: BTreeSet::new(),
        workloads: vec![place.address.clone()],
        origin: place.workload.origin.clone(),
        change: None,
    });
    rolling.injection.set(Some(step));
    step
}

pub(super) fn target(place: &Place<'_>, template: &ObservedTemplate) -> TemplateRef {
    TemplateRef {
        namespace: place.workload.namespace.clone(),
        kind: template.kind,
        api_version: template.api_version.clone(),
        name: template.name.clone(),
        uid: template.uid.clone(),
    }
}

fn lock(place: &Place<'_>, template: &ObservedTemplate) -> Lock {
    Lock::Object(
        place.cluster.cluster.name.clone(),
        format!("{}/{}/{}", template.kind.as_str(), place.workload.namespace, template.name),
    )
}

pub(super) fn wait(
    draft: &mut Draft,
    rolling: &Rolling<'_, '_>,
    template: &ObservedTemplate,
) -> StepId {
    let place = rolling.place;
    draft.step(NewStep {
        address: place.address.clone().part(Part::Rollout(template.key())),
        operation: Operation::AwaitRollout { target: target(place, template) },
        needs: place.cluster.confirmed.clone(),
        locks: BTreeSet::from([lock(place, template)]),
        workloads: vec![place.address.clone()],
        origin: place.workload.origin.clone(),
        change: None,
    })
}

pub(super) fn prove_pods(
    world: &World<'_>,
    draft: &mut Draft,
    rolling: &Rolling<'_, '_>,
    needs: Vec<StepId>,
) {
    let place = rolling.place;
    let wanted = wanted(world, rolling, None);
    draft.step(NewStep {
        address: place.address.clone().part(Part::Pods),
        operation: Operation::ProvePods {
            namespace: place.workload.namespace.clone(),
            account: place.workload.account.clone(),
            client: rolling.identity.client.clone(),
            tenant: wanted.tenant,
            audience: wanted.audience,
            expiration: wanted.expiration,
        },
        needs,
        locks: BTreeSet::new(),
        workloads: vec![place.address.clone()],
        origin: place.workload.origin.clone(),
        change: None,
    });
}
