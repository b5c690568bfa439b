//! Federated credentials against live clusters.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Audit, Severity,
    estate::{AuditCluster, AuditIdentity, Estate, KubernetesFacts},
};
use crate::{
    diagnose::fix,
    model::{
        AccountName, Audience, Namespace,
        names::{self, MOST_CREDENTIALS},
        snapshot::{Observation, ObservedCredential, ObservedIdentity},
    },
};

/// From here on an identity is said to be nearly full.
const NEARLY: usize = 16;

pub(super) fn look(estate: &Estate, audit: &mut Audit) {
    let mut holders: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
    for owner in &estate.identities {
        let name = owner.identity.id.name();
        let listed = match &owner.credentials {
            Observation::Present(listed) => listed,
            Observation::Absent => continue,
            Observation::Unknown(failure) => {
                audit.unseen.push(format!("credentials of {name}: {failure}"));
                continue;
            }
        };
        headroom(audit, name, listed.len());
        let twins = twins(listed);
        for credential in listed {
            let twin = variant(estate, audit, owner, credential, &twins);
            one(estate, audit, owner, credential, twin);
            let Some(subject) = &credential.subject else { continue };
            let pair = (credential.issuer.to_string(), subject.to_string());
            holders.entry(pair).or_default().insert(name);
        }
        boundaries(audit, owner, listed);
        unused(estate, audit, owner, listed);
        ownership(estate, audit, owner);
    }
    for ((_, subject), holders) in holders {
        if holders.len() > 1 {
            let all: Vec<&str> = holders.into_iter().collect();
            audit.add(
                Severity::Low,
                "credential-duplicate",
                all.join(", "),
                format!("{subject} of one cluster may act as {} identities", all.len()),
                "take the credential off all but the one its account is annotated with",
            );
        }
    }
}

/// Issuer and subject without what people write differently.
type Folded = (String, String);

fn folded(credential: &ObservedCredential) -> Option<Folded> {
    let fold = |text: &str| text.trim().trim_end_matches('/').to_lowercase();
    Some((fold(credential.issuer.as_str()), fold(credential.subject.as_ref()?.as_str())))
}

/// Credentials that differ only in case, blanks or a slash.
fn twins(listed: &[ObservedCredential]) -> BTreeMap<Folded, Vec<&ObservedCredential>> {
    let mut twins: BTreeMap<Folded, Vec<&ObservedCredential>> = BTreeMap::new();
    for credential in listed {
        if let Some(key) = folded(credential) {
            twins.entry(key).or_default().push(credential);
        }
    }
    twins
}

/// Whether tokens can match it: the issuer is a cluster's to the byte, and names of Kubernetes have
/// no capitals.
fn sound(estate: &Estate, credential: &ObservedCredential) -> bool {
    let issuer = Some(&credential.issuer);
    let subject = credential.subject.as_ref().map_or("", |subject| subject.as_str());
    estate.clusters.iter().any(|cluster| cluster.issuer.as_ref() == issuer)
        && subject.trim() == subject
        && subject == subject.to_lowercase()
}

/// Reports a credential beside which a sound one differs only in case, blanks or a slash; returns
/// that one. Which of two is listed first says nothing about which works.
fn variant<'a>(
    estate: &Estate,
    audit: &mut Audit,
    owner: &AuditIdentity,
    credential: &ObservedCredential,
    twins: &BTreeMap<Folded, Vec<&'a ObservedCredential>>,
) -> Option<&'a ObservedCredential> {
    if sound(estate, credential) {
        return None;
    }
    let all = twins.get(&folded(credential)?)?;
    let twin = all.iter().copied().find(|other| sound(estate, other))?;
    audit.add(
        Severity::Medium,
        "credential-variant",
        format!("{}/{}", owner.identity.id.name(), credential.name),
        format!(
            "differs only in case, blanks or a slash from {}, which matches its cluster to the byte",
            twin.name
        ),
        delete(owner, credential),
    );
    Some(twin)
}

fn headroom(audit: &mut Audit, name: &str, count: usize) {
    if count >= NEARLY {
        let severity = if count >= MOST_CREDENTIALS { Severity::High } else { Severity::Medium };
        audit.add(
            severity,
            "credentials-nearly-full",
            name,
            format!("has {count} of the {MOST_CREDENTIALS} federated credentials Azure allows"),
            "give some of its workloads identities of their own",
        );
    }
}

