//! Live pods: injected, and with today's values.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{authority, manifest};
use crate::{
    diagnose::{
        evidence::{Event, Template},
        facts::Facts,
        link::{Fix, State},
    },
    model::{
        names,
        snapshot::{Observation, ObservedPod, Strategy, TemplateKind},
    },
};

/// Judges manifests that override what is injected, then the live pods.
pub(in crate::diagnose) fn pods(facts: &mut Facts<'_>) -> State {
    let templates = facts.templates.clone();
    for template in &templates {
        if let Some(found) = manifest::judge(facts, template) {
            return found;
        }
    }
    let pods = match &*facts.evidence.pods {
        Observation::Present(pods) => pods,
        Observation::Absent => return State::holds("no live pods"),
        Observation::Unknown(failure) => return State::unseen(failure),
    };
    let belongs = |pod: &&ObservedPod| {
        pod.live()
            && if facts.templates.is_empty() {
                let named = facts.evidence.asked.object.as_deref();
                let named = named.and_then(|object| object.strip_prefix("pod/"));
                named.map_or(pod.account == facts.account && pod.labelled, |name| pod.name == name)
            } else {
                facts.templates.iter().any(|template| {
                    pod.is_made_by(&template.seen)
                        && (template.seen.labelled() || facts.by_hand(template) || pod.labelled)
                })
            }
    };
    let live: Vec<&ObservedPod> = pods.iter().filter(belongs).collect();
    facts.live_pods = live.len();
    // Where new pods are refused the old ones say nothing about today.
    if let Some(found) = refused(facts, pods) {
        return found;
    }
    if live.is_empty() {
        return State::holds("no live pods to compare");
    }
    for pod in &live {
        if let Some(found) = stale(facts, pod) {
            return found;
        }
    }
    if let Some(unread) = manifest::unread(facts) {
        return unread;
    }
    State::holds(format!("{} live, with today's values", live.len()))
}

/// Pods are wanted and not there because admission refuses them.
fn refused(facts: &Facts<'_>, pods: &[ObservedPod]) -> Option<State> {
    let event = facts.evidence.events.iter().find(|event| refuses(facts, pods, event))?;
    Some(State::broken(
        "pods-refused",
        format!("{} cannot create pods: {}", event.object, event.message),
        Fix::look_at(
            "correct what admission refuses; it stands in the message",
            facts.kubectl(&["describe", &event.object]),
        ),
    ))
}

/// A controller that is refused a pod tries again within so many seconds.
///
/// Source: client-go's default rate limiter of work queues, at most 1000 seconds.
const RETRIED: i64 = 1000;

/// Whether an event says that a template of the workload gets no pods now: not of somebody else, not
/// over, not of long ago.
pub(super) fn refuses(facts: &Facts<'_>, pods: &[ObservedPod], event: &Event) -> bool {
    let age = |last: Timestamp| facts.evidence.now.as_second() - last.as_second();
    let recent = event.last.is_none_or(|last| age(last) <= RETRIED);
    let here = |template: &Template| {
        let newest = pods.iter().filter(|pod| pod.is_made_by(&template.seen));
        let newest = newest.filter_map(|pod| pod.created).max();
        let over = newest.zip(event.last).is_some_and(|(made, last)| made > last);
        wants(template) && makes(template, &event.object) && !over
    };
    event.reason == "FailedCreate" && recent && facts.templates.iter().any(|t| here(t))
}

/// Whether a controller waits for pods; of jobs nobody can say.
fn wants(template: &Template) -> bool {
    let progress = &template.seen.progress;
    template.seen.strategy == Strategy::NextRun || progress.available < progress.desired
}

/// Whether `object` (`kind/name`) is the controller, or what it makes its pods through.
fn makes(template: &Template, object: &str) -> bool {
    let Some((kind, name)) = object.split_once('/') else { return false };
    let stem = name.rsplit_once('-').map_or(name, |(stem, _)| stem);
    let through = match template.seen.kind {
        TemplateKind::Deployment | TemplateKind::Rollout => "replicaset",
        TemplateKind::CronJob => "job",
        TemplateKind::StatefulSet
        | TemplateKind::DaemonSet
        | TemplateKind::ReplicaSet
        | TemplateKind::ReplicationController
        | TemplateKind::Job
        | TemplateKind::Pod => return object == template.seen.key(),
    };
    kind == through && stem == template.seen.name
}

