//! Pod templates: the patch that labels and rolls, and whether live pods carry today's values.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::rollouts;
use crate::{
    execute::{
        context::{Context, Good, Halt},
        event::Evidence,
    },
    kubernetes::TemplateChange,
    model::{
        AccountName, Audience, ClientId, ClusterName, FailureKind, Namespace, RemoteFailure,
        TenantId, names,
        snapshot::{ObservedPod, ObservedTemplate, TemplateKind},
    },
    plan::{
        Value, pods,
        step::{Sidecar, TemplateRef},
    },
};

/// How often a template is written that nobody answers for.
const WRITES: u32 = 3;

/// A template as the plan wants it.
pub(super) struct Roll<'a> {
    pub(super) target: &'a TemplateRef,
    pub(super) account: &'a AccountName,
    pub(super) client: &'a Value<ClientId>,
    pub(super) tenant: TenantId,
    pub(super) audience: &'a Audience,
    pub(super) expiration: u32,
    pub(super) round: u32,
    pub(super) force: bool,
    pub(super) wait: bool,
    /// Label and chain annotation when planned.
    pub(super) expect: &'a (Option<String>, Option<String>),
    /// Labels that go in the same roll, with their values when planned.
    pub(super) remove_labels: &'a BTreeMap<String, String>,
    /// The migration sidecar's annotation.
    pub(super) sidecar: &'a Sidecar,
}

