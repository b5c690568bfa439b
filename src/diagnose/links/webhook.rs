//! The mutating webhook: installed once, healthy, not kept from the namespace, and proven by a
//! dry run where one was possible.

use std::collections::BTreeMap;

use crate::{
    diagnose::{
        evidence::{DryRun, Requirement, Selector, Webhook, WebhookConfiguration},
        facts::Facts,
        fix,
        link::{Fix, State},
        links::pods::refuses,
        selector,
    },
    model::{FailureKind, names, snapshot::Observation},
};

/// Where the AKS add-on runs; any other namespace is a self-installed webhook.
pub(in crate::diagnose) const ADD_ON: &str = "kube-system";

const CONFIGURATION: &str = "mutatingwebhookconfiguration";

/// Judges the webhook.
pub(in crate::diagnose) fn webhook(facts: &mut Facts<'_>) -> State {
    let state = judge(facts);
    match state {
        State::Broken(mut found) => {
            found.fix = facts.then_restart(found.fix);
            State::Broken(found)
        }
        State::Holds { .. } | State::NotReached { .. } | State::CouldNotSee { .. } => state,
    }
}

fn judge(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    if facts.all_by_hand() {
        facts.note(
            "webhook-not-used",
            "the manifest itself projects the token and sets the environment",
            "",
        );
        return State::holds("not needed: the manifest projects the token itself");
    }
    let webhook = match &evidence.webhook {
        Observation::Present(webhook) if !webhook.configurations.is_empty() => webhook,
        Observation::Present(_) | Observation::Absent => return missing(facts),
        Observation::Unknown(failure) => {
            return match evidence.dry_run.present() {
                Some(DryRun::Admitted(injected)) if injected.present => {
                    State::holds("a labelled pod comes back injected (server-side dry run)")
                }
                _ => State::unseen(failure),
            };
        }
    };
    if let Some(found) = twice(facts, webhook) {
        return found;
    }
    if ignores(webhook) {
        facts.note(
            "webhook-failure-policy",
            "failurePolicy of the webhook is Ignore: while it is away pods start without an \
             identity",
            "since 1.0 it is Fail",
        );
    }
    // An answer of admission itself is worth more than any conclusion from its settings.
    match &evidence.dry_run {
        Observation::Present(DryRun::Admitted(injected)) if injected.present => {
            return State::holds("a labelled pod comes back injected (server-side dry run)");
        }
        Observation::Present(DryRun::Denied(words)) if names_webhook(words) => {
            return State::broken(
                "webhook-not-answering",
                format!("the API server cannot call the webhook: {words}"),
                restart(facts, webhook),
            );
        }
        Observation::Present(_) | Observation::Absent | Observation::Unknown(_) => {}
    }
    for configuration in &webhook.configurations {
        if let Some(found) = kept_away(facts, configuration) {
            return found;
        }
        if !configuration.ca_bundle {
            return State::broken(
                "webhook-no-ca-bundle",
                format!(
                    "webhook configuration {} has no CA bundle: the API server trusts no answer",
                    configuration.name
                ),
                restart(facts, webhook),
            );
        }
    }
    if let Some((0, wanted)) = webhook.replicas {
        return State::broken(
            "webhook-not-ready",
            format!(
                "none of the webhook's {wanted} replicas is ready: {}",
                if ignores(webhook) {
                    "labelled pods start without an identity"
                } else {
                    "labelled pods are refused"
                }
            ),
            restart(facts, webhook),
        );
    }
    if let Some(words) = called_in_vain(facts) {
        return State::broken(
            "webhook-not-answering",
            format!("the API server cannot call the webhook: {words}"),
            restart(facts, webhook),
        );
    }
    match &evidence.dry_run {
        Observation::Present(DryRun::Admitted(_)) => State::broken(
            "webhook-does-not-inject",
            "a labelled pod comes back from admission without an identity (server-side dry run)",
            restart(facts, webhook),
        ),
        Observation::Present(DryRun::Denied(words)) => {
            // Another admission rule, or a word about the account: other links judge that.
            facts.note("dry-run-denied", format!("the dry run was refused: {words}"), "");
            State::holds(installed(webhook))
        }
        Observation::Unknown(failure) if failure.kind != FailureKind::NotReached => {
            facts.note("dry-run-not-made", format!("no dry run: {failure}"), "");
            State::holds(installed(webhook))
        }
        Observation::Unknown(_) | Observation::Absent => State::holds(installed(webhook)),
    }
}