fn delete(owner: &AuditIdentity, credential: &ObservedCredential) -> String {
    fix::credential("delete", &owner.identity, &credential.name, &[]).words(&["--yes"]).text()
}

fn update(owner: &AuditIdentity, credential: &ObservedCredential, issuer: &str) -> String {
    fix::credential("update", &owner.identity, &credential.name, &[("--issuer", issuer)]).text()
}

fn parts(credential: &ObservedCredential) -> Option<(Namespace, AccountName)> {
    let subject = credential.subject.as_ref()?.as_str();
    let (namespace, account) = subject.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some((Namespace::from(namespace), AccountName::from(account)))
}

fn one(
    estate: &Estate,
    audit: &mut Audit,
    owner: &AuditIdentity,
    credential: &ObservedCredential,
    twin: Option<&ObservedCredential>,
) {
    let object = format!("{}/{}", owner.identity.id.name(), credential.name);
    if credential.name == names::IDENTITY_BINDING_CREDENTIAL {
        return;
    }
    let Some((namespace, account)) = parts(credential) else { return };
    let issuer = credential.issuer.as_str();
    let of = |cluster: &&AuditCluster| cluster.issuer.as_ref() == Some(&credential.issuer);
    let Some(cluster) = estate.clusters.iter().find(of) else {
        let nearly = estate.clusters.iter().find_map(|cluster| {
            let known = cluster.issuer.as_ref()?.as_str();
            let same = |a: &str, b: &str| {
                a.trim().trim_end_matches('/').eq_ignore_ascii_case(b.trim().trim_end_matches('/'))
            };
            same(known, issuer).then_some((cluster, known))
        });
        if let Some((cluster, known)) = nearly {
            let slash = known.trim_end_matches('/') == issuer.trim_end_matches('/');
            audit.add(
                Severity::High,
                if slash { "credential-slash" } else { "credential-issuer-variant" },
                object,
                format!(
                    "issuer {issuer} is not to the byte that of cluster {}: {known}",
                    cluster.name
                ),
                // Issuer and subject together exist once on an identity: beside its twin it cannot be
                // put right.
                match twin {
                    Some(_) => delete(owner, credential),
                    None => update(owner, credential, known),
                },
            );
        } else if estate.other_issuers.contains(&credential.issuer) {
            // Of a cluster elsewhere, which is not asked about it.
        } else if estate.all_clusters {
            audit.add(
                Severity::Medium,
                "credential-issuer-unknown",
                object,
                format!(
                    "issuer {issuer} is of no cluster that could be listed: rebuilt, deleted, or in \
                     a subscription that is not seen from here"
                ),
                format!("if nothing runs there any more: {}", delete(owner, credential)),
            );
        }
        return;
    };
    if !credential.audiences.iter().any(|audience| audience.as_str() == Audience::DEFAULT) {
        let have = credential.audiences.first().map_or("none", |audience| audience.as_str());
        audit.add(
            Severity::Low,
            "credential-audience-unusual",
            object.clone(),
            format!("audience {have} is not {}", Audience::DEFAULT),
            "check that the cluster's webhook asks for the same",
        );
    }
    let kubernetes = match &cluster.kubernetes {
        Observation::Present(kubernetes) => kubernetes,
        Observation::Absent => return,
        Observation::Unknown(failure) => {
            audit.unseen.push(format!("cluster {}: {failure}", cluster.name));
            return;
        }
    };
    used(audit, owner, credential, cluster, kubernetes, (&namespace, &account));
}

