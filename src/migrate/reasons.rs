//! Why a workload is not ready: what lies in its identities, in Azure, in the cluster, the account
//! and the templates.

use std::collections::BTreeSet;

use super::{
    matching::{self, Reached},
    survey::{Acts, Given, Group, Key, account_of},
    verdict::{self, Reason},
};
use crate::model::{
    ArmId,
    desired::{DesiredWorkload, ManagedBy, PodSelection},
    pod_identity::{AzureIdentityState, Backup, Estate, EstatePod, EstateTemplate},
    snapshot::{ObservedCredential, TemplateKind},
};

/// The code for what another tool keeps.
pub(super) const KEPT_BY: &str = "kept-by";

/// The distinct managed identities behind the bindings, and what is wrong with the others.
pub(super) fn identities(
    reached: &[Reached<'_>],
    backup: Option<&Backup>,
    selectors: &BTreeSet<&str>,
    reasons: &mut Vec<Reason>,
) -> Vec<ArmId> {
    let mut ids: BTreeSet<ArmId> = BTreeSet::new();
    for Reached { binding, identity } in reached {
        let at = format!("{}/{}", binding.namespace, binding.name);
        let Some(identity) = identity else {
            reasons.push(Reason::obstacle(
                "binding-to-nothing",
                format!(
                    "binding {at} names AzureIdentity {}, which does not exist in its namespace",
                    binding.identity
                ),
                "delete the binding, or make the AzureIdentity again",
            ));
            continue;
        };
        let name = format!("{}/{}", identity.namespace, identity.name);
        match identity.kind {
            0 => match matching::resource_id(identity) {
                Some(id) => {
                    ids.insert(id);
                }
                None => reasons.push(Reason::obstacle(
                    "identity-without-id",
                    format!(
                        "AzureIdentity {name} has resourceID `{}`, which MIC ignores",
                        identity.resource_id
                    ),
                    "correct its resourceID",
                )),
            },
            kind => reasons.push(Reason::obstacle(
                "service-principal",
                format!(
                    "AzureIdentity {name} is a service principal (type {kind}); its application \
                     needs a federated credential of its own, which widentity does not make"
                ),
                "give the workload a managed identity, or federate the application through \
                 Microsoft Graph",
            )),
        }
    }
    if ids.is_empty()
        && let Some(backup) = backup
    {
        ids.insert(ArmId::new(backup.identity.clone()));
    }
    if ids.is_empty() && reasons.is_empty() && !selectors.is_empty() {
        let selectors: Vec<&str> = selectors.iter().copied().collect();
        reasons.push(Reason::obstacle(
            "no-binding",
            format!("no binding selects aadpodidbinding={}", selectors.join(", ")),
            "remove the label, or make the binding",
        ));
    }
    ids.into_iter().collect()
}

pub(super) fn choose<'a>(
    reaches: &'a [ArmId],
    decided: Option<&DesiredWorkload>,
    reasons: &mut Vec<Reason>,
) -> Option<&'a ArmId> {
    let written = decided.and_then(|d| reaches.iter().find(|id| **id == d.identity));
    match reaches {
        [] => None,
        [one] => {
            if let Some(other) = decided.filter(|_| written.is_none()) {
                reasons.push(Reason::obstacle(
                    "another-identity",
                    format!(
                        "the file gives it identity {}, it answers as {}",
                        other.identity.name(),
                        one.name()
                    ),
                    format!("identity = \"{one}\""),
                ));
            }
            Some(one)
        }
        several => {
            if written.is_none() {
                let names: Vec<&str> = several.iter().map(ArmId::name).collect();
                reasons.push(Reason::decision(
                    "several-identities",
                    format!(
                        "it reaches {} identities ({}); a service account has one",
                        several.len(),
                        names.join(", ")
                    ),
                    format!("identity = \"{}\"", several[0]),
                ));
            }
            written
        }
    }
}

