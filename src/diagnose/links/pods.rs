//! Live pods: injected, and with today's values.

use std::collections::BTreeSet;

use super::template::words;
use crate::{
    diagnose::{
        evidence::Template,
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
        let found = overrides(facts, template).or_else(|| provider_class(facts, template));
        if let Some(found) = found {
            return found;
        }
    }
    let pods = match &facts.evidence.pods {
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
                        && (Facts::labelled(template) || facts.by_hand(template) || pod.labelled)
                })
            }
    };
    let live: Vec<&ObservedPod> = pods.iter().filter(belongs).collect();
    facts.live_pods = live.len();
    // Where new pods are refused the old ones say nothing about today.
    let settled = facts.templates.iter().all(|template| template.seen.progress.complete());
    if (live.is_empty() || !settled)
        && let Some(found) = refused(facts)
    {
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
    State::holds(format!("{} live, with today's values", live.len()))
}

/// No pod is there because admission refuses them.
fn refused(facts: &Facts<'_>) -> Option<State> {
    let named = |object: &str| {
        let name = object.rsplit('/').next().unwrap_or_default();
        facts.templates.iter().any(|template| {
            name == template.seen.name || name.starts_with(&format!("{}-", template.seen.name))
        })
    };
    let event = facts
        .evidence
        .events
        .iter()
        .find(|event| event.reason == "FailedCreate" && named(&event.object))?;
    Some(State::broken(
        "pods-refused",
        format!("{} cannot create pods: {}", event.object, event.message),
        Fix::look(
            "correct what admission refuses; it stands in the message",
            facts.kubectl(&["describe", &event.object]),
        ),
    ))
}

/// Variables and paths that the manifest writes out and the webhook leaves alone.
fn overrides(facts: &mut Facts<'_>, template: &Template) -> Option<State> {
    if facts.by_hand(template) && !Facts::labelled(template) {
        return None;
    }
    let object = words(facts, template);
    let client = facts.client.map(|client| client.to_string());
    let tenant = facts.tenant().map(|tenant| tenant.to_string());
    let literals = template.seen.literal_env.iter();
    for (container, variable, value) in literals {
        let wanted = match variable.as_str() {
            "AZURE_CLIENT_ID" => client.as_deref(),
            "AZURE_TENANT_ID" => tenant.as_deref(),
            "AZURE_FEDERATED_TOKEN_FILE" => {
                if let Some(found) = token_file(facts, template, value.as_deref(), &object) {
                    return Some(found);
                }
                continue;
            }
            "AZURE_CLIENT_SECRET" | "AZURE_CLIENT_CERTIFICATE_PATH" => {
                facts.note(
                    "secret-beside-federation",
                    format!(
                        "container {container} of {object} sets {variable}: DefaultAzureCredential \
                         tries it before the federated token"
                    ),
                    "take it out of the manifest when the federated path is proved",
                );
                continue;
            }
            _ => continue,
        };
        match (value, wanted) {
            (Some(value), Some(wanted)) if !value.trim().eq_ignore_ascii_case(wanted) => {
                let code = if variable == "AZURE_CLIENT_ID" {
                    "literal-client-id"
                } else {
                    "literal-tenant-id"
                };
                return Some(State::broken(
                    code,
                    format!(
                        "container {container} of {object} sets {variable} to {value:?}, wanted \
                         {wanted}; the webhook never changes a variable that is set"
                    ),
                    unset(facts, template, variable),
                ));
            }
            (None, _) => facts.note(
                "variable-by-reference",
                format!("container {container} of {object} takes {variable} from elsewhere"),
                "",
            ),
            _ => {}
        }
    }
    hard_coded(facts, template, &object)
}

fn unset(facts: &Facts<'_>, template: &Template, variable: &str) -> Fix {
    let variable = format!("{variable}-");
    match template.seen.kind {
        TemplateKind::Rollout | TemplateKind::Job | TemplateKind::Pod => {
            Fix::advice(format!("take {variable} out of the manifest").replace("- ", " "))
        }
        TemplateKind::Deployment
        | TemplateKind::StatefulSet
        | TemplateKind::DaemonSet
        | TemplateKind::CronJob
        | TemplateKind::ReplicaSet => {
            Fix::command(facts.kubectl(&["set", "env", &template.seen.key(), &variable]))
        }
    }
}

/// The directories that the webhook mounts tokens at, by its versions.
const MOUNTS: [&str; 2] = ["/var/run/secrets/azure/tokens", "/var/run/secrets/azure/wi"];

