//! What an uninstallation means for others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Exposed, Given, NodeUser};
use crate::{
    migrate::matching,
    model::{
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

/// Pods that may live on the node's identity.
pub(super) fn users(given: Given<'_>) -> Vec<NodeUser> {
    let Given { estate, footprint, .. } = given;
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
    let each = users.into_iter();
    each.map(|((namespace, who, why), pods)| NodeUser { namespace, who, why, pods }).collect()
}

/// What pods can reach without NMI.
pub(super) fn exposed(given: Given<'_>) -> Exposed {
    let Given { estate, azure, .. } = given;
    let names = azure.scale_sets.iter().flat_map(|set| &set.identities).chain(&azure.kubelet);
    let names: BTreeSet<String> = names.map(|id| id.name().to_owned()).collect();
    let open = |pod: &&EstatePod| !pod.gone && !pod.host_network && !of_installation(given, pod);
    Exposed {
        pods: estate.pods.iter().filter(open).count(),
        identities: names.into_iter().collect(),
        users: users(given),
    }
}

/// Whether a pod is one of MIC or NMI.
pub(super) fn of_installation(given: Given<'_>, pod: &EstatePod) -> bool {
    given.footprint.components.iter().any(|component| {
        component.part.namespace.as_ref() == Some(&pod.namespace)
            && !component.labels.is_empty()
            && component.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    })
}