pub(super) async fn roll(context: &Context<'_>, roll: Roll<'_>) -> Result<Good, Halt> {
    let Roll { target, account, expect, .. } = roll;
    let remote = context.remote();
    let cluster = context.cluster()?;
    let Some(seen) = context.read(remote.template(cluster, target)).await? else {
        return Err(Halt::Stale(format!("{target} does not exist any more")));
    };
    if seen.uid != target.uid || seen.meta.deleting {
        return Err(Halt::Stale(format!("{target} was deleted or recreated")));
    }
    if seen.account != *account {
        return Err(Halt::Stale(format!("{target} runs as service account {} now", seen.account)));
    }
    let client = context.resolve(roll.client)?;
    let Roll { tenant, audience, expiration, round, .. } = roll;
    let chain = names::chain_value(client, tenant, audience, expiration, account, round);
    let have = |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned();
    let label = have(&seen.labels, names::USE_LABEL);
    let before = have(&seen.annotations, names::CHAIN_ANNOTATION);
    let mut generation = seen.progress.generation;
    let remove_labels: BTreeMap<String, String> = roll
        .remove_labels
        .iter()
        .filter(|(key, _)| seen.labels.contains_key(*key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some((key, _)) =
        remove_labels.iter().find(|(key, value)| seen.labels.get(*key) != Some(value))
    {
        let have = &seen.labels[key];
        return Err(Halt::Stale(format!("label {key} of {target} is {have}")));
    }
    let proxy = seen.annotations.get(names::PROXY_ANNOTATION);
    let remove_annotations = match (roll.sidecar, proxy) {
        (Sidecar::Dropped { value }, Some(have)) if have != value => {
            let name = names::PROXY_ANNOTATION;
            return Err(Halt::Stale(format!("annotation {name} of {target} is {have}")));
        }
        (Sidecar::Dropped { value }, Some(_)) => {
            BTreeMap::from([(names::PROXY_ANNOTATION.to_owned(), value.clone())])
        }
        (Sidecar::Dropped { .. }, None) | (Sidecar::Set | Sidecar::NotOurs, _) => BTreeMap::new(),
    };
    let as_wanted = seen.labelled()
        && before.as_deref() == Some(chain.as_str())
        && remove_labels.is_empty()
        && remove_annotations.is_empty()
        && (*roll.sidecar != Sidecar::Set || proxy.is_some());
    // Pods that were there before say nothing about this roll.
    let before_it = if roll.wait { pods_now(context, cluster, target, &seen).await? } else { None };
    if !as_wanted {
        if !seen.labelled() && label != expect.0 {
            let label = label.as_deref().unwrap_or("not set");
            return Err(Halt::Stale(format!("label {} of {target} is {label}", names::USE_LABEL)));
        }
        if before.as_deref() != Some(chain.as_str()) && before != expect.1 {
            let before = before.as_deref().unwrap_or("not set");
            return Err(Halt::Stale(format!(
                "annotation {} of {target} is {before}",
                names::CHAIN_ANNOTATION
            )));
        }
        let owner = (names::PROJECT_ANNOTATION.to_owned(), remote.project().to_string());
        let mut template_annotations =
            BTreeMap::from([(names::CHAIN_ANNOTATION.to_owned(), chain)]);
        if *roll.sidecar == Sidecar::Set {
            let value = proxy.map_or("true", String::as_str);
            template_annotations.insert(names::PROXY_ANNOTATION.to_owned(), value.to_owned());
        }
        let change = TemplateChange {
            account,
            own: &BTreeMap::from([owner]),
            labels: &BTreeMap::from([(names::USE_LABEL.to_owned(), "true".to_owned())]),
            annotations: &template_annotations,
            remove_labels: &remove_labels,
            remove_annotations: &remove_annotations,
            force: roll.force,
        };
        let patched = written(context, cluster, target, change).await?;
        generation = patched.progress.generation;
    }
    let mut detail = None;
    if roll.wait {
        let doubt = async |seen: &ObservedTemplate| {
            if !seen.labelled() {
                let what = format!("somebody took label {} from {target}", names::USE_LABEL);
                return Err(Halt::Stale(what));
            }
            let live = pods_now(context, cluster, target, seen).await?;
            let Some((before, live)) = before_it.as_ref().zip(live) else { return Ok(()) };
            let known = |pod: &ObservedPod| before.iter().any(|old| old.uid == pod.uid);
            let mut made = live.iter().filter(|pod| pod.live() && pod.is_made_by(seen));
            match made.find(|pod| pod.labelled && !pod.injected.present && !known(pod)) {
                None => Ok(()),
                // Its like will follow, while there still are pods that the old way serves.
                Some(pod) => {
                    let message = format!(
                        "pod {} came without the injected identity: the webhook did not answer",
                        pod.name
                    );
                    let kind = FailureKind::Unmade;
                    Err(rollouts::failed(context, cluster, target, kind, message))
                }
            }
        };
        let rolled = rollouts::until_rolled(context, cluster, target, generation, doubt).await?;
        detail = Some(rolled.detail());
    }
    Ok(if as_wanted { Good::Unchanged { detail } } else { Good::Done { detail, evidence: None } })
}

/// Writes a template. Where no answer came it is looked at, and written again if it is not as
/// wanted: a connection that broke says nothing of the application.
async fn written(
    context: &Context<'_>,
    cluster: &ClusterName,
    target: &TemplateRef,
    change: TemplateChange<'_>,
) -> Result<ObservedTemplate, Halt> {
    let remote = context.remote();
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match context.write(remote.apply_template(cluster, target, change)).await {
            Err(Halt::Failed(failure)) if failure.kind.is_unanswered() && tries < WRITES => failure,
            ended => return ended,
        };
        context.waiting(&format!("an answer: {}", failure.message));
        context.pause(context.run.options.looks_apart).await?;
        let seen = match context.read(remote.template(cluster, target)).await {
            Ok(seen) => seen.filter(|seen| seen.uid == target.uid),
            // The next write tells whether it answers again.
            Err(Halt::Failed(failure)) if failure.kind.is_unanswered() => continue,
            Err(halt) => return Err(halt),
        };
        let Some(seen) = seen else {
            return Err(Halt::Stale(format!("{target} was deleted or recreated")));
        };
        let has = |have: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(key, value)| have.get(key) == Some(value))
        };
        let lacks = |have: &BTreeMap<String, String>, gone: &BTreeMap<String, String>| {
            !gone.keys().any(|key| have.contains_key(key))
        };
        if has(&seen.labels, change.labels)
            && has(&seen.annotations, change.annotations)
            && lacks(&seen.labels, change.remove_labels)
            && lacks(&seen.annotations, change.remove_annotations)
        {
            return Ok(seen);
        }
    }
}

/// The pods of a template's account; none where they could not be read, which is not worth ending
/// a roll for.
async fn pods_now(
    context: &Context<'_>,
    cluster: &ClusterName,
    target: &TemplateRef,
    seen: &ObservedTemplate,
) -> Result<Option<Vec<ObservedPod>>, Halt> {
    let pods = context.remote().pods(cluster, &target.namespace, &seen.account);
    match context.read(pods).await {
        Ok(pods) => Ok(Some(pods)),
        Err(Halt::Failed(_)) => Ok(None),
        Err(halt) => Err(halt),
    }
}