fn installed(webhook: &Webhook) -> String {
    let first = webhook.configurations.first();
    let namespace = first.and_then(|first| first.service_namespace.as_deref()).unwrap_or("?");
    let kind = if namespace == ADD_ON { "add-on" } else { "self-installed" };
    format!("installed in {namespace} ({kind})")
}

fn ignores(webhook: &Webhook) -> bool {
    webhook.configurations.iter().any(|c| c.failure_policy.as_deref() == Some("Ignore"))
}

fn missing(facts: &Facts<'_>) -> State {
    let evidence = facts.evidence;
    let arm = evidence.cluster.present();
    let listed = evidence.wanted.enable.iter().any(|feature| feature == "workload-identity");
    let id = arm.map(|arm| &arm.id).or(evidence.asked.cluster_id.as_ref());
    let manual = fix::aks_update(id, &fix::ENABLE);
    match arm {
        Some(arm) if arm.workload_identity => State::broken(
            "webhook-missing",
            format!(
                "the workload identity add-on of {} is on, and its webhook is not in the cluster",
                arm.id.name()
            ),
            manual,
        ),
        _ => {
            let fix = if facts.in_file() && !listed {
                let cluster = evidence.asked.cluster.as_ref().map_or("", |name| name.as_str());
                Fix::Toml {
                    table: format!("[clusters.{cluster}]"),
                    line: "enable = [\"oidc-issuer\", \"workload-identity\"]".to_owned(),
                    then: vec![facts.apply()],
                }
            } else {
                facts.azure(manual)
            };
            State::broken(
                "add-on-off",
                "the workload identity add-on is off and no webhook is installed: no pod gets a \
                 token",
                fix,
            )
        }
    }
}

/// Two installations answer for the same pods and overwrite each other's certificates.
fn twice(facts: &Facts<'_>, webhook: &Webhook) -> Option<State> {
    let homes = webhook.homes();
    if homes.len() < 2 {
        return None;
    }
    let own = homes.iter().find(|home| **home != ADD_ON).copied().unwrap_or_default();
    let add_on = facts.evidence.cluster.present().is_some_and(|arm| arm.workload_identity);
    let to = &facts.evidence.asked.kubectl;
    let fix = if add_on || homes.contains(&ADD_ON) {
        Fix::typed([to.helm(&["uninstall", "workload-identity-webhook", "-n", own])])
    } else {
        Fix::look_at(
            "uninstall one of them",
            to.helm(&["list", "-A", "--filter", "workload-identity"]),
        )
    };
    Some(State::broken(
        "webhook-installed-twice",
        format!("the webhook is installed twice: in {}", homes.join(" and in ")),
        fix,
    ))
}

