//! Pod templates and rollouts: the label, and the replacement of pods that carry old values.

use std::cell::Cell;

use super::{
    StepId, Value,
    account::{self, AccountPlan},
    draft::{Draft, finding},
    identity::IdentityState,
    ownership,
    planner::{Place, World},
    pods,
    report::Pending,
    roll::{self, Writing},
    sidecar::{self, Wish},
};
use crate::model::{
    address::Part,
    desired::{ManagedBy, PodSelection, RolloutMode},
    names,
    pod_identity::BINDING_LABEL,
    snapshot::{
        KubernetesSnapshot, Observation, ObservedPod, ObservedTemplate, Strategy, TemplateKind,
    },
};

pub(super) const LABEL_PATH: &str =
    "spec.template.metadata.labels[\"azure.workload.identity/use\"]";
pub(super) const CHAIN_PATH: &str = "spec.template.metadata.annotations[\"widentity.dev/chain\"]";

/// The code of a finding that an earlier rollout failed, and that rolling again would fail again.
pub const ROLLOUT_FAILED: &str = "rollout-failed";

/// What rolling the templates of one place needs.
pub(super) struct Rolling<'a, 'p> {
    pub(super) place: &'p Place<'a>,
    pub(super) kubernetes: &'a KubernetesSnapshot,
    pub(super) identity: &'p IdentityState<'a>,
    pub(super) account: &'p AccountPlan<'a>,
    /// The step that annotates the account in this run.
    pub(super) annotated: Option<StepId>,
    /// Steps before any pod is pointed at the identity.
    pub(super) needs: Vec<StepId>,
    /// What stays as it is, so that new pods would be no better.
    pub(super) hindrance: Option<&'static str>,
    /// The step that checks the webhook, once one was planned.
    pub(super) injection: Cell<Option<StepId>>,
}

/// Why nothing is done for pods that are still labelled for AAD Pod Identity.
pub(super) const ON_POD_IDENTITY: &str = "its pods carry aadpodidbinding: `widentity migrate apply` \
     moves them (where there is no AAD Pod Identity any more, take the label off)";

/// Whether AAD Pod Identity may be what answers the pods of a template: a new label beside the old
/// one would hide whether the new path works.
fn on_pod_identity(world: &World<'_>, template: &ObservedTemplate) -> bool {
    !world.options.leaves_pod_identity
        && !template.labelled()
        && template.labels.contains_key(BINDING_LABEL)
}

/// Whether AAD Pod Identity may be what answers all templates of a workload: then its account is not
/// pointed at anything either, and what a rollback put back stays so.
pub(super) fn left_to_migrate(
    world: &World<'_>,
    place: &Place<'_>,
    kubernetes: &KubernetesSnapshot,
) -> bool {
    let workload = place.workload;
    let templates = kubernetes.templates.get(&workload.namespace).and_then(Observation::present);
    let mut chosen = templates.into_iter().flatten().filter(|template| {
        template.account == workload.account
            && match &workload.pods {
                PodSelection::All => true,
                PodSelection::Named(named) => named.contains(&template.key()),
            }
    });
    let accounts = kubernetes.accounts.get(&workload.namespace).and_then(Observation::present);
    let exists = accounts.is_some_and(|accounts| accounts.contains_key(&workload.account));
    let some = chosen.clone().next().is_some();
    exists && some && chosen.all(|template| on_pod_identity(world, template))
}

/// What becomes of one template.
enum Verdict {
    /// Nothing to do.
    Fine,
    /// The template is written, which rolls its pods.
    Write { round: u32, stale: Option<(usize, String)>, wish: Wish },
    /// A rollout is under way with the right template: it is waited for.
    Await,
}