/// What Azure says of the identity, checked against what the cluster says.
pub(super) fn azure<'a>(
    estate: &'a Estate,
    id: &ArmId,
    reached: &[Reached<'_>],
    reasons: &mut Vec<Reason>,
) -> Option<(Acts, &'a [ObservedCredential])> {
    match estate.azure.get(id) {
        Some(AzureIdentityState::Present(seen, credentials)) => {
            for identity in reached.iter().filter_map(|r| r.identity) {
                let same = matching::resource_id(identity).as_ref() == Some(id);
                if same && matching::client_id(identity) != Some(seen.client_id) {
                    reasons.push(Reason::obstacle(
                        "identity-recreated",
                        format!(
                            "AzureIdentity {}/{} has client id {}, Azure says {}: the managed \
                             identity was made again and may have other roles",
                            identity.namespace, identity.name, identity.client_id, seen.client_id
                        ),
                        "check its roles and correct clientID of the AzureIdentity",
                    ));
                }
            }
            let acts = Acts {
                id: id.clone(),
                client: seen.client_id,
                principal: seen.principal_id,
                tenant: seen.tenant_id,
            };
            Some((acts, credentials))
        }
        Some(AzureIdentityState::Gone) => {
            reasons.push(Reason::obstacle(
                "identity-gone",
                format!("managed identity {} does not exist any more", id.name()),
                "make it again with its roles, or declare a new one in `[[workloads]]`",
            ));
            None
        }
        Some(AzureIdentityState::Unknown(failure)) => {
            let message = format!("managed identity {} cannot be seen: {failure}", id.name());
            reasons.push(Reason::obstacle("identity-unseen", message, "run again with access"));
            None
        }
        None => {
            let message = format!("managed identity {} was not read", id.name());
            reasons.push(Reason::obstacle("identity-unseen", message, "run again with access"));
            None
        }
    }
}

