//! What matters beside the workloads: other objects that refer to Pod Identity, bindings that do
//! nothing, pods that may live on the node's identity.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    matching,
    removal::binding_name,
    surroundings::maker,
    survey::{Given, Note, Workload},
};
use crate::model::{
    desired::{DesiredWorkload, PodSelection},
    pod_identity::{Estate, EstatePod, EstateTemplate, PodIdentity},
};

/// Objects of Pod Identity that another tool makes again when they are removed here.
fn kept_objects(estate: &Estate) -> Vec<(String, &str)> {
    let identities = estate.identities.iter().filter_map(|identity| {
        let PodIdentity { namespace, name, kept_by, .. } = identity;
        Some((format!("AzureIdentity {namespace}/{name}"), kept_by.as_deref()?))
    });
    let bindings =
        estate.bindings.iter().filter_map(|b| Some((binding_name(b), b.kept_by.as_deref()?)));
    identities.chain(bindings).collect()
}

/// What runs beside the templates of a workload, carries its label and cannot be changed.
fn left_behind(estate: &Estate, workloads: &[Workload]) -> Vec<(String, String)> {
    let mut found = BTreeSet::new();
    for workload in workloads.iter().filter(|w| !w.templates.is_empty()) {
        let at = (&workload.namespace, &workload.account);
        let fixed = |t: &&EstateTemplate| !t.writable() && !t.idle && t.selector().is_some();
        let ours = estate.templates.iter().filter(|t| (&t.namespace, &t.account) == at);
        found.extend(ours.filter(fixed).map(|t| (t.key(), workload.name())));
        let stray = |pod: &&EstatePod| {
            let stamped = estate.templates.iter().any(|t| t.stamps(pod));
            !pod.gone && !stamped && pod.selector().is_some()
        };
        let pods = estate.pods.iter().filter(|pod| (&pod.namespace, &pod.account) == at);
        found.extend(pods.filter(stray).map(|pod| (maker(pod), workload.name())));
    }
    found.into_iter().collect()
}

/// A template that shares a workload's account, and that its label gives no identity.
fn unanswered(given: Given<'_>, template: &EstateTemplate) -> String {
    let EstateTemplate { namespace, account, .. } = template;
    let key = template.key();
    let label = template.selector().map_or("the label of its pods".to_owned(), |selector| {
        format!("aadpodidbinding={selector}")
    });
    let named = given.workloads.iter().any(|w| {
        (&w.namespace, &w.account) == (namespace, account)
            && matches!(&w.pods, PodSelection::Named(named) if named.contains(&key))
    });
    let more = if named {
        "; `pods` in the file names it: `widentity apply`, not `migrate`, would give it one"
    } else {
        ""
    };
    format!(
        "{key} of {namespace}/{account} has no identity today (nothing answers {label}): `migrate` \
         leaves it as it is{more}"
    )
}

/// What matters beside the workloads.
pub(super) fn notes(
    estate: &Estate,
    given: Given<'_>,
    workloads: &[Workload],
    left_out: &[&EstateTemplate],
) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |code: &str, message: String| {
        notes.push(Note { code: code.to_owned(), message });
    };
    for class in &estate.secret_classes {
        note(
            "secret-provider-class",
            format!(
                "SecretProviderClass {} uses Pod Identity: set usePodIdentity: \
                 \"false\" and clientID in it",
                class.at()
            ),
        );
    }
    for trigger in &estate.triggers {
        note(
            "keda-trigger",
            format!(
                "{} uses Pod Identity: provider azure-workload and a federated credential for \
                 KEDA's own account",
                trigger.trigger()
            ),
        );
    }
    for binding in &estate.bindings {
        let at = format!("{}/{}", binding.namespace, binding.name);
        if estate.is_seen() && matching::identity_of(estate, binding).is_none() {
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
        let carriers: Vec<_> = matching::carriers(estate, binding).collect();
        for carrier in &carriers {
            note(
                "label-elsewhere",
                format!(
                    "{} carries the label of binding {at} ({}): change it there, widentity does \
                     not write its kind",
                    carrier.text(),
                    carrier.at
                ),
            );
        }
        let used = used || !carriers.is_empty();
        let known = workloads.iter().any(|workload| workload.bindings.contains(&at))
            || estate.backups.iter().any(|b| b.bindings.contains(&at));
        if estate.is_seen() && !used && !known {
            note("binding-unused", format!("binding {at} selects no template and no live pod"));
        }
    }
    for failure in &estate.unlooked {
        note(
            "not-looked",
            format!("bindings that select nothing may serve kinds that were not seen: {failure}"),
        );
    }
    for template in left_out {
        note("label-unanswered", unanswered(given, template));
    }
    for (what, by) in kept_objects(estate) {
        note("kept-object", format!("{what} is kept by {by}: remove it there, `finish` leaves it"));
    }
    let behind = if estate.is_seen() { left_behind(estate, workloads) } else { Vec::new() };
    for (what, workload) in behind {
        note(
            "left-behind",
            format!(
                "{what} carries the label of {workload} and cannot be changed: whoever made it must \
                 make it again before the binding can go"
            ),
        );
    }
    if estate.is_seen()
        && !matching::answers(estate)
        && workloads.iter().any(|w| !w.selectors.is_empty())
    {
        note(
            "no-nmi",
            "no NMI runs: nothing answers as Pod Identity, labelled pods see the identities of \
             their node"
                .to_owned(),
        );
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
    for workload in given.workloads.iter().filter(|w| estate.is_seen() && named(w)) {
        note(
            "no-template",
            format!("{}/{} has no pod template any more", workload.namespace, workload.account),
        );
    }
    notes.sort();
    notes
}
