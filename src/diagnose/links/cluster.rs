//! The cluster, its issuer, and what the issuer publishes.

use crate::{
    diagnose::{
        command::named,
        difference::Difference,
        facts::Facts,
        fix,
        link::{Fix, State},
    },
    model::{
        FailureKind, Issuer,
        snapshot::{Observation, ObservedCluster},
    },
};

/// The cluster exists, runs, and is the one the API server belongs to.
pub(in crate::diagnose) fn cluster(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let arm = match &evidence.cluster {
        Observation::Present(arm) => arm,
        Observation::Absent => {
            let id = evidence.asked.cluster_id.as_ref().map_or("?", |id| id.as_str());
            return State::broken(
                "cluster-not-found",
                format!("cluster {id} does not exist"),
                Fix::look(
                    "correct the cluster's id; these exist",
                    "az aks list --query \"[].id\" -o tsv",
                ),
            );
        }
        Observation::Unknown(failure) => {
            if let Some(server) = evidence.server.present() {
                return if failure.kind == FailureKind::NotReached {
                    if let Some(hint) = &failure.hint {
                        facts.note("cluster-id-unknown", failure.message.clone(), hint);
                    }
                    State::holds(format!("API server {} answers; ARM was not asked", server.host))
                } else {
                    State::unseen(failure)
                };
            }
            return State::unseen(failure);
        }
    };
    let name = arm.id.name();
    if arm.power_state.as_deref().is_some_and(|power| power.eq_ignore_ascii_case("stopped")) {
        return State::broken(
            "cluster-stopped",
            format!("cluster {name} is stopped"),
            Fix::typed([named(&["aks", "start"], &arm.id)]),
        );
    }
    match &evidence.server {
        Observation::Present(server) => {
            let hosts = [arm.fqdn.as_deref(), arm.private_fqdn.as_deref()];
            let host = server.host.split(':').next().unwrap_or_default();
            let same_host = hosts.iter().flatten().any(|known| known.eq_ignore_ascii_case(host));
            match (server.issuer.present(), &arm.issuer) {
                _ if same_host => {}
                (Some(said), Some(known)) if said == known => {}
                (Some(said), Some(known)) if !slash_apart(said, known) => {
                    return State::broken(
                        "cluster-context-mismatch",
                        format!(
                            "the API server {host} issues tokens as {said}, cluster {name} as \
                             {known}: the context belongs to another cluster"
                        ),
                        Fix::typed([named(&["aks", "get-credentials"], &arm.id)]),
                    );
                }
                _ => {}
            }
            State::holds(format!("{name} in {}, Kubernetes {}", arm.location, server.version))
        }
        Observation::Unknown(failure) if failure.kind != FailureKind::NotReached => {
            State::unseen(failure)
        }
        Observation::Unknown(_) | Observation::Absent => {
            State::holds(format!("{name} in {}", arm.location))
        }
    }
}

fn slash_apart(a: &Issuer, b: &Issuer) -> bool {
    a.as_str().trim_end_matches('/') == b.as_str().trim_end_matches('/')
}

/// Issuers that Entra can never reach: the default ones of clusters without an OIDC issuer.
fn private(issuer: &str) -> bool {
    let host = issuer.trim_start_matches("https://");
    host.starts_with("kubernetes.default")
        || issuer.contains(".hcp.")
        || issuer.contains(".azmk8s.io")
}

/// The OIDC issuer is enabled.
pub(in crate::diagnose) fn issuer(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let served = evidence.server.present().and_then(|server| server.issuer.present());
    match &evidence.cluster {
        Observation::Present(arm) => {
            let Some(issuer) = &arm.issuer else { return off(facts, arm) };
            facts.issuer = Some(issuer.clone());
            if let Some(served) = served
                && served != issuer
                && private(served.as_str())
            {
                return State::broken(
                    "issuer-not-used",
                    format!(
                        "ARM says the issuer is {issuer}, the API server still issues tokens as \
                         {served}"
                    ),
                    reconcile(facts),
                );
            }
            State::holds(issuer.to_string())
        }
        Observation::Absent | Observation::Unknown(_) => match served {
            Some(served) if private(served.as_str()) => State::broken(
                "issuer-off",
                format!("the API server issues tokens as {served}: the OIDC issuer is not enabled"),
                fix::aks_update(evidence.asked.cluster_id.as_ref(), &fix::ENABLE),
            ),
            Some(served) => {
                facts.issuer = Some(served.clone());
                State::holds(format!("{served}, by the API server's own word"))
            }
            None => match evidence.token.present() {
                Some(claims) => {
                    facts.issuer = Some(claims.iss.clone());
                    State::holds(format!("{}, by the word of a token", claims.iss))
                }
                None => evidence.cluster.failure().map_or_else(
                    || State::unclear("neither ARM nor the API server named an issuer", true),
                    State::unseen,
                ),
            },
        },
    }
}