/// Whether the account of a credential is there and anything runs as it.
fn used(
    audit: &mut Audit,
    owner: &AuditIdentity,
    credential: &ObservedCredential,
    cluster: &AuditCluster,
    kubernetes: &KubernetesFacts,
    (namespace, account): (&Namespace, &AccountName),
) {
    let object = format!("{}/{}", owner.identity.id.name(), credential.name);
    let place = format!("{namespace}/{account} in cluster {}", cluster.name);
    if !kubernetes.namespaces.contains(namespace) {
        audit.add(
            Severity::Medium,
            "credential-namespace-gone",
            object,
            format!(
                "is for {place}, whose namespace does not exist: whoever makes it gets the identity"
            ),
            delete(owner, credential),
        );
        return;
    }
    let Some(seen) = kubernetes.accounts.get(namespace).and_then(|all| all.get(account)) else {
        audit.add(
            Severity::Medium,
            "credential-account-gone",
            object,
            format!("is for {place}, which does not exist"),
            delete(owner, credential),
        );
        return;
    };
    let annotated = seen.meta.annotations.get(names::CLIENT_ID_ANNOTATION);
    let ours = owner.identity.client_id.to_string();
    if annotated.is_some_and(|value| !value.trim().eq_ignore_ascii_case(&ours)) {
        audit.add(
            Severity::Low,
            "credential-not-annotated",
            object.clone(),
            format!("is for {place}, which is annotated with another client id"),
            "delete it, unless the program names the client id itself",
        );
    }
    let templates = kubernetes.templates.get(namespace).map_or(&[][..], Vec::as_slice);
    let pods = kubernetes.pods.get(namespace).map_or(&[][..], Vec::as_slice);
    let any = templates.iter().any(|template| template.seen.account == *account)
        || pods.iter().any(|pod| pod.live() && pod.account == *account);
    if !any {
        audit.add(
            Severity::Low,
            "credential-unused",
            object,
            format!("is for {place}, which no pod and no template uses"),
            delete(owner, credential),
        );
    }
}

/// One identity for workloads of several namespaces: what one may do all may do.
fn boundaries(audit: &mut Audit, owner: &AuditIdentity, listed: &[ObservedCredential]) {
    let namespaces: BTreeSet<String> =
        listed.iter().filter_map(parts).map(|(namespace, _)| namespace.to_string()).collect();
    if namespaces.len() > 1 {
        let all: Vec<String> = namespaces.into_iter().collect();
        audit.add(
            Severity::Medium,
            "identity-shared",
            owner.identity.id.name(),
            format!("is shared by workloads of namespaces {}", all.join(", ")),
            "give each trust boundary an identity of its own",
        );
    }
}

fn unused(
    estate: &Estate,
    audit: &mut Audit,
    owner: &AuditIdentity,
    listed: &[ObservedCredential],
) {
    let identity = &owner.identity;
    let roles = &estate.assignments;
    let any = roles.seen.iter().any(|held| held.principal_id == identity.principal_id);
    let looked = roles.looked.iter().any(|(_, how)| how.failure().is_none());
    if listed.is_empty() && !any && looked && !named_by_somebody(estate, identity) {
        audit.add(
            Severity::Low,
            "identity-unused",
            identity.id.name(),
            "has neither a federated credential nor a role that was seen",
            "virtual machines, scale sets and apps are not looked at: delete it if none has it",
        );
    }
}

/// Whether the file, an account or AAD Pod Identity names it, or may do so where it could not be
/// read: it is, or is about to be, used.
fn named_by_somebody(estate: &Estate, identity: &ObservedIdentity) -> bool {
    let client = identity.client_id.to_string();
    estate.wanted.contains(&identity.id)
        || estate.clusters.iter().any(|cluster| {
            let facts = match &cluster.kubernetes {
                Observation::Present(facts) if !facts.pod_identity_unseen => facts,
                Observation::Absent => return false,
                Observation::Present(_) | Observation::Unknown(_) => return true,
            };
            let mut accounts = facts.accounts.values().flat_map(BTreeMap::values);
            facts.pod_identity.iter().any(|object| object.identity.as_ref() == Some(&identity.id))
                || accounts.any(|account| {
                    let annotated = account.meta.annotations.get(names::CLIENT_ID_ANNOTATION);
                    annotated.is_some_and(|value| value.trim().eq_ignore_ascii_case(&client))
                })
        })
}

fn ownership(estate: &Estate, audit: &mut Audit, owner: &AuditIdentity) {
    let Some(project) = &estate.project else { return };
    if !owner.identity.tags.contains_key(names::PROJECT_TAG) {
        audit.add(
            Severity::Info,
            "ownership-missing",
            owner.identity.id.name(),
            format!("carries no tag {}: widentity does not manage it", names::PROJECT_TAG),
            format!("adopt = true in a workload of {project}, if it should"),
        );
    }
}
