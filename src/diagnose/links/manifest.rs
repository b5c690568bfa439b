//! What the manifest writes out and the webhook therefore leaves alone: variables, token paths,
//! Secrets Store volumes.

use super::{authority, template::words};
use crate::{
    diagnose::{
        evidence::{Reference, Template},
        facts::Facts,
        link::{Fix, State},
    },
    model::{
        ClientId,
        snapshot::{Observation, ObservedPod, TemplateKind},
    },
};

/// Judges one template's manifest.
pub(super) fn judge(facts: &mut Facts<'_>, template: &Template) -> Option<State> {
    overrides(facts, template)
        .or_else(|| authority::of_manifest(facts, template))
        .or_else(|| referred(facts, template))
        .or_else(|| provider_class(facts, template))
}

/// The value a variable must have; none where it does not matter or is not known.
fn wanted(facts: &Facts<'_>, variable: &str) -> Option<String> {
    match variable {
        "AZURE_CLIENT_ID" => facts.client.map(|client| client.to_string()),
        "AZURE_TENANT_ID" => facts.tenant().map(|tenant| tenant.to_string()),
        _ => None,
    }
}

/// Whether another identity than the account's is meant: one that exists and has a credential for
/// the account. One account may act as several identities.
fn trusts(facts: &Facts<'_>, client: &str) -> bool {
    let Ok(client) = client.parse::<ClientId>() else { return false };
    if facts.client == Some(client) {
        return false;
    }
    let Some(identity) = facts.evidence.identity_of(client) else { return false };
    let listed = facts.evidence.credentials.get(&identity.id).and_then(Observation::present);
    let (subject, audience) = (facts.subject(), facts.audience());
    listed.is_some_and(|all| {
        all.iter().any(|credential| {
            credential.subject.as_ref() == Some(&subject)
                && credential.audiences.contains(&audience)
                && facts.issuer.as_ref().is_none_or(|issuer| *issuer == credential.issuer)
        })
    })
}

/// A variable that is taken from a `ConfigMap` with another value in it.
fn referred(facts: &Facts<'_>, template: &Template) -> Option<State> {
    let differs = |reference: &&Reference| {
        let wanted = wanted(facts, &reference.variable);
        // Nothing on the way to Entra trims it: a line break in the value is another value.
        let have = reference.value.as_deref();
        wanted.zip(have).is_some_and(|(wanted, have)| !have.eq_ignore_ascii_case(&wanted))
    };
    let Reference { container, variable, kind, name, key, value } =
        template.references.iter().find(differs)?;
    let code =
        if variable == "AZURE_CLIENT_ID" { "literal-client-id" } else { "literal-tenant-id" };
    Some(State::broken(
        code,
        format!(
            "container {container} of {} takes {variable} from {kind} {name}, key {key}: {:?}, \
             wanted {}; the webhook never changes a variable that is set",
            words(facts, template),
            value.as_deref().unwrap_or_default(),
            wanted(facts, variable).unwrap_or_default()
        ),
        unset(facts, template, container, variable),
    ))
}

/// A variable whose value stands in an object that was not read.
pub(super) fn unread(facts: &Facts<'_>) -> Option<State> {
    facts.templates.iter().find_map(|template| {
        let hidden = |reference: &&Reference| {
            reference.value.is_none() && wanted(facts, &reference.variable).is_some()
        };
        let Reference { container, variable, kind, name, key, .. } =
            template.references.iter().find(hidden)?;
        let place =
            if name.is_empty() { kind.clone() } else { format!("{kind} {name}, key {key},") };
        let why = format!(
            "container {container} of {} takes {variable} from {place} which was not read",
            words(facts, template)
        );
        let hint = unset(facts, template, container, variable)
            .commands()
            .first()
            .map(|command| format!("the webhook would set it: {command}"));
        Some(State::CouldNotSee { why, hint, matters: true })
    })
}

/// Variables and paths that the manifest writes out and the webhook leaves alone.
fn overrides(facts: &mut Facts<'_>, template: &Template) -> Option<State> {
    if facts.by_hand(template) && !template.seen.labelled() {
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
                let found = token_file(facts, template, container, value.as_deref(), &object);
                if let Some(found) = found {
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
            (Some(value), Some(_)) if variable == "AZURE_CLIENT_ID" && trusts(facts, value) => {
                facts.note(
                    "second-identity",
                    format!(
                        "container {container} of {object} sets AZURE_CLIENT_ID to {value}, of an \
                         identity that trusts the account, too"
                    ),
                    "",
                );
            }
            (Some(value), Some(wanted)) if !value.eq_ignore_ascii_case(wanted) => {
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
                    unset(facts, template, container, variable),
                ));
            }
            _ => {}
        }
    }
    hard_coded(facts, template, &object)
}

/// Takes a variable out of a container's manifest.
pub(super) fn unset(
    facts: &Facts<'_>,
    template: &Template,
    container: &str,
    variable: &str,
) -> Fix {
    let variable = format!("{variable}-");
    match template.seen.kind {
        TemplateKind::Rollout | TemplateKind::Job | TemplateKind::Pod => {
            let variable = variable.trim_end_matches('-');
            Fix::advice(format!("take {variable} of container {container} out of the manifest"))
        }
        TemplateKind::Deployment
        | TemplateKind::StatefulSet
        | TemplateKind::DaemonSet
        | TemplateKind::CronJob
        | TemplateKind::ReplicaSet
        | TemplateKind::ReplicationController => {
            let key = template.seen.key();
            Fix::typed([facts.kubectl(&["set", "env", &key, "-c", container, &variable])])
        }
    }
}

/// The directories that the webhook mounts tokens at, by its versions.
const MOUNTS: [&str; 2] = ["/var/run/secrets/azure/tokens", "/var/run/secrets/azure/wi"];

fn token_file(
    facts: &Facts<'_>,
    template: &Template,
    container: &str,
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
        unset(facts, template, container, "AZURE_FEDERATED_TOKEN_FILE"),
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
        let arguments = ["patch", "secretproviderclass", name, "--type=merge", "-p", &line];
        let patch = Fix::typed([facts.kubectl(&arguments)]);
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
