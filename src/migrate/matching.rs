//! Which identities a pod reaches, decided as MIC and NMI decide it: equality of two strings, in
//! every namespace unless something confines it.
//!
//! Source: Azure/aad-pod-identity, `pkg/mic/mic.go` (`createDesiredAssignedIdentityList`),
//! `pkg/nmi/managed.go`, and its documentation page "Match pods in namespace".

use std::collections::BTreeMap;

use crate::model::{
    ArmId, ClientId, Namespace,
    pod_identity::{Binding, Carrier, Estate, EstatePod, Install, PodIdentity},
    snapshot::TemplateKind,
};

/// A binding that selects a pod, with the identity it names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reached<'a> {
    /// The binding.
    pub binding: &'a Binding,
    /// The identity; none where the binding names one that does not exist.
    pub identity: Option<&'a PodIdentity>,
}

/// Whether Pod Identity matches within a namespace only: the add-on and managed mode always do.
pub fn namespaced(estate: &Estate) -> bool {
    estate.add_on.is_some() || estate.installs.iter().any(|install| install.namespaced)
}

/// Whether a binding selects a pod of this namespace with this label value. The comparison is
/// exact and takes upper and lower case apart.
pub fn selects(estate: &Estate, binding: &Binding, namespace: &Namespace, selector: &str) -> bool {
    // In the order of their cost: this is asked for each template and pod of a cluster.
    binding.selector == selector
        && (binding.namespace == *namespace
            || !(namespaced(estate)
                || identity_of(estate, binding).is_some_and(|identity| identity.namespaced)))
}

/// The custom resources by which pods would come that a binding selects. Where the pods of one will
/// be made is not known if its kind has no namespace.
pub fn carriers<'a>(
    estate: &'a Estate,
    binding: &'a Binding,
) -> impl Iterator<Item = &'a Carrier> + use<'a> {
    estate.carriers.iter().filter(|carrier| {
        let wide = carrier.namespace.as_str().is_empty() && carrier.selector == binding.selector;
        wide || selects(estate, binding, &carrier.namespace, &carrier.selector)
    })
}

/// The identity that a binding names, in the binding's own namespace.
pub fn identity_of<'a>(estate: &'a Estate, binding: &Binding) -> Option<&'a PodIdentity> {
    let same = |i: &&PodIdentity| i.namespace == binding.namespace && i.name == binding.identity;
    estate.identities.iter().find(same)
}

/// Everything that a pod of this namespace with this label value reaches, in the order of the
/// bindings.
pub fn reached<'a>(estate: &'a Estate, namespace: &Namespace, selector: &str) -> Vec<Reached<'a>> {
    let selecting = estate.bindings.iter().filter(|b| selects(estate, b, namespace, selector));
    selecting.map(|binding| Reached { binding, identity: identity_of(estate, binding) }).collect()
}

/// Whether a pod of this namespace with this label value is given an identity: a binding selects it
/// and names an `AzureIdentity` that MIC takes.
pub fn gives(estate: &Estate, namespace: &Namespace, selector: &str) -> bool {
    let mut identities =
        reached(estate, namespace, selector).into_iter().filter_map(|r| r.identity);
    identities.any(|identity| identity.kind != 0 || resource_id(identity).is_some())
}

/// The id of a managed identity, as MIC demands it; none for one that it ignores.
pub fn resource_id(identity: &PodIdentity) -> Option<ArmId> {
    let id = ArmId::new(identity.resource_id.trim());
    let is_identity =
        id.resource_type().as_deref() == Some("microsoft.managedidentity/userassignedidentities");
    (is_identity && id.subscription().is_some() && id.resource_group().is_some()).then_some(id)
}

/// The client id, where it is one.
pub fn client_id(identity: &PodIdentity) -> Option<ClientId> {
    identity.client_id.trim().parse().ok()
}

/// Whether an exception lets pods with these labels through to the node's metadata endpoint: one
/// equal label in its namespace is enough, and values are compared without case.
///
/// Source: Azure/aad-pod-identity, `pkg/pod/pod.go`.
pub fn excepted(estate: &Estate, namespace: &Namespace, labels: &BTreeMap<String, String>) -> bool {
    estate.exceptions.iter().filter(|e| e.namespace == *namespace).any(|exception| {
        exception.pod_labels.iter().any(|(key, value)| {
            labels.get(key).is_some_and(|have| have.eq_ignore_ascii_case(value))
        })
    })
}

/// Whether anything answers token requests of labelled pods, as far as the objects of the cluster
/// tell.
pub fn answers(estate: &Estate) -> bool {
    let nmi = |install: &Install| install.component == "nmi" && !install.stuck;
    estate.add_on.is_some() || estate.installs.iter().any(nmi)
}

/// Whether MIC assigns identities to nodes and takes them back; in managed mode nobody does.
pub fn assigns(estate: &Estate) -> bool {
    estate.installs.iter().any(|install| install.component == "mic" && !install.managed)
}

/// Whether AKS runs a pod for itself: such a pod does not live on an identity of the user's.
///
/// Source: the exception `aks-addon-exception` of Pod Identity, which lets exactly these through.
fn is_of_aks(pod: &EstatePod) -> bool {
    let system = pod.namespace.as_str() == "kube-system";
    system && pod.labels.get("kubernetes.azure.com/managedby").is_some_and(|by| by == "aks")
}

/// Live pods that may use the identities of their node: on the node's network, or let through by
/// an exception. Those of Pod Identity itself and of AKS are left out.
pub fn on_node_identity(estate: &Estate) -> Vec<&EstatePod> {
    let component = |pod: &EstatePod| {
        let owner = pod.controller.as_deref().and_then(|text| text.split_once('/'));
        owner.is_some_and(|owner| {
            estate.installs.iter().filter(|install| install.namespace == pod.namespace).any(
                |install| {
                    let kinds = [TemplateKind::Deployment, TemplateKind::DaemonSet];
                    kinds.iter().any(|kind| kind.stamps(&install.name, owner))
                },
            )
        })
    };
    let live = estate.pods.iter().filter(|pod| !pod.gone && !component(pod) && !is_of_aks(pod));
    live.filter(|pod| pod.host_network || excepted(estate, &pod.namespace, &pod.labels)).collect()
}
