//! What matters beside the workloads: other objects that refer to Pod Identity, bindings that do
//! nothing, pods that may live on the node's identity.

use std::collections::BTreeMap;

use super::{
    matching,
    survey::{Given, Note, Workload},
};
use crate::model::{
    desired::DesiredWorkload,
    pod_identity::{Estate, EstateTemplate, Named},
};

/// What matters beside the workloads.
pub(super) fn notes(estate: &Estate, given: Given<'_>, workloads: &[Workload]) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |code: &str, message: String| {
        notes.push(Note { code: code.to_owned(), message });
    };
    for Named { namespace, name, .. } in &estate.secret_classes {
        note(
            "secret-provider-class",
            format!(
                "SecretProviderClass {namespace}/{name} uses Pod Identity: set usePodIdentity: \
                 \"false\" and clientID in it"
            ),
        );
    }
    for Named { namespace, name, .. } in &estate.triggers {
        note(
            "keda-trigger",
            format!(
                "TriggerAuthentication {namespace}/{name} uses Pod Identity: provider \
                 azure-workload and a federated credential for KEDA's own account"
            ),
        );
    }
    for binding in &estate.bindings {
        let at = format!("{}/{}", binding.namespace, binding.name);
        if matching::identity_of(estate, binding).is_none() {
            note(
                "binding-to-nothing",
                format!(
                    "binding {at} names AzureIdentity {}, which does not exist",
                    binding.identity
                ),
            );
        }
        let templates = estate.templates.iter().filter_map(|t| Some((&t.namespace, t.selector()?)));
        let pods = estate.pods.iter().filter(|p| !p.gone);
        let pods = pods.filter_map(|p| Some((&p.namespace, p.selector()?)));
        let used = templates.chain(pods).any(|(n, s)| matching::selects(estate, binding, n, s));
        let known = workloads.iter().any(|workload| workload.bindings.contains(&at))
            || estate.backups.iter().any(|b| b.bindings.contains(&at));
        if !used && !known {
            note("binding-unused", format!("binding {at} selects no template and no live pod"));
        }
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for identity in &estate.identities {
        *names.entry(&identity.name).or_default() += 1;
    }
    if !matching::namespaced(estate) {
        for (name, _) in names.into_iter().filter(|(_, count)| *count > 1) {
            note(
                "same-name",
                format!("AzureIdentity {name} exists in several namespaces, which MIC confuses"),
            );
        }
    }
    let on_node = matching::on_node_identity(estate);
    if !on_node.is_empty() {
        let names: Vec<String> =
            on_node.iter().take(5).map(|p| format!("{}/{}", p.namespace, p.name)).collect();
        let more = on_node.len().saturating_sub(names.len());
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        note(
            "node-identity",
            format!("these pods may live on the node's identity: {}{more}", names.join(", ")),
        );
    }
    if estate.add_on.is_some() {
        note(
            "add-on",
            "the AKS add-on keeps its identities in ARM: they are removed there, not in the cluster"
                .to_owned(),
        );
    }
    let named = |w: &&DesiredWorkload| {
        let of = |t: &&EstateTemplate| (&t.namespace, &t.account) == (&w.namespace, &w.account);
        !estate.templates.iter().any(|t| of(&t))
            && estate
                .backups
                .iter()
                .any(|b| (&b.namespace, &b.account) == (&w.namespace, &w.account))
    };
    for workload in given.workloads.iter().filter(named) {
        note(
            "no-template",
            format!("{}/{} has no pod template any more", workload.namespace, workload.account),
        );
    }
    notes.sort();
    notes
}