/// Plans all templates of the account. None: they could not be seen.
pub(super) fn plan(world: &World<'_>, draft: &mut Draft, rolling: &Rolling<'_, '_>) -> Option<()> {
    let Rolling { place, kubernetes, .. } = rolling;
    let workload = place.workload;
    let unseen = |draft: &mut Draft, failure| {
        draft.unseen(place.address.clone().part(Part::Pods), failure, &workload.origin);
    };
    let templates = match kubernetes.templates.get(&workload.namespace) {
        Some(Observation::Present(templates)) => templates.as_slice(),
        Some(Observation::Absent) | None => &[],
        Some(Observation::Unknown(failure)) => {
            unseen(draft, failure);
            return None;
        }
    };
    let live = match kubernetes.pods.get(&workload.namespace) {
        Some(Observation::Present(pods)) => pods.as_slice(),
        Some(Observation::Absent) | None => &[],
        Some(Observation::Unknown(failure)) => {
            unseen(draft, failure);
            return None;
        }
    };
    let live: Vec<&ObservedPod> =
        live.iter().filter(|pod| pod.account == workload.account && pod.live()).collect();
    let mut chosen: Vec<&ObservedTemplate> =
        templates.iter().filter(|template| template.account == workload.account).collect();
    chosen.sort_by_key(|template| template.key());
    if let PodSelection::Named(named) = &workload.pods {
        for missing in named.iter().filter(|key| !chosen.iter().any(|t| t.key() == **key)) {
            draft.report.risks.push(finding(
                place.address.clone(),
                "template-not-found",
                format!("`pods` names {missing}, and none such uses the account"),
                None,
                &workload.origin,
            ));
        }
        chosen.retain(|template| named.contains(&template.key()));
    }
    let mut rolled = Vec::new();
    let mut awaited = false;
    for template in &chosen {
        let own: Vec<&ObservedPod> =
            live.iter().copied().filter(|pod| pod.is_made_by(template)).collect();
        match one(world, draft, rolling, template, &own) {
            Some(Verdict::Write { round, stale, wish }) => {
                let writing = Writing { round, stale, wish };
                if let Some(step) = roll::write(world, draft, rolling, template, writing, &own) {
                    rolled.push(step);
                    awaited |= template.strategy.rolls_by_itself();
                }
            }
            Some(Verdict::Await) => {
                rolled.push(roll::wait(draft, rolling, template));
                awaited = true;
            }
            Some(Verdict::Fine) | None => {}
        }
    }
    let all = workload.pods == PodSelection::All;
    for pod in live.iter().filter(|pod| all && !chosen.iter().any(|t| pod.is_made_by(t))) {
        recreate(world, draft, rolling, pod);
    }
    if awaited {
        roll::prove_pods(world, draft, rolling, rolled);
    }
    Some(())
}

/// Today's values for the pods of a template. An annotation on the template beats the account's.
pub(super) fn wanted(
    world: &World<'_>,
    rolling: &Rolling<'_, '_>,
    template: Option<&ObservedTemplate>,
) -> pods::Wanted {
    let own = template.and_then(|t| t.annotations.get(names::EXPIRATION_ANNOTATION));
    let expiration = own
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| account::expiration(world, rolling.place, rolling.account.seen));
    pods::Wanted {
        client: match rolling.identity.client {
            Value::Known(client) => Some(client),
            Value::AfterApply(_) => None,
        },
        tenant: rolling.place.workload.tenant,
        audience: rolling.place.cluster.cluster.audience.clone(),
        expiration,
        proxy: template.is_some_and(|t| wish(world, rolling, t).expects(t)),
    }
}

fn wish(world: &World<'_>, rolling: &Rolling<'_, '_>, template: &ObservedTemplate) -> Wish {
    Wish::of(rolling.place.workload.proxy, template, &world.desired.project)
}