fn token_file(
    facts: &Facts<'_>,
    template: &Template,
    value: Option<&str>,
    object: &str,
) -> Option<State> {
    let value = value?;
    // Present pods show whether the path lies in a mount with a token in it.
    let covered = made(facts, template).any(|pod| pod.injected.present);
    if covered || !template.projected.is_empty() {
        return None;
    }
    Some(State::broken(
        "hard-coded-token-path",
        format!(
            "{object} sets AZURE_FEDERATED_TOKEN_FILE to {value}, where no token is mounted; the \
             webhook never changes a variable that is set"
        ),
        unset(facts, template, "AZURE_FEDERATED_TOKEN_FILE"),
    ))
}

fn hard_coded(facts: &mut Facts<'_>, template: &Template, object: &str) -> Option<State> {
    let path = template
        .token_paths
        .iter()
        .find(|path| MOUNTS.iter().any(|mount| path.starts_with(mount)))?
        .clone();
    // Webhook 1.6 moved the mount; the image says which one it is.
    let image = facts.evidence.webhook.present().and_then(|webhook| webhook.image.as_deref());
    let moved = image.and_then(minor).map(|version| version >= (1, 6));
    let old = path.starts_with(MOUNTS[0]);
    if moved == Some(old) {
        return Some(State::broken(
            "hard-coded-token-path",
            format!(
                "{object} reads {path}; webhook {} mounts tokens elsewhere",
                image.unwrap_or("?")
            ),
            Fix::advice("read the path from AZURE_FEDERATED_TOKEN_FILE"),
        ));
    }
    facts.note(
        "token-path-written-out",
        format!("{object} writes the token path out: {path}"),
        "read AZURE_FEDERATED_TOKEN_FILE: webhook 1.6 moved the path",
    );
    None
}

/// Major and minor version of an image's tag.
fn minor(image: &str) -> Option<(u32, u32)> {
    let tag = image.rsplit(':').next()?.trim_start_matches('v');
    let mut parts = tag.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn made<'a>(facts: &Facts<'a>, template: &Template) -> impl Iterator<Item = &'a ObservedPod> {
    let pods = facts.evidence.pods.present().map_or(&[][..], Vec::as_slice);
    let of_template: Vec<&ObservedPod> =
        pods.iter().filter(|pod| pod.live() && pod.is_made_by(&template.seen)).collect();
    of_template.into_iter()
}

/// A Secrets Store volume that asks for the wrong identity, or for none.
fn provider_class(facts: &Facts<'_>, template: &Template) -> Option<State> {
    let client = facts.client?.to_string();
    template.provider_classes.iter().find_map(|name| {
        let class = facts.evidence.provider_classes.get(name)?;
        let line = format!("{{\"spec\":{{\"parameters\":{{\"usePodIdentity\":\"false\",\"useVMManagedIdentity\":\"false\",\"clientID\":\"{client}\"}}}}}}");
        let patch = Fix::command(facts.kubectl(&[
            "patch",
            "secretproviderclass",
            name,
            "--type=merge",
            "-p",
            &line,
        ]));
        if class.use_pod_identity {
            return Some(State::broken(
                "provider-class-pod-identity",
                format!("SecretProviderClass {name} has usePodIdentity: its volume cannot mount without AAD Pod Identity"),
                patch,
            ));
        }
        match class.client_id.as_deref().map(str::trim) {
            _ if class.use_vm_identity => None,
            None | Some("") => Some(State::broken(
                "provider-class-no-client-id",
                format!(
                    "SecretProviderClass {name} names no clientID: the annotation of the account is \
                     not read there"
                ),
                patch,
            )),
            Some(have) if !have.eq_ignore_ascii_case(&client) => Some(State::broken(
                "provider-class-other-client-id",
                format!("SecretProviderClass {name} asks for client id {have}, wanted {client}"),
                patch,
            )),
            Some(_) => None,
        }
    })
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
    if let Some(client) = facts.client
        && !matches(&injected.client_ids, &client.to_string())
    {
        return wrong("AZURE_CLIENT_ID", &injected.client_ids, &client.to_string());
    }
    let tenant = facts.annotation(names::TENANT_ID_ANNOTATION).map(str::to_owned);
    let tenant = tenant.or_else(|| facts.tenant().map(|tenant| tenant.to_string()));
    if let Some(tenant) = tenant.filter(|tenant| !matches(&injected.tenant_ids, tenant)) {
        return wrong("AZURE_TENANT_ID", &injected.tenant_ids, &tenant);
    }
    audience(facts, pod)
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
fn roll(facts: &Facts<'_>) -> Fix {
    let by_owner = facts.templates.iter().all(|template| {
        !template.seen.kind.writable() || template.seen.kind == TemplateKind::CronJob
    });
    if by_owner {
        return Fix::advice("delete the pods; what creates them must create them anew");
    }
    let on_delete = facts.templates.iter().any(|t| t.seen.strategy == Strategy::OnDelete);
    if on_delete {
        return Fix::advice("delete the pods: the update strategy is OnDelete");
    }
    facts.rolled(Fix::Command { commands: facts.restart() })
}
