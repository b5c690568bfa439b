//! The pod template: there, labelled where the webhook looks, and able to be injected.

use crate::{
    diagnose::{
        evidence::Template,
        facts::Facts,
        keys,
        link::{Fix, State},
    },
    model::{
        names,
        pod_identity::BINDING_LABEL,
        snapshot::{Observation, ObservedPod, TemplateKind},
    },
};

const SKIP: &str = "azure.workload.identity/skip-containers";
const PROXY: &str = "azure.workload.identity/inject-proxy-sidecar";

/// Judges the workload's templates; the first that is broken is reported.
pub(in crate::diagnose) fn template(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let asked = &evidence.asked;
    if evidence.namespace == Observation::Absent {
        return namespace_missing(facts);
    }
    if let Observation::Unknown(failure) = &*evidence.templates {
        return State::unseen(failure);
    }
    if facts.templates.is_empty() {
        return match &asked.object {
            Some(object) if !object.starts_with("pod/") => State::broken(
                "template-not-found",
                format!("there is no {object} in namespace {}", asked.namespace),
                Fix::look_at(
                    "correct the name; these exist",
                    facts.kubectl(&["get", "deploy,sts,ds,cronjob"]),
                ),
            ),
            Some(_) | None => loose_pods(facts),
        };
    }
    let templates = facts.templates.clone();
    let any = templates.iter().any(|template| template.seen.labelled());
    let named = asked.object.is_some() || evidence.wanted.pods.is_some();
    for template in &templates {
        if let Some(found) = unfit(facts, template) {
            return found;
        }
        if template.seen.labelled() || facts.by_hand(template) {
            continue;
        }
        let object = words(facts, template);
        if labelled_by_admission(facts, template) {
            facts.note(
                "label-by-admission",
                format!("{object} has no label, its pods have: something adds it at admission"),
                "",
            );
            continue;
        }
        if any && !named {
            facts.note(
                "template-not-labelled",
                format!("{object} runs as {} too and is not labelled", facts.account),
                "label its template if it calls Azure",
            );
            continue;
        }
        return unlabelled(facts, template, &object);
    }
    for template in &templates {
        if template.seen.labels.contains_key(BINDING_LABEL) {
            facts.note(
                "pod-identity-left-over",
                format!("{} still carries {BINDING_LABEL}", words(facts, template)),
                "take the label off when the new path is proved: while it is there, pod identity \
                 can hide a broken link",
            );
        }
    }
    let shown: Vec<String> = templates.iter().map(|template| template.seen.key()).collect();
    State::holds(shown.join(", "))
}

/// The namespace is not there.
pub(super) fn namespace_missing(facts: &Facts<'_>) -> State {
    let namespace = &facts.evidence.asked.namespace;
    State::broken(
        "namespace-missing",
        format!("namespace {namespace} does not exist"),
        Fix::typed([facts.cluster_wide(&["create", "namespace", namespace.as_str()])]),
    )
}

/// `deployment payments/payments-api`.
pub(super) fn words(facts: &Facts<'_>, template: &Template) -> String {
    let seen = &template.seen;
    format!("{} {}/{}", seen.kind.as_str(), facts.evidence.asked.namespace, seen.name)
}

/// Pods without a template we know, or nothing at all.
fn loose_pods(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let Some(pods) = evidence.pods.present() else {
        return State::holds("no controller uses the account");
    };
    if let Some(object) = &evidence.asked.object {
        let name = object.trim_start_matches("pod/");
        return match pods.iter().find(|pod| pod.name == name) {
            None => State::broken(
                "pod-not-found",
                format!("there is no pod {name} in namespace {}", evidence.asked.namespace),
                Fix::look_at(
                    "ask about what makes the pod (deploy/NAME), or about a pod that is there",
                    facts.kubectl(&["get", "pods"]),
                ),
            ),
            Some(pod) if pod.labelled || pod.injected.present => {
                State::holds(format!("pod {name}, made by nothing that was read"))
            }
            Some(_) => State::broken(
                "label-missing",
                format!("pod {name} has no label {}: the webhook passes it by", names::USE_LABEL),
                Fix::advice(format!(
                    "give what creates the pod the label {}: \"true\" and create it anew; a \
                     running pod cannot be injected",
                    names::USE_LABEL
                )),
            ),
        };
    }
    let live = pods.iter().filter(|pod| pod.live() && pod.account == facts.account).count();
    if live == 0 {
        facts.note(
            "account-not-used",
            format!("nothing in {} runs as {}", evidence.asked.namespace, facts.account),
            "",
        );
    }
    State::holds(format!("no controller uses the account; {live} pods do"))
}