/// Judges one template; none where it is left alone and the report says why.
fn one(
    world: &World<'_>,
    draft: &mut Draft,
    rolling: &Rolling<'_, '_>,
    template: &ObservedTemplate,
    own: &[&ObservedPod],
) -> Option<Verdict> {
    let place = rolling.place;
    let workload = place.workload;
    let object = place.object(template.kind.as_str(), &template.name);
    let labelled = template.labelled();
    let wanted = wanted(world, rolling, Some(template));
    let wish = wish(world, rolling, template);
    let stale: Vec<String> = own.iter().filter_map(|pod| pods::stale(pod, &wanted)).collect();
    let written = labelled && !wish.changes();
    if written && stale.is_empty() && template.progress.failed.is_none() {
        // Also where no pod is left: one that is scaled to nothing is complete.
        let unfinished = !template.progress.complete() && template.strategy.rolls_by_itself();
        let held = rolling.hindrance.is_some();
        return Some(if unfinished && !held { Verdict::Await } else { Verdict::Fine });
    }
    let first = stale.first().cloned();
    let pending = |why: &str, lines: Vec<String>| Pending {
        workload: place.address.clone(),
        object: object.clone(),
        why: why.to_owned(),
        wanted: lines,
    };
    let mut lines: Vec<String> = Vec::new();
    if !labelled {
        lines.push(format!("{}: \"true\"", template_path(template.kind, LABEL_PATH)));
    }
    lines.extend(wish.line(|path| template_path(template.kind, path)));
    lines.extend(first.clone());
    if let Some(owner) = &template.owned_by {
        draft.report.recreate.push(pending(&format!("owned by {owner}"), lines));
        return None;
    }
    if let Some(other) = ownership::other_project(&template.meta, &world.desired.project) {
        draft.report.refused.push(finding(
            place.address.clone().part(Part::PodTemplate(template.key())),
            "other-project",
            format!("{} {} belongs to project {other}", template.kind.as_str(), template.name),
            "take it out of one of the two files".to_owned(),
            &workload.origin,
        ));
        return None;
    }
    let engine = match workload.managed_by {
        ManagedBy::Auto => ownership::gitops(&template.meta),
        ManagedBy::Git => Some("Git (managed_by)".to_owned()),
        ManagedBy::Widentity => None,
    };
    if let Some(engine) = engine {
        if written {
            let why = format!("kept by {engine}: its pods are replaced with the next sync");
            draft.report.pending_rollout.push(pending(&why, lines));
        } else {
            draft.report.pending_git.push(pending(&format!("kept by {engine}"), lines));
        }
        return None;
    }
    if on_pod_identity(world, template) {
        draft.report.pending_rollout.push(pending(ON_POD_IDENTITY, lines));
        return None;
    }
    if wish == Wish::Set && sidecar::refused(draft, place, rolling.kubernetes, template) {
        return None;
    }
    if let Some(hindrance) = rolling.hindrance {
        draft.report.pending_rollout.push(pending(hindrance, lines));
        return None;
    }
    if let Some(literal) = literal(template, &wanted) {
        draft.report.not_proved.push(finding(
            place.address.clone().part(Part::PodTemplate(template.key())),
            "literal-environment",
            literal,
            "remove the variable from the manifest: the webhook never changes one that is set"
                .to_owned(),
            &workload.origin,
        ));
        if labelled {
            return None;
        }
    }
    let withheld = match workload.rollout {
        _ if world.options.no_rollout => Some("--no-rollout"),
        RolloutMode::NextDeploy => Some("rollout = \"next-deploy\""),
        RolloutMode::Never => Some("rollout = \"never\""),
        RolloutMode::Auto => None,
    };
    if let Some(why) = withheld {
        draft.report.pending_rollout.push(pending(why, lines));
        return None;
    }
    if !written {
        let round = rounds(rolling, template, &wanted).unwrap_or(0);
        let stale = first.map(|why| (stale.len(), why));
        return Some(Verdict::Write { round, stale, wish });
    }
    let round = judge_stale(draft, rolling, template, &wanted, &stale, pending, lines)?;
    Some(match round {
        Judged::Fine => Verdict::Fine,
        Judged::Await => Verdict::Await,
        Judged::Roll(round) => {
            Verdict::Write { round, stale: first.map(|why| (stale.len(), why)), wish }
        }
    })
}

/// What a template needs whose fields are as wanted.
enum Judged {
    Fine,
    Await,
    /// Its chain is written with this round.
    Roll(u32),
}