fn off(facts: &Facts<'_>, arm: &ObservedCluster) -> State {
    let wanted = &facts.evidence.wanted;
    let message = format!(
        "the OIDC issuer of cluster {} is off: Entra has nobody to trust, no pod in it can get a \
         token",
        arm.id.name()
    );
    let listed = wanted.enable.iter().any(|feature| feature == "oidc-issuer");
    let fix = if facts.in_file() && !listed {
        let cluster = facts.evidence.asked.cluster.as_ref().map_or("", |name| name.as_str());
        Fix::Toml {
            table: format!("[clusters.{cluster}]"),
            line: "enable = [\"oidc-issuer\", \"workload-identity\"]".to_owned(),
            then: vec![facts.apply()],
        }
    } else {
        facts.then_restart(facts.azure(fix::aks_update(Some(&arm.id), &fix::ENABLE)))
    };
    State::broken("issuer-off", message, fix)
}

/// The discovery document can be fetched and agrees; the token's key is published.
pub(in crate::diagnose) fn discovery(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let Some(issuer) = facts.issuer.clone() else {
        return State::unclear("the issuer is not known", true);
    };
    let document = match &evidence.discovery {
        Observation::Present(document) => document,
        Observation::Unknown(_) if facts.proved() => {
            return State::holds("Entra accepted its keys (not looked at from here)");
        }
        Observation::Unknown(failure) => return State::unseen(failure),
        Observation::Absent if facts.proved() => {
            return State::holds("Entra accepted its keys".to_owned());
        }
        Observation::Absent => {
            return State::broken(
                "discovery-missing",
                format!(
                    "{}/.well-known/openid-configuration is not served: Entra answers \
                     AADSTS90061 or AADSTS50166",
                    issuer.as_str().trim_end_matches('/')
                ),
                reconcile(facts),
            );
        }
    };
    if document.issuer != issuer {
        let code = "discovery-issuer-differs";
        let message = format!(
            "the discovery document names issuer {}, the cluster's record {issuer}",
            document.issuer
        );
        return match Difference::between("issuer", document.issuer.as_str(), issuer.as_str()) {
            Some(difference) if !facts.proved() => {
                State::differs(code, message, difference, reconcile(facts))
            }
            _ => State::holds(message),
        };
    }
    let Some(kids) = &document.kids else {
        if facts.proved() {
            return State::holds("Entra accepted its keys".to_owned());
        }
        return State::broken(
            "keys-unreachable",
            format!("the key set of {issuer} cannot be fetched: Entra answers AADSTS50166"),
            reconcile(facts),
        );
    };
    let kid = evidence.token.present().and_then(|claims| claims.kid.as_ref());
    if let Some(kid) = kid.filter(|kid| !kids.contains(kid) && !facts.proved()) {
        return State::broken(
            "key-not-published",
            format!(
                "tokens are signed with key {kid}, and {issuer} publishes {}",
                if kids.is_empty() { "none".to_owned() } else { kids.join(", ") }
            ),
            reconcile(facts),
        );
    }
    State::holds(format!("{} key{}", kids.len(), if kids.len() == 1 { "" } else { "s" }))
}

/// An update without a flag makes AKS bring the cluster to its recorded state; what stays broken
/// after it is a case for Azure support.
fn reconcile(facts: &Facts<'_>) -> Fix {
    let id = facts.evidence.asked.cluster_id.as_ref();
    let id = facts.evidence.cluster.present().map(|arm| &arm.id).or(id);
    fix::aks_update(id, &[])
}
