//! What `finish` may remove: bindings whose every workload has soaked and that select nothing any
//! more, and identities that no other binding names. Everything else is kept, with the reason.

use std::collections::BTreeSet;

use super::{Phase, Survey, Workload, matching};
use crate::model::pod_identity::{Binding, Estate, PodIdentity};

/// MIC fails on mass un-assignment from a scale set (Azure/aad-pod-identity#813), so bindings go
/// in batches of this many.
pub const BATCH: usize = 20;

/// What may go and what stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Removal {
    /// Bindings to remove, in order.
    pub bindings: Vec<Binding>,
    /// Identities to remove after them.
    pub identities: Vec<PodIdentity>,
    /// The workloads they answered for, `namespace/account`.
    pub workloads: BTreeSet<String>,
    /// What stays: the object, and why.
    pub kept: Vec<(String, String)>,
}

/// What the caller allows.
#[derive(Debug, Clone, Copy)]
pub struct Allowed<'a> {
    /// The workloads that were chosen and proved again in this run; none: all soaked ones.
    pub workloads: Option<&'a BTreeSet<String>>,
    /// Whether MIC may take identities from nodes that other pods may live on.
    pub unassign: bool,
}

fn has_arrived(workload: &Workload) -> bool {
    matches!(workload.phase, Phase::Soaked | Phase::BindingRemoved | Phase::Cleaned)
}

/// Decides about every binding that answered for a workload of the survey. The survey must hold
/// all workloads of the cluster: one that was left out could be left without its path.
pub fn removal(estate: &Estate, survey: &Survey, allowed: Allowed<'_>) -> Removal {
    let mut found = Removal::default();
    for binding in &estate.bindings {
        let at = format!("{}/{}", binding.namespace, binding.name);
        let users: Vec<&Workload> =
            survey.workloads.iter().filter(|w| w.bindings.contains(&at)).collect();
        if users.is_empty() {
            continue;
        }
        if let Some(why) = obstacle(estate, binding, &users, allowed) {
            found.kept.push((format!("binding {at}"), why));
        } else {
            found.workloads.extend(users.iter().map(|workload| workload.name()));
            found.bindings.push(binding.clone());
        }
    }
    let goes = |b: &Binding| found.bindings.iter().any(|gone| gone.uid == b.uid);
    for identity in &estate.identities {
        let names = |b: &&Binding| b.namespace == identity.namespace && b.identity == identity.name;
        let mut bindings = estate.bindings.iter().filter(names).peekable();
        let answered = bindings.peek().is_some();
        let id = matching::resource_id(identity);
        let users: Vec<&Workload> = survey
            .workloads
            .iter()
            .filter(|w| w.identity.as_ref().map(|acts| &acts.id) == id.as_ref())
            .collect();
        let left = !answered && users.iter().any(|w| w.phase == Phase::BindingRemoved);
        let free = bindings.all(goes) && (answered || left);
        if free && !users.is_empty() && kept_by_add_on(estate, identity).is_none() {
            found.identities.push(identity.clone());
        }
    }
    found
}

fn kept_by_add_on(estate: &Estate, identity: &PodIdentity) -> Option<String> {
    let name = format!("{}/{}", identity.namespace, identity.name);
    let keeps = estate.add_on.as_ref()?.contains(&name);
    keeps.then(|| {
        format!(
            "the AKS add-on keeps it in ARM: az aks pod-identity delete --namespace {} --name {} \
             --resource-group GROUP --cluster-name CLUSTER",
            identity.namespace, identity.name
        )
    })
}

fn obstacle(
    estate: &Estate,
    binding: &Binding,
    users: &[&Workload],
    allowed: Allowed<'_>,
) -> Option<String> {
    if let Some(identity) = matching::identity_of(estate, binding)
        && let Some(why) = kept_by_add_on(estate, identity)
    {
        return Some(why);
    }
    if let Some(late) = users.iter().find(|workload| !has_arrived(workload)) {
        let until = late.soaked_at.map(|at| format!(" until {at:.0}")).unwrap_or_default();
        return Some(format!("{} is {}{until}", late.name(), late.phase.as_str()));
    }
    let chosen = |w: &&&Workload| allowed.workloads.is_none_or(|chosen| chosen.contains(&w.name()));
    if let Some(other) = users.iter().find(|w| !chosen(w)) {
        return Some(format!("{} was not chosen, or not proved again", other.name()));
    }
    let selects = |namespace, selector: Option<&str>| {
        selector.is_some_and(|s| matching::selects(estate, binding, namespace, s))
    };
    let templates = estate.templates.iter().filter(|t| !t.idle || t.kind.writable());
    if let Some(template) = templates.into_iter().find(|t| selects(&t.namespace, t.selector())) {
        return Some(format!("it still selects {} in {}", template.key(), template.namespace));
    }
    let mut live = estate.pods.iter().filter(|pod| !pod.gone);
    if let Some(pod) = live.find(|pod| selects(&pod.namespace, pod.selector())) {
        return Some(format!("it still selects pod {}/{}", pod.namespace, pod.name));
    }
    let mic = estate.installs.iter().any(|i| i.component == "mic" && !i.managed);
    let on_node = matching::on_node_identity(estate);
    if mic && !on_node.is_empty() && !allowed.unassign {
        let pod = on_node[0];
        return Some(format!(
            "MIC takes the identity from the nodes with its last binding, and pod {}/{} may live \
             on it: decide with --unassign",
            pod.namespace, pod.name
        ));
    }
    None
}