pub(super) async fn prove_pods(
    context: &Context<'_>,
    namespace: &Namespace,
    account: &AccountName,
    client: &Value<ClientId>,
    tenant: TenantId,
    audience: &Audience,
    expiration: u32,
) -> Result<Good, Halt> {
    let remote = context.remote();
    let cluster = context.cluster()?;
    let wanted = pods::Wanted {
        client: Some(context.resolve(client)?),
        tenant,
        audience: audience.clone(),
        expiration,
        proxy: false,
    };
    let deadline = Instant::now() + context.run.options.pods_deadline;
    loop {
        let look = async {
            let templates = context.read(remote.templates(cluster, namespace)).await?;
            let live = context.read(remote.pods(cluster, namespace, account)).await?;
            Ok((templates, live))
        };
        let (templates, live) = match look.await {
            Err(Halt::Failed(failure))
                if failure.kind.is_unanswered() && Instant::now() < deadline =>
            {
                context.waiting(&format!("an answer: {}", failure.message));
                context.pause(context.run.options.looks_apart).await?;
                continue;
            }
            looked => looked?,
        };
        let verdict = judge(&templates, &live, account, &wanted);
        let Some(stale) = verdict.stale else {
            let evidence = Some(Evidence::Pods { pods: verdict.proved });
            let detail = (verdict.waiting > 0)
                .then(|| format!("{} more wait for their rollout", verdict.waiting));
            return Ok(Good::Done { detail, evidence });
        };
        if Instant::now() >= deadline {
            let tried = format!("see today's values in the pods of {namespace}/{account}");
            let failure = RemoteFailure::new(FailureKind::NotProved, tried, stale.why);
            let kubectl = remote.kubectl(cluster);
            let hint = format!("{kubectl} -n {namespace} describe pod {}", stale.pod);
            return Err(Halt::failed(failure.with_hint(hint)));
        }
        context.waiting(&stale.why);
        context.pause(context.run.options.looks_apart).await?;
    }
}

struct Stale {
    pod: String,
    why: String,
}

#[derive(Default)]
struct Verdict {
    /// Pods that carry today's values.
    proved: usize,
    /// Pods that do not and whose controller does not replace them by itself.
    waiting: usize,
    /// The first one that should and does not.
    stale: Option<Stale>,
}