/// Whether live pods of the template carry the label all the same.
fn labelled_by_admission(facts: &Facts<'_>, template: &Template) -> bool {
    let Some(pods) = facts.evidence.pods.present() else { return false };
    let mut live =
        pods.iter().filter(|pod| pod.live() && pod.is_made_by(&template.seen)).peekable();
    live.peek().is_some()
        && live.all(|pod: &ObservedPod| pod.labelled && pod.injected.present)
        && template.seen.progress.complete()
}

fn unlabelled(facts: &Facts<'_>, template: &Template, object: &str) -> State {
    let label = names::USE_LABEL;
    let seen = &template.seen;
    let account = facts.seen_account().map(|account| &account.meta);
    let (code, message) = if let Some(value) = seen.labels.get(label) {
        (
            "label-value-wrong",
            format!("{object} has {label}: \"{value}\"; only exactly \"true\" is matched"),
        )
    } else if let Some(key) = keys::near(seen.labels.keys(), label) {
        ("label-key-misspelt", format!("{object} is labelled {key}; the key is {label}"))
    } else if seen.labels.contains_key(BINDING_LABEL) {
        (
            "migration-unfinished",
            format!(
                "{object} is labelled {BINDING_LABEL} for AAD Pod Identity and not {label}: \
                 the migration of this workload is not finished"
            ),
        )
    } else if seen.annotations.contains_key(label) {
        (
            "label-is-annotation",
            format!("{object} has {label} as an annotation of its pods; it must be a label"),
        )
    } else if template.job_labels.contains_key(label) {
        (
            "label-on-controller",
            format!(
                "{label} is on the jobs of {object}, not on their pod template: the pods do not \
                 carry it"
            ),
        )
    } else if seen.meta.labels.contains_key(label) {
        (
            "label-on-controller",
            format!(
                "{label} is on {object} itself, not on its pod template: its pods do not carry it"
            ),
        )
    } else if account
        .is_some_and(|meta| meta.labels.contains_key(label) || meta.annotations.contains_key(label))
    {
        (
            "label-on-account",
            format!(
                "{label} is on service account {}, where webhooks since 1.0 do not look; the pod \
                 template of {object} has no label",
                facts.account
            ),
        )
    } else {
        (
            "label-missing",
            format!(
                "the pod template of {object} has no label {label}: the webhook passes its pods by"
            ),
        )
    };
    State::broken(code, message, facts.rolled(patch(facts, template)))
}

