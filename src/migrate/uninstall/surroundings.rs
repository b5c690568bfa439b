//! What an uninstallation means for others, and what it leaves in Azure: named, never changed.

use std::collections::{BTreeMap, BTreeSet};

use super::{CleanUp, Exposed, Given, NodeUser};
use crate::{
    migrate::matching,
    model::{
        ArmId, RoleId,
        pod_identity::{Estate, EstatePod, EstateTemplate},
        snapshot::TemplateKind,
    },
};

/// `kind/name` of what made a pod, as people name it.
fn who(estate: &Estate, pod: &EstatePod) -> String {
    let Some(controller) = pod.controller.as_deref() else { return format!("pod/{}", pod.name) };
    let stem = controller.strip_prefix("replicaset/").and_then(|name| name.rsplit_once('-'));
    let Some((stem, _)) = stem else { return controller.to_owned() };
    let rolls = |kind| matches!(kind, TemplateKind::Deployment | TemplateKind::Rollout);
    let mut templates = estate.templates.iter();
    let of = templates.find(|t| t.namespace == pod.namespace && t.name == stem && rolls(t.kind));
    of.map_or_else(|| controller.to_owned(), EstateTemplate::key)
}

/// Pods that may live on the node's identity, and what the others can reach.
pub(super) fn exposed(given: Given<'_>) -> Exposed {
    let Given { estate, footprint, azure, .. } = given;
    let mut users: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    let mut add = |pod: &EstatePod, why: String| {
        *users.entry((pod.namespace.to_string(), who(estate, pod), why)).or_default() += 1;
    };
    for pod in matching::on_node_identity(estate) {
        let why = if pod.host_network {
            "it uses the node's network, where NMI never stood in between"
        } else {
            "an AzurePodIdentityException lets it through"
        };
        add(pod, why.to_owned());
    }
    for user in &footprint.metadata_users {
        let same = |pod: &&EstatePod| pod.namespace == user.namespace && pod.name == user.pod;
        let found = estate.pods.iter().filter(|pod| !pod.gone).find(same);
        if let Some(pod) = found.filter(|pod| !of_installation(given, pod)) {
            add(pod, user.why.clone());
        }
    }
    let names = azure.scale_sets.iter().flat_map(|set| &set.identities).chain(&azure.kubelet);
    let names: BTreeSet<String> = names.map(|id| id.name().to_owned()).collect();
    let open = |pod: &&EstatePod| !pod.gone && !pod.host_network && !of_installation(given, pod);
    Exposed {
        pods: estate.pods.iter().filter(open).count(),
        identities: names.into_iter().collect(),
        users: users
            .into_iter()
            .map(|((namespace, who, why), pods)| NodeUser { namespace, who, why, pods })
            .collect(),
    }
}

/// Whether a pod is one of MIC or NMI.
fn of_installation(given: Given<'_>, pod: &EstatePod) -> bool {
    given.footprint.components.iter().any(|component| {
        component.part.namespace.as_ref() == Some(&pod.namespace)
            && !component.labels.is_empty()
            && component.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    })
}

/// What the documentation of Pod Identity makes people set up in Azure. Nothing marks it as made
/// for Pod Identity, so that only its owner can tell whether something else needs it.
pub(super) fn clean_up(given: Given<'_>) -> Vec<CleanUp> {
    let Given { estate, azure, .. } = given;
    let mut found = BTreeSet::new();
    for assignment in &azure.assignments {
        // AKS itself needs this one, where the nodes' identity was brought along. Source:
        // Microsoft documentation, "Use a pre-created kubelet managed identity".
        if azure.kubelet.as_ref() == Some(&assignment.scope) {
            continue;
        }
        let principal = azure.principals.get(&assignment.principal_id);
        let (Some(principal), Some(role)) = (principal, wanted(assignment.role)) else { continue };
        found.insert(CleanUp {
            what: format!("role {role} of {principal} on {}", assignment.scope),
            command: format!("az role assignment delete --ids {}", assignment.id),
        });
    }
    // Identities that Pod Identity gave to workloads, as objects or backups name them.
    let known: BTreeSet<&str> = estate.azure.keys().map(ArmId::key).collect();
    for set in &azure.scale_sets {
        for identity in set.identities.iter().filter(|id| known.contains(id.key())) {
            found.insert(CleanUp {
                what: format!("identity {} on scale set {}", identity.name(), set.id.name()),
                command: format!(
                    "az vmss identity remove --resource-group {} --name {} --identities {identity}",
                    set.id.resource_group().unwrap_or_default(),
                    set.id.name()
                ),
            });
        }
    }
    found.into_iter().collect()
}

/// The roles that Pod Identity's documentation asks for.
pub fn asked_for() -> impl Iterator<Item = RoleId> {
    WANTED.iter().filter_map(|(_, guid)| guid.parse().ok())
}

/// Source: Azure/aad-pod-identity, documentation page "Role assignment"; the GUIDs: Microsoft
/// documentation, "Azure built-in roles".
const WANTED: [(&str, &str); 2] = [
    ("Managed Identity Operator", "f1a07417-d97a-45cb-824c-7a7467783830"),
    ("Virtual Machine Contributor", "9980e02c-c2be-4d73-94e8-173b1dc7cf3c"),
];

fn wanted(role: RoleId) -> Option<&'static str> {
    let known = WANTED.iter().find(|(_, guid)| guid.parse().ok() == Some(role));
    known.map(|(name, _)| *name)
}