/// A labelled template whose pods are stale, or whose rollout has failed.
fn judge_stale(
    draft: &mut Draft,
    rolling: &Rolling<'_, '_>,
    template: &ObservedTemplate,
    wanted: &pods::Wanted,
    stale: &[String],
    pending: impl Fn(&str, Vec<String>) -> Pending,
    lines: Vec<String>,
) -> Option<Judged> {
    let round = rounds(rolling, template, wanted);
    if let Some(reason) = &template.progress.failed
        && (round.is_some() || stale.is_empty())
    {
        // Our trigger is on it already, or nothing asks for it: rolling again would fail again.
        draft.report.not_proved.push(finding(
            rolling.place.address.clone().part(Part::Rollout(template.key())),
            ROLLOUT_FAILED,
            format!("the rollout of {} has failed: {reason}", template.key()),
            roll::target(rolling.place, template)
                .undo(&rolling.place.cluster.cluster.access.kubectl()),
            &rolling.place.workload.origin,
        ));
        return None;
    }
    if stale.is_empty() {
        return Some(Judged::Fine);
    }
    match template.strategy {
        Strategy::OnDelete => {
            let why = "its strategy is OnDelete: pods are replaced when they are deleted";
            draft.report.pending_rollout.push(pending(why, lines));
            return None;
        }
        Strategy::Paused => {
            draft.report.pending_rollout.push(pending("it is paused", lines));
            return None;
        }
        Strategy::NextRun => {
            let why = "its running Jobs keep their pods: the next run has today's values";
            draft.report.pending_rollout.push(pending(why, lines));
            return None;
        }
        Strategy::Partition(ordinal) if round.is_some() => {
            let why = format!("its partition keeps ordinals below {ordinal} as they are");
            draft.report.pending_rollout.push(pending(&why, lines));
            return None;
        }
        Strategy::Partition(_) | Strategy::RollingUpdate | Strategy::Recreate => {}
    }
    match round {
        // The template's trigger is another chain, or none: this one is new to it.
        None => Some(Judged::Roll(0)),
        // Pods of an older revision; the controller is replacing them with this template.
        Some(_) if !template.progress.complete() && rolling.annotated.is_none() => {
            Some(Judged::Await)
        }
        Some(n) => Some(Judged::Roll(n + 1)),
    }
}

/// How often today's chain was put on the template already: none if it never was.
fn rounds(
    rolling: &Rolling<'_, '_>,
    template: &ObservedTemplate,
    wanted: &pods::Wanted,
) -> Option<u32> {
    let chain = template.annotations.get(names::CHAIN_ANNOTATION)?;
    let account = &rolling.place.workload.account;
    let base = names::chain_value(
        wanted.client?,
        wanted.tenant,
        &wanted.audience,
        wanted.expiration,
        account,
        0,
    );
    let rest = chain.strip_prefix(base.as_str())?;
    if rest.is_empty() { Some(0) } else { rest.strip_prefix('-')?.parse().ok() }
}

/// The first `AZURE_*` variable that the manifest sets to something else than the webhook would.
fn literal(template: &ObservedTemplate, wanted: &pods::Wanted) -> Option<String> {
    template.literal_env.iter().find_map(|(container, variable, value)| {
        let want = match variable.as_str() {
            "AZURE_CLIENT_ID" => wanted.client.map(|client| client.to_string()),
            "AZURE_TENANT_ID" => Some(wanted.tenant.to_string()),
            _ => return None,
        };
        let same = match (value, &want) {
            (Some(value), Some(want)) => value.eq_ignore_ascii_case(want),
            // A reference may hold the right value: live pods decide.
            (None, _) => true,
            (Some(_), None) => false,
        };
        (!same).then(|| {
            let have = value.as_deref().unwrap_or("a reference");
            format!("container {container} of {} sets {variable} to {have} itself", template.key())
        })
    })
}

/// A path below `spec.template` as it reads in an object of this kind.
pub(super) fn template_path(kind: TemplateKind, path: &str) -> String {
    if kind == TemplateKind::CronJob {
        path.replacen("spec.", "spec.jobTemplate.spec.", 1)
    } else {
        path.to_owned()
    }
}

/// A live pod that no template of ours stamps: a bare pod, a Job's, a bare ReplicaSet's.
fn recreate(world: &World<'_>, draft: &mut Draft, rolling: &Rolling<'_, '_>, pod: &ObservedPod) {
    let Some(why) = pods::stale(pod, &wanted(world, rolling, None)) else { return };
    let place = rolling.place;
    let object = match &pod.controller {
        Some((kind, name)) => place.object(&kind.to_lowercase(), name),
        None => place.object("pod", &pod.name),
    };
    draft.report.recreate.push(Pending {
        workload: place.address.clone(),
        object,
        why: "widentity does not write it; whoever made it must make it again".to_owned(),
        wanted: vec![format!("{LABEL_PATH}: \"true\"").replace("spec.template.", ""), why],
    });
}