fn patch(facts: &Facts<'_>, template: &Template) -> Fix {
    let inner = format!(r#"{{"metadata":{{"labels":{{"{}":"true"}}}}}}"#, names::USE_LABEL);
    let patch = if template.seen.kind == TemplateKind::CronJob {
        format!(r#"{{"spec":{{"jobTemplate":{{"spec":{{"template":{inner}}}}}}}}}"#)
    } else {
        format!(r#"{{"spec":{{"template":{inner}}}}}"#)
    };
    let key = template.seen.key();
    if template.seen.kind == TemplateKind::Rollout {
        // Custom kinds know no strategic merge.
        return Fix::typed([facts.kubectl(&["patch", &key, "--type=merge", "-p", &patch])]);
    }
    if template.seen.kind.writable() {
        return Fix::typed([facts.kubectl(&["patch", &key, "-p", &patch])]);
    }
    Fix::advice(format!(
        "create {} anew with the label {}: \"true\" on its pods; its template cannot be changed",
        template.seen.key(),
        names::USE_LABEL
    ))
}

/// What makes injection impossible or pointless, whatever the label says.
fn unfit(facts: &mut Facts<'_>, template: &Template) -> Option<State> {
    let object = words(facts, template);
    let windows = template.os.as_deref() == Some("windows");
    let on_windows =
        template.node_selector.get("kubernetes.io/os").map(String::as_str) == Some("windows");
    if on_windows && !windows && template.seen.labelled() {
        return Some(State::broken(
            "windows-without-os",
            format!(
                "{object} runs on Windows nodes and does not say spec.os.name: its token volume \
                 fails with chown … not supported by windows"
            ),
            Fix::advice("set spec.template.spec.os.name: windows"),
        ));
    }
    if template.node_selector.get("type").map(String::as_str) == Some("virtual-kubelet") {
        return Some(State::broken(
            "virtual-node",
            format!("{object} runs on virtual nodes, which do not support workload identity"),
            Fix::advice("run it on a node pool"),
        ));
    }
    proxy(facts, template, &object).or_else(|| skipped(facts, template, &object))
}

fn proxy(facts: &mut Facts<'_>, template: &Template, object: &str) -> Option<State> {
    let value = template.seen.annotations.get(PROXY)?;
    if value != "true" {
        facts.note(
            "proxy-by-presence",
            format!("{object} has {PROXY}: \"{value}\"; the webhook looks only at the key"),
            "take the annotation away to be without the sidecar",
        );
    }
    let namespace = facts.evidence.namespace.present();
    let enforced = namespace.and_then(|facts| {
        facts.labels.get("pod-security.kubernetes.io/enforce").map(String::as_str)
    });
    let without = "take the proxy annotation away and use a current Azure Identity SDK";
    if template.host_network {
        return Some(State::broken(
            "proxy-with-host-network",
            format!("{object} uses the host's network, where the proxy sidecar is refused"),
            Fix::advice(without),
        ));
    }
    if matches!(enforced, Some("baseline" | "restricted")) {
        return Some(State::broken(
            "proxy-forbidden",
            format!(
                "{object} asks for the proxy sidecar, whose init container is privileged, and \
                 namespace {} enforces pod security {}",
                facts.evidence.asked.namespace,
                enforced.unwrap_or_default()
            ),
            Fix::advice(without),
        ));
    }
    if template.node_selector.get("kubernetes.io/os").map(String::as_str) == Some("windows") {
        return Some(State::broken(
            "proxy-on-windows",
            format!("{object} asks for the proxy sidecar, which exists for Linux only"),
            Fix::advice(without),
        ));
    }
    if matches!(template.seen.kind, TemplateKind::Job | TemplateKind::CronJob) {
        facts.note(
            "proxy-in-job",
            format!("{object} is a job with the proxy sidecar"),
            "before Kubernetes 1.32 the sidecar keeps the job from completing",
        );
    }
    None
}

fn has(template: &Template, name: &str) -> bool {
    template.containers.iter().any(|container| container == name)
}

/// Whether a container is by its name a helper that asks Azure for nothing.
fn sidecar(name: &str) -> bool {
    const HELPERS: [&str; 10] = [
        "proxy",
        "istio",
        "linkerd",
        "envoy",
        "fluent",
        "otel",
        "collector",
        "exporter",
        "daprd",
        "consul",
    ];
    HELPERS.iter().any(|helper| name.contains(helper))
}

fn skipped(facts: &mut Facts<'_>, template: &Template, object: &str) -> Option<State> {
    let list = template.seen.annotations.get(SKIP)?;
    let listed: Vec<&str> =
        list.split(';').map(str::trim).filter(|name| !name.is_empty()).collect();
    let skipped = |name: &&String| listed.contains(&name.as_str());
    let left: Vec<&String> = template.containers.iter().filter(|name| !skipped(name)).collect();
    let own: Vec<&str> =
        listed.iter().copied().filter(|name| !sidecar(name) && has(template, name)).collect();
    // Who is left with a token are helpers that ask none: the program was meant.
    if !own.is_empty() && left.iter().all(|name| sidecar(name)) {
        return Some(State::broken(
            "container-skipped",
            format!("{SKIP} of {object} is {list}: no container that calls Azure is injected"),
            Fix::advice(format!("take {} out of {SKIP} in the pod template", own.join(" and "))),
        ));
    }
    if !own.is_empty() {
        facts.note(
            "container-left-out",
            format!("{SKIP} of {object} leaves {} without a token", own.join(" and ")),
            "take it out of the list if it calls Azure",
        );
    }
    if list.contains(',') {
        facts.note(
            "skip-list-separator",
            format!("{SKIP} of {object} is \"{list}\"; names are separated by semicolons"),
            "",
        );
    }
    None
}
