//! Why a workload is not ready, as far as it lies in its identities and in Azure.

use std::collections::BTreeSet;

use super::{
    groups::Group,
    matching::{self, Reached},
    survey::{Acts, Given},
    verdict::Reason,
};
use crate::model::{
    ArmId, FailureKind, RemoteFailure,
    desired::DesiredWorkload,
    pod_identity::{AzureIdentityState, Backup, Estate, EstatePod},
    snapshot::ObservedCredential,
};

/// Nothing is done in a cluster of which anything could not be read, and what is missing there says
/// nothing of a workload.
pub(super) fn not_seen(estate: &Estate) -> Option<Reason> {
    let failure = estate.unseen.first()?;
    let more = match estate.unseen.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let refused =
        |f: &&RemoteFailure| matches!(f.kind, FailureKind::Denied | FailureKind::Unauthenticated);
    let tried: BTreeSet<&str> =
        estate.unseen.iter().filter(refused).map(|f| f.tried.as_str()).collect();
    let decide = if tried.is_empty() {
        "run again when it answers".to_owned()
    } else {
        let tried: Vec<&str> = tried.into_iter().collect();
        format!("grant whoever runs this to {}, and run again", tried.join(", "))
    };
    Some(Reason::obstacle("not-seen", format!("not everything was seen: {failure}{more}"), decide))
}

/// The distinct managed identities behind the bindings, and what is wrong with the others. A
/// binding that gives no identity is in the way only where none of them gives one.
pub(super) fn identities(
    estate: &Estate,
    reached: &[Reached<'_>],
    backup: Option<&Backup>,
    selectors: &BTreeSet<&str>,
    reasons: &mut Vec<Reason>,
) -> Vec<ArmId> {
    let mut ids: BTreeSet<ArmId> = BTreeSet::new();
    let mut empty = Vec::new();
    for Reached { binding, identity } in reached {
        let at = format!("{}/{}", binding.namespace, binding.name);
        let Some(identity) = identity else {
            empty.push(Reason::obstacle(
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
                None => empty.push(Reason::obstacle(
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
    if ids.is_empty() && estate.is_seen() {
        reasons.append(&mut empty);
    }
    if ids.is_empty()
        && let Some(backup) = backup
    {
        ids.insert(ArmId::new(backup.identity.clone()));
    }
    if ids.is_empty() && reasons.is_empty() && !selectors.is_empty() && estate.is_seen() {
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
    estate: &Estate,
    reaches: &'a [ArmId],
    decided: Option<&DesiredWorkload>,
    reasons: &mut Vec<Reason>,
) -> Option<&'a ArmId> {
    let written = decided.and_then(|d| reaches.iter().find(|id| **id == d.identity));
    match reaches {
        [] => None,
        [one] => {
            if let Some(other) = decided.filter(|_| written.is_none() && estate.is_seen()) {
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
                let each: Vec<String> =
                    several.iter().map(|id| format!("identity = \"{id}\"")).collect();
                reasons.push(Reason::decision(
                    "several-identities",
                    format!(
                        "it reaches {} identities ({}); a service account has one",
                        several.len(),
                        names.join(", ")
                    ),
                    format!("one of: {}", each.join(" or ")),
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
                if matching::resource_id(identity).as_ref() != Some(id) {
                    continue;
                }
                let at = format!("AzureIdentity {}/{}", identity.namespace, identity.name);
                match matching::client_id(identity) {
                    Some(client) if client == seen.client_id => {}
                    Some(client) => reasons.push(Reason::obstacle(
                        "identity-recreated",
                        format!(
                            "{at} has client id {client}, Azure says {}: the managed identity was \
                             made again and may have other roles",
                            seen.client_id
                        ),
                        "check its roles and correct clientID of the AzureIdentity",
                    )),
                    None => reasons.push(Reason::obstacle(
                        "identity-without-client-id",
                        format!("clientID of {at} is `{}`, which is no id", identity.client_id),
                        format!("write clientID: {} into the AzureIdentity", seen.client_id),
                    )),
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
                "make it again with its roles, then correct clientID of the AzureIdentity",
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

/// Azure takes no more federated credentials on the identity.
pub(super) fn no_room(acts: &Acts, most: usize) -> Reason {
    Reason::obstacle(
        "twenty-credentials",
        format!(
            "identity {} has no room for another federated credential: Azure allows {most}",
            acts.id.name()
        ),
        "free a place: take away a credential of it that nothing uses; or let the workload have an \
         identity of its own through Pod Identity first, with the same roles: an AzureIdentity, a \
         binding with a selector of its own, and that as its aadpodidbinding",
    )
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
    // What does not exist any more is on no node.
    let gone = |id: &&ArmId| matches!(estate.azure.get(id), Some(AzureIdentityState::Gone));
    let names: Vec<&str> = reaches.iter().filter(|id| !gone(id)).map(ArmId::name).collect();
    if given.waived.nodes || !assigned || names.is_empty() || !matching::assigns(estate) {
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
    Some(Reason::decision(
        "node-identity",
        format!(
            "with its switch MIC takes identity {} from the nodes, where {who}",
            names.join(", ")
        ),
        "`--unassign`, once none of them needs it there",
    ))
}