/// What one live pod lacks.
fn stale(facts: &Facts<'_>, pod: &ObservedPod) -> Option<State> {
    let injected = &pod.injected;
    let name = &pod.name;
    if !injected.present {
        let (code, message) = if pod.labelled {
            (
                "pod-not-injected",
                format!(
                    "pod {name} carries the label and no identity: it was created while the \
                     webhook was away or before it was installed"
                ),
            )
        } else {
            (
                "pod-older-than-label",
                format!("pod {name} is older than the label on its template: it was not injected"),
            )
        };
        return Some(State::broken(code, message, roll(facts)));
    }
    let shown = |values: &BTreeSet<String>| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if values.is_empty() { "nothing".to_owned() } else { values.join(" and ") }
    };
    let matches = |values: &BTreeSet<String>, wanted: &str| {
        !values.is_empty() && values.iter().all(|value| value.eq_ignore_ascii_case(wanted))
    };
    let wrong = |what: &str, have: &BTreeSet<String>, wanted: &str| {
        Some(State::broken(
            "pod-stale",
            format!(
                "pod {name} has {what} {}, today's value is {wanted}: annotations are read only \
                 when a pod is created",
                shown(have)
            ),
            roll(facts),
        ))
    };
    // A value that stands in another object does not show in the pod.
    let elsewhere = |variable: &str| {
        let mut makers = facts.templates.iter().filter(|template| pod.is_made_by(&template.seen));
        makers.any(|template| template.references.iter().any(|r| r.variable == variable))
    };
    // What the manifest sets was judged with the manifest.
    let literal = |value: &&String| {
        let mut literals = facts.templates.iter().flat_map(|template| &template.seen.literal_env);
        literals.any(|(_, name, set)| name == "AZURE_CLIENT_ID" && set.as_ref() == Some(*value))
    };
    let client_ids: BTreeSet<String> =
        injected.client_ids.iter().filter(|value| !literal(value)).cloned().collect();
    let by_manifest = client_ids.is_empty() && !injected.client_ids.is_empty();
    if let Some(client) = facts.client
        && !by_manifest
        && !matches(&client_ids, &client.to_string())
        && !elsewhere("AZURE_CLIENT_ID")
    {
        return wrong("AZURE_CLIENT_ID", &injected.client_ids, &client.to_string());
    }
    let tenant = facts.annotation(names::TENANT_ID_ANNOTATION).map(str::to_owned);
    let tenant = tenant.or_else(|| facts.tenant().map(|tenant| tenant.to_string()));
    if let Some(tenant) = tenant.filter(|tenant| !matches(&injected.tenant_ids, tenant))
        && !elsewhere("AZURE_TENANT_ID")
    {
        return wrong("AZURE_TENANT_ID", &injected.tenant_ids, &tenant);
    }
    authority::of_pod(facts, pod).or_else(|| audience(facts, pod))
}

fn audience(facts: &Facts<'_>, pod: &ObservedPod) -> Option<State> {
    let wanted = facts.audience();
    let have = pod.injected.audience.as_ref()?;
    if *have == wanted || facts.identity_binding() {
        return None;
    }
    // What the credentials accept decides who is wrong; the credential link says it where it is
    // the credential.
    let accepted = facts.identity.is_some_and(|identity| {
        let credentials = facts.evidence.credentials.get(&identity.id);
        let credentials = credentials.and_then(Observation::present);
        credentials
            .is_some_and(|all| all.iter().any(|credential| credential.audiences.contains(have)))
    });
    (!accepted).then(|| {
        State::broken(
            "pod-audience",
            format!(
                "the token in pod {} is for audience {have}, wanted {wanted}: Entra answers \
                 AADSTS700212",
                pod.name
            ),
            Fix::advice(
                "take the custom audience out of the pod's projected token or of the webhook's \
                 --audience flag, then restart the pods",
            ),
        )
    })
}

/// How the pods are replaced.
pub(super) fn roll(facts: &Facts<'_>) -> Fix {
    let by_owner = facts.templates.iter().all(|template| {
        !template.seen.kind.writable() || template.seen.kind == TemplateKind::CronJob
    });
    if by_owner {
        return Fix::advice("delete the pods; what creates them must create them anew");
    }
    for template in &facts.templates {
        let (kind, name) = (template.seen.kind, template.seen.name.as_str());
        match template.seen.strategy {
            Strategy::OnDelete => {
                return Fix::advice("delete the pods: the update strategy is OnDelete");
            }
            Strategy::Partition(from) => {
                return Fix::advice(format!(
                    "set the partition of {} to 0: pods below ordinal {from} are not updated",
                    template.seen.key()
                ));
            }
            // A restart of a paused rollout is refused; the change waits for it to go on.
            Strategy::Paused if kind == TemplateKind::Deployment => {
                return Fix::typed([facts.kubectl(&["rollout", "resume", &template.seen.key()])]);
            }
            Strategy::Paused => return Fix::advice(format!("promote or resume rollout {name}")),
            Strategy::RollingUpdate | Strategy::Recreate | Strategy::NextRun => {}
        }
    }
    facts.rolled(Fix::typed(facts.restart()))
}