/// Pods of Jobs, of bare `ReplicaSets` and of nobody are reported by the plan; pods of an older
/// revision are on their way out.
fn judge(
    templates: &[ObservedTemplate],
    live: &[ObservedPod],
    account: &AccountName,
    wanted: &pods::Wanted,
) -> Verdict {
    let mut verdict = Verdict::default();
    let counted = templates.iter().filter(|template| {
        template.account == *account
            && template.labelled()
            && template.kind.writable()
            && template.kind != TemplateKind::CronJob
    });
    for template in counted {
        // An annotation on the template beats the account's.
        let own = template.annotations.get(names::EXPIRATION_ANNOTATION);
        let expiration = own.and_then(|text| text.parse().ok()).unwrap_or(wanted.expiration);
        let proxy = template.annotations.contains_key(names::PROXY_ANNOTATION);
        let wanted = pods::Wanted { expiration, proxy, ..wanted.clone() };
        let own: Vec<&ObservedPod> = live
            .iter()
            .filter(|pod| pod.account == *account && pod.live() && pod.is_made_by(template))
            .collect();
        let newest = own.iter().max_by_key(|pod| (pod.created, &pod.name));
        let Some(revision) = newest.map(|pod| &pod.revision) else { continue };
        let replaced = template.strategy.rolls_by_itself();
        for pod in own.iter().filter(|pod| pod.revision == *revision) {
            match pods::stale(pod, &wanted) {
                None => verdict.proved += 1,
                Some(_) if !replaced => verdict.waiting += 1,
                Some(why) => {
                    verdict.stale.get_or_insert(Stale { pod: pod.name.clone(), why });
                }
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;

    use super::*;
    use crate::model::snapshot::{Injected, ObjectMeta, Progress, Strategy};

    const CLIENT: &str = "11111111-1111-1111-1111-111111111111";
    const TENANT: &str = "22222222-2222-2222-2222-222222222222";

    fn wanted() -> pods::Wanted {
        pods::Wanted {
            client: Some(CLIENT.parse().unwrap()),
            tenant: TENANT.parse().unwrap(),
            audience: Audience::default(),
            expiration: 3600,
            proxy: false,
        }
    }

    fn template(strategy: Strategy) -> ObservedTemplate {
        ObservedTemplate {
            kind: TemplateKind::StatefulSet,
            api_version: "apps/v1".to_owned(),
            name: "cart".to_owned(),
            uid: "u".to_owned(),
            meta: ObjectMeta::default(),
            owned_by: None,
            account: "cart".into(),
            labels: BTreeMap::from([(names::USE_LABEL.to_owned(), "true".to_owned())]),
            annotations: BTreeMap::new(),
            literal_env: Vec::new(),
            host_network: false,
            windows: false,
            strategy,
            progress: Progress::default(),
        }
    }

    fn pod(n: i64, revision: &str, client: &str, expiration: u32) -> ObservedPod {
        ObservedPod {
            name: format!("cart-{n}"),
            uid: n.to_string(),
            account: "cart".into(),
            controller: Some(("StatefulSet".to_owned(), "cart".to_owned())),
            revision: Some(revision.to_owned()),
            labelled: true,
            phase: "Running".to_owned(),
            ready: true,
            deleting: false,
            created: Timestamp::from_second(n).ok(),
            injected: Injected {
                present: true,
                client_ids: BTreeSet::from([client.to_owned()]),
                tenant_ids: BTreeSet::from([TENANT.to_owned()]),
                authority_hosts: BTreeSet::new(),
                by_reference: BTreeSet::new(),
                audience: Some(Audience::default()),
                expiration: Some(expiration),
                proxied: false,
            },
        }
    }

    fn judged(template: ObservedTemplate, live: &[ObservedPod]) -> (usize, usize, Option<String>) {
        let verdict = judge(&[template], live, &"cart".into(), &wanted());
        (verdict.proved, verdict.waiting, verdict.stale.map(|stale| stale.why))
    }

    #[test]
    fn pods_of_an_older_revision_are_on_their_way_out() {
        let live = [pod(1, "old", "another", 3600), pod(2, "new", CLIENT, 3600)];
        assert_eq!(judged(template(Strategy::RollingUpdate), &live), (1, 0, None));
    }

    #[test]
    fn the_first_stale_pod_of_the_present_revision_is_named() {
        let live = [pod(1, "new", CLIENT, 3600), pod(2, "new", "another", 3600)];
        let (proved, _, stale) = judged(template(Strategy::RollingUpdate), &live);
        assert_eq!(proved, 1);
        assert!(stale.unwrap().starts_with("pod cart-2 has AZURE_CLIENT_ID another"));
    }

    #[test]
    fn pods_that_nobody_replaces_now_wait() {
        let live = [pod(1, "new", "another", 3600)];
        assert_eq!(judged(template(Strategy::OnDelete), &live), (0, 1, None));
    }

    #[test]
    fn a_lifetime_on_the_template_beats_the_accounts() {
        let mut own = template(Strategy::RollingUpdate);
        own.annotations.insert(names::EXPIRATION_ANNOTATION.to_owned(), "7200".to_owned());
        assert_eq!(judged(own, &[pod(1, "new", CLIENT, 7200)]), (1, 0, None));
    }

    #[test]
    fn pods_of_a_template_that_asks_for_the_sidecar_have_it() {
        let mut asking = template(Strategy::RollingUpdate);
        asking.annotations.insert(names::PROXY_ANNOTATION.to_owned(), "true".to_owned());
        let mut live = [pod(1, "new", CLIENT, 3600)];
        let (proved, _, stale) = judged(asking.clone(), &live);
        assert_eq!((proved, stale.as_deref()), (0, Some("pod cart-1 has no migration sidecar")));
        live[0].injected.proxied = true;
        assert_eq!(judged(asking, &live), (1, 0, None));
    }

    #[test]
    fn templates_without_the_label_and_other_accounts_do_not_count() {
        let mut unlabelled = template(Strategy::RollingUpdate);
        unlabelled.labels.clear();
        let live = [pod(1, "new", "another", 3600)];
        assert_eq!(judged(unlabelled, &live), (0, 0, None));
        let mut other = template(Strategy::RollingUpdate);
        other.account = "somebody".into();
        assert_eq!(judged(other, &live), (0, 0, None));
    }
}
