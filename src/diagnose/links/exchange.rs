//! The token, and what Entra says to it.

use super::identity::UNKNOWN_APPLICATION;
use crate::{
    diagnose::{
        difference::Difference,
        evidence::ExchangeOutcome,
        facts::Facts,
        link::{Fix, State},
    },
    model::{FailureKind, snapshot::Observation},
};

/// Judges the claims of a token of the account.
pub(in crate::diagnose) fn token(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let claims = match &evidence.token {
        Observation::Present(claims) => claims,
        Observation::Absent => return State::unclear("no token was given", true),
        Observation::Unknown(failure) => return State::unseen(failure),
    };
    if let Some(issuer) = &facts.issuer
        && claims.iss != *issuer
    {
        let other = evidence.other_issuers.iter().find(|(_, known)| **known == claims.iss);
        if let Some((name, _)) = other {
            return State::broken(
                "cluster-context-mismatch",
                format!("the token was issued by cluster {name}: the context belongs to it"),
                Fix::look("choose the context of the right cluster", "kubectl config get-contexts"),
            );
        }
        let message =
            format!("tokens are issued as {}, the cluster's issuer is {issuer}", claims.iss);
        let advice = "finish the cluster update (az aks show --query provisioningState), then \
                      restart pods so that they get tokens of the new issuer";
        return match Difference::between("iss", claims.iss.as_str(), issuer.as_str()) {
            Some(difference) => {
                State::differs("token-issuer-differs", message, difference, Fix::advice(advice))
            }
            None => State::broken("token-issuer-differs", message, Fix::advice(advice)),
        };
    }
    let subject = facts.subject();
    if claims.sub != subject {
        return State::broken(
            "token-subject-differs",
            format!("the token's subject is {}, not {subject}", claims.sub),
            Fix::advice("ask for the account that the pods use"),
        );
    }
    if let Some(issued) = claims.issued_at {
        let skew = issued.as_second() - evidence.now.as_second();
        if skew.abs() > 300 {
            facts.note(
                "clock-skew",
                format!("the cluster's clock is {} seconds off ours", skew.abs()),
                "Entra refuses tokens from the future or the past (AADSTS700024)",
            );
        }
    }
    State::holds(format!("sub {}", claims.sub))
}

/// Judges Entra's answer.
pub(in crate::diagnose) fn exchange(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    if facts.identity_binding() {
        return State::unclear("tokens of an identity binding are exchanged in the cluster", false);
    }
    let exchange = match &evidence.exchange {
        Observation::Present(exchange) => exchange,
        Observation::Absent => return State::unclear("no exchange was tried", false),
        Observation::Unknown(failure) => {
            let left_out = failure.kind == FailureKind::NotReached;
            // Without a token there is nothing to exchange; the token's link says why.
            return match State::unseen(failure) {
                State::CouldNotSee { why, hint, .. } => {
                    State::CouldNotSee { why, hint, matters: !left_out }
                }
                other @ (State::Holds { .. } | State::Broken(_) | State::NotReached { .. }) => {
                    other
                }
            };
        }
    };
    if facts.client.is_some_and(|client| client != exchange.client) {
        return State::unclear("the exchange was for another client id", false);
    }
    match &exchange.outcome {
        ExchangeOutcome::Granted { principal } => match (principal, facts.identity) {
            (Some(principal), Some(identity)) if *principal != identity.principal_id => {
                State::broken(
                    "exchange-other-principal",
                    format!(
                        "the token is for principal {principal}, identity {} has {}",
                        identity.id.name(),
                        identity.principal_id
                    ),
                    Fix::advice("the identity was made anew under the same name; look it up again"),
                )
            }
            _ => State::holds("Entra gave a token"),
        },
        ExchangeOutcome::Refused { codes, description } => refused(codes, description),
    }
}

fn refused(codes: &[u32], description: &str) -> State {
    let code = codes.first().copied().unwrap_or_default();
    let short = description.split(" Trace ID").next().unwrap_or(description);
    let short = short.split("\r\n").next().unwrap_or(short).trim();
    let said = if short.is_empty() { format!("AADSTS{code}") } else { short.to_owned() };
    let explain = format!("widentity explain AADSTS{code}");
    let (ours, message, fix) = match code {
        70_021 | 700_211 | 700_212 | 700_213 | 70_025 => (
            "exchange-not-matched",
            format!("what could be seen matches, and Entra finds no credential yet: {said}"),
            Fix::advice(
                "wait a few minutes, Entra also remembers refusals; if it stays so, delete the \
                 credential and create it anew",
            ),
        ),
        7_002_138 => (
            "credential-subject-case",
            format!("a credential differs in upper and lower case: {said}"),
            Fix::look("write the credential's subject as the token has it", explain),
        ),
        code if UNKNOWN_APPLICATION.contains(&code) => (
            "identity-unknown-to-entra",
            format!("Entra does not know the identity in this tenant: {said}"),
            Fix::advice("check the tenant; an identity that is minutes old may not be there yet"),
        ),
        90_061 | 50_166 | 501_661 => (
            "issuer-unreachable-from-entra",
            format!("Entra cannot fetch the issuer's documents: {said}"),
            Fix::advice("try again; if it stays so, az aks update reconciles the cluster"),
        ),
        700_027 | 900_384 => (
            "token-signature",
            format!("the token's signature does not fit the published keys: {said}"),
            Fix::advice(
                "keys were rotated a moment ago, or the issuer publishes others; try again",
            ),
        ),
        700_024 => (
            "clock-skew",
            format!("the token is not valid at this time: {said}"),
            Fix::advice("set the clock of the cluster's nodes"),
        ),
        90_002 | 900_023 | 90_038 | 900_432 | 900_439 => (
            "tenant-wrong",
            format!("the tenant or the cloud is wrong: {said}"),
            Fix::look(
                "correct the tenant, or AZURE_ENVIRONMENT of the webhook's settings",
                "az account show --query tenantId -o tsv",
            ),
        ),
        53_003 | 530_003 | 7_002_381 | 53_000 => (
            "tenant-policy",
            format!("a policy of the tenant refuses it: {said}"),
            Fix::advice("ask who manages Conditional Access for workload identities"),
        ),
        _ => (
            "exchange-refused",
            format!("Entra refuses the token: {said}"),
            Fix::look("the code says more", explain),
        ),
    };
    State::broken(ours, message, fix)
}
