//! The account's annotations: known keys, and values that name the identity.

use super::client::{Meaning, meaning};
use crate::{
    diagnose::{
        command::{TENANT, Value},
        difference::{Difference, edits},
        evidence::DryRun,
        facts::Facts,
        keys,
        link::{Fix, State},
    },
    model::{
        ClientId, TenantId, names,
        snapshot::{Observation, ObservedAccount, ObservedIdentity},
    },
};

const KEY: &str = names::CLIENT_ID_ANNOTATION;

/// Judges the annotations; finds out which client id tokens are asked for.
pub(in crate::diagnose) fn annotations(facts: &mut Facts<'_>) -> State {
    if let Observation::Unknown(failure) = &*facts.evidence.accounts {
        return State::unseen(failure);
    }
    let Some(account) = facts.seen_account() else {
        return State::unclear("the account was not read", true);
    };
    stray_keys(facts, account);
    let client = match account.meta.annotations.get(KEY) {
        Some(value) => value_of(facts, value),
        None => absent(facts, account),
    };
    let shown = match client {
        Ok(shown) => shown,
        Err(broken) => return broken,
    };
    if let Some(broken) = tenant(facts, account).or_else(|| expiration(facts, account)) {
        return broken;
    }
    State::holds(shown)
}

/// Notes keys that do nothing.
fn stray_keys(facts: &mut Facts<'_>, account: &ObservedAccount) {
    if account.meta.labels.contains_key(names::USE_LABEL) {
        facts.note(
            "account-label-without-effect",
            format!(
                "service account {} has the label {}, which webhooks since 1.0 do not read",
                facts.account,
                names::USE_LABEL
            ),
            "the label belongs on the pod template; it may be taken off the account",
        );
    }
    let known = [KEY, names::TENANT_ID_ANNOTATION, names::EXPIRATION_ANNOTATION];
    let of_ours = |key: &&String| {
        let plain = key.replace(['.', '-', '_'], "");
        plain.starts_with("azureworkloadid") && !known.contains(&key.as_str())
    };
    let strays: Vec<String> = account.meta.annotations.keys().filter(of_ours).cloned().collect();
    for key in strays {
        facts.note(
            "annotation-unknown",
            format!(
                "annotation {key} of service account {} is not read by anything",
                facts.account
            ),
            "",
        );
    }
}

/// The annotation is not there: misspelt, put elsewhere, or forgotten.
fn absent(facts: &mut Facts<'_>, account: &ObservedAccount) -> Result<String, State> {
    let name = facts.account.clone();
    if let Some(literal) = facts.literal("AZURE_CLIENT_ID") {
        match value_of(facts, literal) {
            Ok(shown) => {
                facts.note(
                    "client-id-in-manifest",
                    format!(
                        "the manifest sets AZURE_CLIENT_ID itself; service account {name} names \
                         none"
                    ),
                    "",
                );
                return Ok(shown);
            }
            // What the file wants to be written there repairs the account, too.
            Err(broken) if !facts.in_file() => return Err(broken),
            Err(_) => {}
        }
    }
    if let Some(key) = keys::near(account.meta.annotations.keys(), KEY) {
        let value = account.meta.annotations.get(key).cloned().unwrap_or_default();
        let given = value.parse::<ClientId>().is_ok();
        let value = if given { value.into() } else { facts.client_value() };
        return Err(State::broken(
            "annotation-key-misspelt",
            format!("service account {name} is annotated {key}; the key is {KEY}"),
            facts.annotate(KEY, value),
        ));
    }
    let wrong_place = account.meta.labels.get(KEY).cloned();
    if let Some(value) = wrong_place {
        return Err(State::broken(
            "annotation-is-label",
            format!("service account {name} has {KEY} as a label; it must be an annotation"),
            facts.annotate(KEY, value),
        ));
    }
    if facts.identity_binding() {
        return Err(missing(facts));
    }
    let on_template = facts.templates.iter().find(|template| {
        template.seen.annotations.contains_key(KEY)
            || template.seen.labels.contains_key(KEY)
            || template.seen.meta.annotations.contains_key(KEY)
    });
    if let Some(template) = on_template {
        return Err(State::broken(
            "annotation-on-template",
            format!(
                "{KEY} stands on {}; the webhook reads it from service account {name} only",
                template.seen.key()
            ),
            facts.annotate(KEY, facts.client_value()),
        ));
    }
    Err(missing(facts))
}

fn missing(facts: &Facts<'_>) -> State {
    State::broken(
        "client-id-missing",
        format!(
            "service account {}/{} has no annotation {KEY}: pods get a token and no client id",
            facts.evidence.asked.namespace, facts.account
        ),
        facts.annotate(KEY, facts.client_value()),
    )
}

