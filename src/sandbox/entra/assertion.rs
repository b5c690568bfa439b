//! A federated token against the federated credentials of an identity.
//!
//! The order of the checks is not documented; that of the error codes suggests issuer, subject,
//! audience. The signature is checked once the issuer is one that the identity trusts, so that
//! nobody can make Entra fetch any URL they like.

use std::sync::PoisonError;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::Value;

use super::{Entra, refusal::Refusal};

/// Clock skew that Entra forgives, in seconds.
const SKEW: i64 = 300;

/// Accepts the token for the application, or says why not.
pub(super) async fn check(
    entra: &Entra,
    client: &str,
    app: &Value,
    jwt: &str,
) -> Result<(), Refusal> {
    let claims = unverified(jwt).ok_or_else(Refusal::malformed_assertion)?;
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let (issuer, subject) = (text("iss"), text("sub"));
    let audiences: Vec<String> = match &claims["aud"] {
        Value::String(audience) => vec![audience.clone()],
        Value::Array(list) => list.iter().filter_map(|a| Some(a.as_str()?.to_owned())).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    let shown_audience = audiences.first().cloned().unwrap_or_default();
    let remembered = format!("{client} {issuer} {subject} {shown_audience}");
    if let Some(refusal) = recall(entra, &remembered) {
        return Err(refusal);
    }
    let credentials = credentials(entra, app);
    let matched = async {
        if credentials.is_empty() {
            let name = app["name"].as_str().unwrap_or_default();
            return Err(Refusal::no_federation(client, name));
        }
        let with_issuer = narrow(&credentials, &issuer, "issuer", |c| &c.issuer)
            .map_err(|case| case.unwrap_or_else(|| Refusal::issuer(&issuer)))?;
        verify(entra, jwt, &issuer, &claims).await?;
        let with_subject = narrow(&with_issuer, &subject, "subject", |c| &c.subject)
            .map_err(|case| case.unwrap_or_else(|| Refusal::subject(&subject)))?;
        if with_subject.iter().any(|c| audiences.contains(&c.audience)) {
            return Ok(());
        }
        Err(Refusal::audience(&shown_audience))
    }
    .await;
    if let Err(refusal) = &matched
        && [70_025, 700_211, 700_212, 700_213].contains(&refusal.code)
    {
        remember(entra, remembered, refusal);
    }
    matched
}

#[derive(Clone)]
struct Credential {
    issuer: String,
    subject: String,
    audience: String,
}

/// The credentials of the application that have propagated.
fn credentials(entra: &Entra, app: &Value) -> Vec<Credential> {
    let ctx = &entra.ctx;
    let Some(identity) = app["identity"].as_str() else { return Vec::new() };
    let now = ctx.clock.now().as_millisecond();
    let delay = i64::try_from(ctx.settings.delays.fic.as_millis()).unwrap_or(i64::MAX);
    ctx.store
        .list(&format!("arm{}/federatedidentitycredentials/", identity.to_lowercase()))
        .into_iter()
        .filter(|(_, doc)| doc["since_ms"].as_i64().unwrap_or(0).saturating_add(delay) <= now)
        .map(|(_, doc)| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Credential {
                issuer: text(&doc["issuer"]),
                subject: text(&doc["subject"]),
                audience: text(&doc["audiences"][0]),
            }
        })
        .collect()
}

/// The credentials whose member equals `value`; otherwise the refusal that says only the case
/// differs, or `None` if more does.
fn narrow(
    credentials: &[Credential],
    value: &str,
    what: &str,
    member: impl Fn(&Credential) -> &String,
) -> Result<Vec<Credential>, Option<Refusal>> {
    let found: Vec<Credential> =
        credentials.iter().filter(|c| member(c) == value).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let near = credentials.iter().any(|c| member(c).to_lowercase() == value.to_lowercase());
    Err(near.then(|| Refusal::case(what)))
}

/// Fetches the issuer's keys, verifies the signature, then the times by the world's clock.
async fn verify(entra: &Entra, jwt: &str, issuer: &str, claims: &Value) -> Result<(), Refusal> {
    let keys = entra.issuers.keys(issuer).await.map_err(|error| {
        tracing::debug!(issuer, error = &error as &dyn std::error::Error, "issuer keys");
        Refusal::unreachable()
    })?;
    if !keys.verify(jwt) {
        return Err(Refusal::signature());
    }
    let now = entra.ctx.clock.now();
    let second = now.as_second();
    let expires = claims["exp"].as_i64().unwrap_or(0);
    let from = claims["nbf"].as_i64().or(claims["iat"].as_i64()).unwrap_or(0);
    if expires + SKEW <= second || from - SKEW > second {
        let time = |second: i64| {
            let at = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            at.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string()
        };
        let now = now.strftime("%Y-%m-%dT%H:%M:%S.%3f0000Z").to_string();
        return Err(Refusal::time_range(&now, &time(from), &time(expires)));
    }
    Ok(())
}

fn unverified(jwt: &str) -> Option<Value> {
    let mut parts = jwt.trim().split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    claims.is_object().then_some(claims)
}

/// What Entra remembers of a mismatch, where the world lets it.
fn recall(entra: &Entra, key: &str) -> Option<Refusal> {
    let now = entra.ctx.clock.now().as_millisecond();
    let memory = entra.refused.lock().unwrap_or_else(PoisonError::into_inner);
    memory.get(key).filter(|(until, _)| *until > now).map(|(_, refusal)| refusal.clone())
}

fn remember(entra: &Entra, key: String, refusal: &Refusal) {
    let keep = entra.ctx.settings.delays.negative_cache;
    if keep.is_zero() {
        return;
    }
    let now = entra.ctx.clock.now().as_millisecond();
    let until = now.saturating_add(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
    let mut memory = entra.refused.lock().unwrap_or_else(PoisonError::into_inner);
    memory.retain(|_, (until, _)| *until > now);
    memory.insert(key, (until, refusal.clone()));
}