/// Reasons that lie in the cluster, the account and the templates.
pub(super) fn surroundings(
    estate: &Estate,
    given: Given<'_>,
    key: Key<'_>,
    group: &Group<'_>,
    decided: Option<&DesiredWorkload>,
    reasons: &mut Vec<Reason>,
) {
    let (namespace, account) = key;
    if verdict::never_mutated(namespace) {
        reasons.push(Reason::obstacle(
            "system-namespace",
            format!("pods of namespace {namespace} are never mutated by the webhook on AKS"),
            "move the workload to a namespace of its own",
        ));
    }
    if (estate.issuer.is_none() || !estate.workload_identity) && !given.may_enable {
        let what = if estate.issuer.is_none() { "OIDC issuer" } else { "workload identity add-on" };
        reasons.push(Reason::decision(
            "cluster-not-ready",
            format!("the {what} of cluster {} is off; enabling cannot be undone", estate.cluster),
            format!(
                "[clusters.{}] enable = [\"oidc-issuer\", \"workload-identity\"]",
                estate.cluster
            ),
        ));
    }
    let named = match decided.map(|d| &d.pods) {
        Some(PodSelection::Named(named)) => named.clone(),
        Some(PodSelection::All) | None => BTreeSet::new(),
    };
    let quoted = |keys: &[String]| {
        let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
        format!("pods = [{}]", keys.join(", "))
    };
    let writable: Vec<String> =
        group.templates.iter().filter(|t| t.kind.writable()).map(|t| t.key()).collect();
    let all_named = !writable.is_empty() && writable.iter().all(|key| named.contains(key));
    if account.as_str() == "default" && !all_named {
        reasons.push(Reason::decision(
            "default-account",
            format!(
                "it runs as the default account: every labelled pod of {namespace} gets the identity"
            ),
            quoted(&writable),
        ));
    }
    let others: Vec<String> = estate
        .templates
        .iter()
        .filter(|t| (&t.namespace, &t.account) == key && !(t.kind == TemplateKind::Job && t.idle))
        .filter(|t| !group.templates.iter().any(|known| known.key() == t.key()))
        .map(EstateTemplate::key)
        .collect();
    let selectors: BTreeSet<Option<&str>> = group.templates.iter().map(|t| t.selector()).collect();
    if account.as_str() != "default" && !all_named && (!others.is_empty() || selectors.len() > 1) {
        let with = if others.is_empty() {
            "its templates have different selectors".to_owned()
        } else {
            format!("{} use the account without Pod Identity", others.join(", "))
        };
        reasons.push(Reason::decision("shared-account", with, quoted(&writable)));
    }
    let adopted = decided.is_some_and(|d| d.adopt || d.managed_by == ManagedBy::Widentity);
    let keepers = group.templates.iter().filter_map(|t| Some((t.key(), t.kept_by.clone()?)));
    let account_kept = account_of(estate, key).and_then(|a| a.kept_by.clone());
    let keepers = keepers.chain(account_kept.map(|by| (format!("serviceaccount/{account}"), by)));
    for (what, by) in keepers.filter(|_| !adopted) {
        let decide = if by == "Helm" {
            "adopt = true, or change it there"
        } else {
            "`widentity migrate apply` federates its identity, then `widentity migrate render DIR` \
             changes its manifests; or managed_by = \"widentity\""
        };
        reasons.push(Reason::decision(
            KEPT_BY,
            format!("{what} is kept by {by}, which puts the old label back"),
            decide,
        ));
    }
    let mut alone = true;
    for template in &group.templates {
        let proxy = decided.is_some_and(|decided| decided.proxy);
        reasons.extend(verdict::sidecar_obstacle(estate, template, proxy));
        if template.selector_holds {
            reasons.push(Reason::obstacle(
                "selector-holds-label",
                format!(
                    "{} selects its pods by aadpodidbinding, and a selector cannot be changed",
                    template.key()
                ),
                "make it again with another selector",
            ));
        }
        if template.virtual_node {
            reasons.push(Reason::obstacle(
                "virtual-node",
                format!("{} runs on a virtual node, which has no projected tokens", template.key()),
                "run it on a node pool",
            ));
        }
        if template.kind.writable() {
            alone = false;
            if let Some(gap) = verdict::gap(template).filter(|_| !named.contains(&template.key())) {
                reasons.push(Reason::decision("no-overlap", gap, quoted(&writable)));
            }
        }
    }
    if alone {
        let what = group.templates.first().map_or_else(
            || {
                let pod = group.pods.first();
                pod.map_or("a pod".to_owned(), |pod| {
                    pod.controller.clone().unwrap_or_else(|| format!("pod/{}", pod.name))
                })
            },
            |template| template.key(),
        );
        let ended = group.templates.iter().all(|t| t.idle) && group.pods.is_empty();
        let message = if ended {
            format!("{what} has ended: nothing runs that could be migrated")
        } else {
            format!("{what} cannot be changed: whoever made it must make it again")
        };
        reasons.push(Reason::obstacle(
            if ended { "ended" } else { "must-be-recreated" },
            message,
            "in its manifest: label azure.workload.identity/use: \"true\", without aadpodidbinding",
        ));
    }
    if let Some(state) = &estate.busy {
        reasons.push(Reason::obstacle(
            "cluster-busy",
            format!("an operation on cluster {} is under way ({state})", estate.cluster),
            "run again when it has ended",
        ));
    }
}

/// MIC takes an identity from the nodes of a scale set as soon as no labelled pod on them needs it.
/// So it is the switch that takes it, and not the end of its binding.
///
/// Source: Azure/aad-pod-identity, `pkg/mic/mic.go` (`getListOfIdsToDelete`, `checkIfInUse`).
pub(super) fn node_identity(
    estate: &Estate,
    given: Given<'_>,
    group: &Group<'_>,
    reaches: &[ArmId],
) -> Option<Reason> {
    let assigned = group.pods.iter().any(|pod| pod.selector().is_some());
    if given.waived.nodes || !assigned || reaches.is_empty() || !matching::assigns(estate) {
        return None;
    }
    // The workload's own pods get their other path with the switch.
    let own = |pod: &EstatePod| group.pods.iter().any(|own| std::ptr::eq(*own, pod));
    let others = matching::on_node_identity(estate).into_iter().filter(|pod| !own(pod));
    let others: Vec<String> = others.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let who = match others.as_slice() {
        [] => return None,
        [one] => format!("pod {one} may live on it"),
        several => format!("{} pods may live on it, {} first", several.len(), several[0]),
    };
    let names: Vec<&str> = reaches.iter().map(ArmId::name).collect();
    Some(Reason::decision(
        "node-identity",
        format!(
            "with its switch MIC takes identity {} from the nodes, where {who}",
            names.join(", ")
        ),
        "`--unassign`, once none of them needs it there",
    ))
}
