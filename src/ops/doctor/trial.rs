//! What is tried: a dry run, a token, its exchange, a probe. Nothing is kept but claims and
//! answers.

use super::{
    Clients,
    cluster::{FirstDryRun, NamespaceRead},
    parse,
};
use crate::{
    azure::{ExchangeError, ProbeOutcome},
    diagnose::{
        Evidence,
        evidence::{DryRun, Exchange, ExchangeOutcome, ProbeAnswer},
        resolve,
    },
    kubernetes::{Client, KubeError},
    model::{
        AccountName, FailureKind, Namespace, RemoteFailure, Token, desired::Probe, names,
        snapshot::Observation,
    },
};

/// Whether the API server's refusal is about who asks, not about the pod.
fn about_us(error: &KubeError) -> bool {
    let KubeError::Status { status, message, .. } = error else { return true };
    match status {
        401 => true,
        403 => !error.is_refused_by_admission(),
        status => *status >= 500 && !message.contains("webhook"),
    }
}

/// Asks admission about a labelled pod of the account. What comes back injected proves the webhook
/// for the whole namespace; any other answer may be about this account, so each asks for itself.
pub(super) async fn dry_run(client: &Client, namespace: &NamespaceRead, evidence: &mut Evidence) {
    let resolved = resolve(evidence);
    if !resolved.exists {
        return;
    }
    let annotations = evidence.accounts.present().and_then(|all| all.get(&resolved.account));
    let own_tenant = annotations
        .is_none_or(|account| !account.meta.annotations.contains_key(names::TENANT_ID_ANNOTATION));
    let place = &evidence.asked.namespace;
    let mut asked = false;
    let first = namespace.dry_run.get_or_init(|| {
        asked = true;
        async {
            let answer = ask_admission(client, place, &resolved.account).await;
            FirstDryRun { answer, own_tenant }
        }
    });
    let first = first.await;
    evidence.dry_run = match &first.answer {
        answer if asked => answer.clone(),
        Observation::Present(DryRun::Admitted(injected)) if injected.present => {
            let mut injected = injected.clone();
            injected.client_ids.clear();
            if !first.own_tenant {
                injected.tenant_ids.clear();
            }
            Observation::Present(DryRun::Admitted(injected))
        }
        Observation::Present(_) | Observation::Absent | Observation::Unknown(_) => {
            ask_admission(client, place, &resolved.account).await
        }
    };
}

async fn ask_admission(
    client: &Client,
    namespace: &Namespace,
    account: &AccountName,
) -> Observation<DryRun> {
    match client.dry_run_pod(namespace, account, false, "widentity").await {
        Ok(injected) => Observation::Present(DryRun::Admitted(injected)),
        Err(error) if about_us(&error) => {
            Observation::Unknown(error.failure(format!("dry-run a pod in {namespace}")))
        }
        Err(error) => Observation::Present(DryRun::Denied(error.to_string())),
    }
}

/// Asks for a token of the account, exchanges it, and probes with what comes back.
pub(super) async fn token(
    clients: &Clients,
    client: &Client,
    probe: Option<&Probe>,
    evidence: &mut Evidence,
) {
    let resolved = resolve(evidence);
    if !resolved.exists {
        return;
    }
    let namespace = evidence.asked.namespace.clone();
    let account = &resolved.account;
    let issued =
        match client.token(&namespace, account, &resolved.audience, names::SHORTEST_TOKEN).await {
            Ok(issued) => issued,
            Err(error) => {
                let failure = error.failure(format!("request a token of {namespace}/{account}"));
                let hint = "widentity doctor --no-token does without";
                evidence.token = Observation::Unknown(failure.with_hint(hint));
                return;
            }
        };
    let claims = parse::claims(&issued);
    // A token of another cluster is not shown to Entra.
    let record = evidence.cluster.present().and_then(|arm| arm.issuer.as_ref());
    let ours = record.is_none_or(|issuer| *issuer == claims.iss);
    evidence.token = Observation::Present(claims);
    let (Some(id), Some(tenant), true) = (resolved.client, resolved.tenant, ours) else { return };
    let exchange = |scope: String| {
        let token = &issued.token;
        async move { clients.entra.exchange(tenant, id, token, &scope).await }
    };
    let outcome = match exchange(clients.endpoints.arm_scope.clone()).await {
        Ok(exchanged) => ExchangeOutcome::Granted { principal: exchanged.oid },
        Err(ExchangeError::Refused(refusal)) => ExchangeOutcome::Refused {
            codes: refusal.codes.clone(),
            description: refusal.description.clone(),
        },
        Err(error @ (ExchangeError::Unreachable { .. } | ExchangeError::Body { .. })) => {
            let kind = FailureKind::Unreachable;
            let failure = RemoteFailure::new(kind, "exchange the token", error.to_string());
            evidence.exchange = Observation::Unknown(failure);
            return;
        }
    };
    let granted = matches!(outcome, ExchangeOutcome::Granted { .. });
    evidence.exchange = Observation::Present(Exchange { client: id, outcome });
    if granted && let Some(probe) = probe {
        match exchange(clients.prober.scope(probe.kind)).await {
            Ok(exchanged) => evidence.probe = ask(clients, probe, &exchanged.token).await,
            Err(error) => {
                let tried = "get a token for the probe";
                let failure = RemoteFailure::new(FailureKind::NotProved, tried, error.to_string());
                evidence.probe = Observation::Unknown(failure);
            }
        }
    }
}

async fn ask(clients: &Clients, probe: &Probe, token: &Token) -> Observation<ProbeAnswer> {
    let url = probe.url.clone();
    let unknown = |message: String| {
        let tried = format!("ask {url}");
        Observation::Unknown(RemoteFailure::new(FailureKind::Unreachable, tried, message))
    };
    match clients.prober.probe(probe, token).await {
        ProbeOutcome::Passed => {
            Observation::Present(ProbeAnswer { url, status: 200, message: String::new() })
        }
        ProbeOutcome::Denied { status, message } => {
            Observation::Present(ProbeAnswer { url, status, message })
        }
        ProbeOutcome::Unreachable { message } | ProbeOutcome::Unusable { message } => {
            unknown(message)
        }
    }
}