/// Judges the value and keeps the client id it names.
fn value_of(facts: &mut Facts<'_>, value: &str) -> Result<String, State> {
    let wanted = facts.identity;
    let account = facts.account.clone();
    let repaired = |facts: &Facts<'_>, identity: Option<&ObservedIdentity>| {
        let right = identity.or(wanted).or_else(|| facts.trusting());
        let client = right.map(|identity| Value::from(identity.client_id.to_string()));
        let client = client.unwrap_or_else(|| facts.client_value());
        let key = names::TENANT_ID_ANNOTATION;
        // Values that were swapped are put right together.
        match (right.map(|identity| identity.tenant_id.to_string()), facts.annotation(key)) {
            (Some(tenant), Some(have)) if !have.trim().eq_ignore_ascii_case(&tenant) => {
                let pairs = [(KEY, client), (key, tenant.into())];
                facts.kubernetes(facts.annotate_by_hand(&pairs))
            }
            _ => facts.annotate(KEY, client),
        }
    };
    let (code, message, identity) = match meaning(facts, value) {
        Meaning::Empty => ("client-id-empty", "is empty".to_owned(), None),
        Meaning::Padded => (
            "client-id-padded",
            format!(
                "is \"{}\": blanks, quotes or invisible characters around a GUID",
                value.escape_debug()
            ),
            None,
        ),
        Meaning::Placeholder => {
            ("client-id-placeholder", format!("is a placeholder nobody replaced: {value}"), None)
        }
        Meaning::ResourceId(id) => (
            "client-id-is-resource-id",
            format!("is the resource id of {}: Entra answers AADSTS700016", id.name()),
            facts.evidence.identity_at(&id),
        ),
        Meaning::Principal(identity) => (
            "client-id-is-principal-id",
            format!(
                "is the principal id of {}; its client id is {}",
                identity.id.name(),
                identity.client_id
            ),
            Some(identity),
        ),
        Meaning::Tenant => ("client-id-is-tenant-id", "is the tenant's id".to_owned(), None),
        Meaning::Subscription => {
            ("client-id-is-subscription-id", "is a subscription's id".to_owned(), None)
        }
        Meaning::Name(identity) => (
            "client-id-not-a-guid",
            format!("is the name of {}, not its client id", identity.id.name()),
            Some(identity),
        ),
        Meaning::NotAGuid => ("client-id-not-a-guid", format!("is no GUID: {value}"), None),
        Meaning::Identity(identity) => {
            return match wanted {
                Some(wanted) if wanted.id != identity.id => {
                    let message = format!(
                        "{KEY} of service account {account} is the client id of {}, wanted {}",
                        identity.id.name(),
                        wanted.id.name()
                    );
                    Err(State::broken(
                        "client-id-of-other-identity",
                        message,
                        repaired(facts, Some(wanted)),
                    ))
                }
                Some(_) | None => {
                    facts.client = Some(identity.client_id);
                    facts.identity = Some(identity);
                    Ok(format!("{} of {}", identity.client_id, identity.id.name()))
                }
            };
        }
        Meaning::Unknown(client) => {
            let near = near_client(facts, client);
            return if let Some(meant) = wanted.or(near) {
                let (have, want) = (client.to_string(), meant.client_id.to_string());
                let slip = edits(&have, &want, 3) <= 3;
                let message = format!(
                    "{KEY} of service account {account} is {client}, of no identity that was \
                     read; {} has {}{}",
                    meant.id.name(),
                    meant.client_id,
                    if slip { "" } else { " (made anew?)" }
                );
                let fix = repaired(facts, Some(meant));
                Err(match Difference::between("client id", &have, &want).filter(|_| slip) {
                    Some(difference) => {
                        State::differs("client-id-misspelt", message, difference, fix)
                    }
                    None => State::broken("client-id-out-of-date", message, fix),
                })
            } else {
                facts.client = Some(client);
                Ok(client.to_string())
            };
        }
    };
    Err(State::broken(
        code,
        format!("{KEY} of service account {account} {message}"),
        repaired(facts, identity),
    ))
}

/// The identity whose client id was probably meant: another one by at most three characters.
fn near_client<'a>(facts: &Facts<'a>, client: ClientId) -> Option<&'a ObservedIdentity> {
    // Where a list failed the client id may be of an identity that is not among these.
    if facts.proved_for(client) || facts.evidence.identities_unseen.is_some() {
        return None;
    }
    let identities = facts.evidence.identities.present()?;
    let have = client.to_string();
    let distance =
        |identity: &&'a ObservedIdentity| edits(&have, &identity.client_id.to_string(), 3);
    let nearest = identities.iter().min_by_key(distance)?;
    let least = distance(&nearest);
    let ties = identities.iter().filter(|identity| distance(identity) == least).count();
    (least <= 3 && ties == 1).then_some(nearest)
}