fn kept_away(facts: &Facts<'_>, configuration: &WebhookConfiguration) -> Option<State> {
    let namespace = &facts.evidence.asked.namespace;
    let own = configuration.service_namespace.as_deref() != Some(ADD_ON);
    if own && namespace.is_kept_from_webhooks() {
        return Some(State::broken(
            "webhook-excludes-namespace",
            format!("AKS keeps self-installed webhooks away from namespace {namespace}"),
            Fix::typed([facts.cluster_wide(&[
                "annotate",
                CONFIGURATION,
                &configuration.name,
                "admissions.enforcer/disabled=true",
            ])]),
        ));
    }
    let labels = facts.evidence.namespace.present().map(|facts| {
        let mut labels = facts.labels.clone();
        labels
            .entry("kubernetes.io/metadata.name".to_owned())
            .or_insert_with(|| namespace.to_string());
        labels
    });
    if let Some((selector, labels)) = configuration.namespace_selector.as_ref().zip(labels)
        && let Some(why) = selector::unmet(selector, &labels)
    {
        return Some(State::broken(
            "webhook-excludes-namespace",
            format!(
                "the namespace selector of {} leaves out {namespace}: {why}",
                configuration.name
            ),
            admit(facts, configuration, selector),
        ));
    }
    let labelled = [(names::USE_LABEL.to_owned(), "true".to_owned())].into();
    let selector = configuration.object_selector.as_ref()?;
    let why = selector::unmet(selector, &labelled)?;
    // A selector on more labels than ours may be met by the template's own.
    let met = |template: &&crate::diagnose::evidence::Template| {
        selector::unmet(selector, &template.seen.labels).is_none()
    };
    if facts.templates.iter().any(met) {
        return None;
    }
    Some(State::broken(
        "webhook-selects-otherwise",
        format!("the object selector of {} passes labelled pods by: {why}", configuration.name),
        Fix::look_at(
            "let the webhook select by azure.workload.identity/use alone",
            facts.cluster_wide(&["get", CONFIGURATION, &configuration.name, "-o", "yaml"]),
        ),
    ))
}

fn names_webhook(words: &str) -> bool {
    words.contains("failed calling webhook")
        && (words.contains("azure-workload-identity") || words.contains("azure-wi-webhook"))
}

/// The words of an event that says that the webhook does not answer for the workload's pods, now.
fn called_in_vain<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    let pods = facts.evidence.pods.present().map_or(&[][..], Vec::as_slice);
    let events = facts.evidence.events.iter();
    let mut said = events.filter(|event| names_webhook(&event.message));
    said.find(|event| refuses(facts, pods, event)).map(|event| event.message.as_str())
}

fn restart(facts: &Facts<'_>, webhook: &Webhook) -> Fix {
    let home = webhook.configurations.first().and_then(|c| c.service_namespace.as_deref());
    let controller = "deployment/azure-wi-webhook-controller-manager";
    let arguments = ["rollout", "restart", controller, "-n", home.unwrap_or(ADD_ON)];
    Fix::typed([facts.cluster_wide(&arguments)])
}

/// What makes the namespace one that the webhook sees: a label, where one decides that nobody
/// uses for anything else.
fn admit(facts: &Facts<'_>, configuration: &WebhookConfiguration, selector: &Selector) -> Fix {
    let none = BTreeMap::new();
    let labels = facts.evidence.namespace.present().map_or(&none, |facts| &facts.labels);
    let label = |change: &str| {
        let namespace = facts.evidence.asked.namespace.as_str();
        Fix::typed([facts.cluster_wide(&["label", "namespace", namespace, change])])
    };
    let unmet = |(key, value): &(&String, &String)| labels.get(*key) != Some(*value);
    let mut exact = selector.match_labels.iter().filter(unmet);
    match (exact.next(), exact.next(), selector.match_expressions.as_slice()) {
        (Some((key, value)), None, []) if !labels.contains_key(key) => {
            return label(&format!("{key}={value}"));
        }
        (None, None, [Requirement { key, operator, values }]) => {
            let opts_in = matches!(operator.as_str(), "In" | "Exists") && !labels.contains_key(key);
            let opts_out = matches!(operator.as_str(), "NotIn" | "DoesNotExist");
            let own = key.contains("kubernetes.io/");
            if opts_in && !own {
                let value = values.first().map_or("true", String::as_str);
                return label(&format!("{key}={value}"));
            }
            if opts_out && !own {
                return label(&format!("{key}-"));
            }
        }
        _ => {}
    }
    Fix::look_at(
        "let the webhook's selector take the namespace in",
        facts.cluster_wide(&["get", CONFIGURATION, &configuration.name, "-o", "yaml"]),
    )
}