fn tenant(facts: &mut Facts<'_>, account: &ObservedAccount) -> Option<State> {
    let key = names::TENANT_ID_ANNOTATION;
    let name = facts.account.clone();
    let tenant = facts.tenant();
    let shown = || tenant.map_or(TENANT.into(), |tenant| Value::from(tenant.to_string()));
    let Some(value) = account.meta.annotations.get(key) else {
        if let Some(near) = keys::near(account.meta.annotations.keys(), key) {
            facts.note(
                "annotation-key-misspelt",
                format!("service account {name} is annotated {near}; the key is {key}"),
                "",
            );
        }
        return webhook_tenant(facts);
    };
    // The webhook writes the value into pods as it is, and neither libraries nor Entra trim it.
    let Ok(have) = value.parse::<TenantId>() else {
        let (code, what) = if value.trim().is_empty() {
            ("tenant-id-empty", "is empty: pods get no AZURE_TENANT_ID".to_owned())
        } else if value.trim().parse::<TenantId>().is_ok() {
            ("tenant-id-padded", format!("is \"{}\": blanks around a GUID", value.escape_debug()))
        } else {
            ("tenant-id-not-a-guid", format!("is no GUID: {value}"))
        };
        return Some(State::broken(
            code,
            format!("{key} of service account {name} {what}"),
            facts.annotate(key, shown()),
        ));
    };
    let proved = facts.proved();
    match tenant {
        Some(tenant) if tenant != have && !proved => Some(State::broken(
            "tenant-id-differs",
            format!(
                "{key} of service account {name} is {have}{}, the identity lives in {tenant}: \
                 Entra does not know it there",
                if subscription(facts, have) { ", a subscription's id" } else { "" }
            ),
            facts.annotate(key, shown()),
        )),
        Some(_) | None => None,
    }
}

fn subscription(facts: &Facts<'_>, tenant: TenantId) -> bool {
    let identities = facts.evidence.identities.present().map_or(&[][..], Vec::as_slice);
    let ids = identities.iter().map(|identity| &identity.id);
    let mut ids = ids.chain(facts.evidence.asked.cluster_id.as_ref());
    ids.any(|id| id.subscription().is_some_and(|subscription| subscription.0 == tenant.0))
}

/// The tenant that the webhook writes into pods of an account that names none.
pub(in crate::diagnose) fn written_tenant<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    let settings = facts.evidence.webhook.present().and_then(|webhook| webhook.tenant.as_deref());
    // What admission writes is worth more than what the settings say.
    let tried = match facts.evidence.dry_run.present() {
        Some(DryRun::Admitted(injected)) => injected.tenant_ids.first().map(String::as_str),
        Some(DryRun::Denied(_)) | None => None,
    };
    tried.or(settings).filter(|wrote| !wrote.is_empty())
}

/// The webhook writes its own tenant into pods whose account names none.
fn webhook_tenant(facts: &Facts<'_>) -> Option<State> {
    let tenant = facts.tenant()?.to_string();
    let wrote = written_tenant(facts)?;
    (!wrote.eq_ignore_ascii_case(&tenant)).then(|| {
        State::broken(
            "webhook-tenant-differs",
            format!(
                "the webhook writes tenant {wrote} into pods, the identity lives in {tenant}, and \
                 the account names no tenant"
            ),
            facts.annotate(names::TENANT_ID_ANNOTATION, tenant.as_str().to_owned()),
        )
    })
}

/// The webhook refuses pods whose token lifetime is out of its range.
fn expiration(facts: &Facts<'_>, account: &ObservedAccount) -> Option<State> {
    let key = names::EXPIRATION_ANNOTATION;
    let bad = |value: &String| !value.parse::<u32>().is_ok_and(|s| (3600..=86_400).contains(&s));
    if let Some(value) = account.meta.annotations.get(key).filter(|value| bad(value)) {
        return Some(State::broken(
            "token-expiration-invalid",
            format!(
                "{key} of service account {} is {value}; the webhook refuses pods unless it is \
                 3600 to 86400 seconds",
                facts.account
            ),
            // The file says nothing about it where it takes the default, so `apply` may leave it.
            facts.annotate_by_hand(&[(key, "3600".to_owned().into())]),
        ));
    }
    let template = facts
        .templates
        .iter()
        .find(|template| template.seen.annotations.get(key).is_some_and(bad))?;
    let value = template.seen.annotations.get(key)?;
    Some(State::broken(
        "token-expiration-invalid",
        format!(
            "{key} of the pods of {} is {value}; the webhook refuses them unless it is 3600 to \
             86400 seconds",
            template.seen.key()
        ),
        Fix::advice(format!("set {key} in the pod template to a number from 3600 to 86400")),
    ))
}
