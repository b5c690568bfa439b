//! What `finish` may remove: bindings whose every workload has soaked and that select nothing any
//! more, and identities that no other binding names. What the AKS add-on keeps goes as an entry of
//! ARM's record. Everything else is kept, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use super::{Phase, Survey, Workload, matching};
use crate::model::{
    ArmId, Namespace,
    pod_identity::{Binding, Estate, PodIdentity},
};

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
    /// Entries of the AKS add-on, which takes identity and binding away.
    pub add_on: Vec<Entry>,
    /// The workloads they answered for, `namespace/account`.
    pub workloads: BTreeSet<String>,
    /// Managed identities that are taken from the nodes with their last binding.
    pub unassigned: BTreeSet<ArmId>,
    /// Live pods that may live on an identity of their node, `namespace/name`.
    pub on_node: Vec<String>,
    /// What stays: the object, and why.
    pub kept: Vec<(String, String)>,
}

/// An identity that the AKS add-on keeps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl Removal {
    /// How many objects and entries go.
    pub fn count(&self) -> usize {
        self.bindings.len() + self.identities.len() + self.add_on.len()
    }

    /// What of this is in another removal, too: what was confirmed and may still go. Objects are
    /// compared by UID. The second part names what may not go any more.
    pub fn still(&self, now: &Self) -> (Self, Vec<(String, String)>) {
        let mut left = self.clone();
        let mut changed = Vec::new();
        let mut why = |object: String| {
            let known = now.kept.iter().find(|(kept, _)| *kept == object);
            let why = known.map_or("it changed since it was confirmed", |(_, why)| why.as_str());
            changed.push((object, why.to_owned()));
        };
        left.bindings.retain(|b| {
            let still = now.bindings.iter().any(|other| other.uid == b.uid);
            if !still {
                why(binding_name(b));
            }
            still
        });
        left.identities.retain(|i| {
            let still = now.identities.iter().any(|other| other.uid == i.uid);
            if !still {
                why(identity_name(i));
            }
            still
        });
        left.add_on.retain(|entry| {
            let still = now.add_on.contains(entry);
            if !still {
                why(entry_name(entry));
            }
            still
        });
        (left, changed)
    }
}

/// `binding namespace/name`.
pub fn binding_name(binding: &Binding) -> String {
    format!("binding {}/{}", binding.namespace, binding.name)
}

/// `identity namespace/name`.
pub fn identity_name(identity: &PodIdentity) -> String {
    format!("identity {}/{}", identity.namespace, identity.name)
}

/// `add-on identity namespace/name`.
pub fn entry_name(entry: &Entry) -> String {
    format!("add-on identity {}/{}", entry.namespace, entry.name)
}

/// What the caller allows.
#[derive(Debug, Clone, Copy)]
pub struct Allowed<'a> {
    /// The workloads that were chosen and proved again in this run; none: all soaked ones.
    pub workloads: Option<&'a BTreeSet<String>>,
    /// Whether identities may be taken from nodes that other pods may live on.
    pub unassign: bool,
}

fn has_arrived(workload: &Workload) -> bool {
    matches!(workload.phase, Phase::Soaked | Phase::BindingRemoved | Phase::Cleaned)
}

/// Decides about every binding and identity. The survey must hold all workloads of the cluster:
/// one that was left out could be left without its path.
pub fn removal(estate: &Estate, survey: &Survey, allowed: Allowed<'_>) -> Removal {
    let mut found = Removal::default();
    let mut free: Vec<(&Binding, Vec<&Workload>)> = Vec::new();
    for binding in &estate.bindings {
        let at = format!("{}/{}", binding.namespace, binding.name);
        let users: Vec<&Workload> =
            survey.workloads.iter().filter(|w| w.bindings.contains(&at)).collect();
        // What selects nothing and answered for nobody is `uninstall`'s.
        if users.is_empty() {
            continue;
        }
        match obstacle(estate, binding, &users, allowed) {
            Some(why) => found.kept.push((binding_name(binding), why)),
            None => free.push((binding, users)),
        }
    }
    on_nodes(estate, &mut free, allowed, &mut found);
    add_on(estate, survey, &mut free, &mut found);
    for (binding, users) in free {
        found.workloads.extend(users.iter().map(|workload| workload.name()));
        found.bindings.push(binding.clone());
    }
    identities(estate, survey, allowed, &mut found);
    found
}

/// Whether a pod or a template of the cluster still uses a binding.
fn user(estate: &Estate, binding: &Binding) -> Option<String> {
    let selects = |namespace, selector: Option<&str>| {
        selector.is_some_and(|s| matching::selects(estate, binding, namespace, s))
    };
    let mut templates = estate.templates.iter().filter(|t| !t.idle || t.kind.writable());
    if let Some(template) = templates.find(|t| selects(&t.namespace, t.selector())) {
        return Some(format!("it still selects {} in {}", template.key(), template.namespace));
    }
    let mut live = estate.pods.iter().filter(|pod| !pod.gone || pod.ending);
    let pod = live.find(|pod| selects(&pod.namespace, pod.selector()))?;
    let end = if pod.ending { ", which is ending" } else { "" };
    Some(format!("it still selects pod {}/{}{end}", pod.namespace, pod.name))
}

fn obstacle(
    estate: &Estate,
    binding: &Binding,
    users: &[&Workload],
    allowed: Allowed<'_>,
) -> Option<String> {
    if let Some(late) = users.iter().find(|workload| !has_arrived(workload)) {
        let until = match (late.soaked_at, late.unrun.as_slice()) {
            (_, [template, ..]) => format!("; {template} has not run since its switch"),
            (Some(at), []) => format!(" until {at:.0}"),
            (None, []) => String::new(),
        };
        return Some(format!("{} is {}{until}", late.name(), late.phase.as_str()));
    }
    let chosen = |w: &&&Workload| allowed.workloads.is_none_or(|chosen| chosen.contains(&w.name()));
    if let Some(other) = users.iter().find(|w| !chosen(w)) {
        return Some(format!("{} was not chosen, or not proved again", other.name()));
    }
    user(estate, binding)
}

/// Whoever assigned an identity to the nodes takes it back with its last binding; pods that use it
/// there without Pod Identity would lose it.
fn on_nodes(
    estate: &Estate,
    free: &mut Vec<(&Binding, Vec<&Workload>)>,
    allowed: Allowed<'_>,
    found: &mut Removal,
) {
    let mic = estate.installs.iter().any(|i| i.component == "mic" && !i.managed);
    if !mic && estate.add_on.is_none() {
        return;
    }
    let pods = matching::on_node_identity(estate);
    found.on_node = pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let id_of =
        |binding: &Binding| matching::identity_of(estate, binding).and_then(matching::resource_id);
    let mut left: BTreeMap<ArmId, usize> = BTreeMap::new();
    for binding in &estate.bindings {
        let goes = free.iter().any(|(free, _)| *free == binding);
        if let Some(id) = id_of(binding) {
            *left.entry(id).or_default() += usize::from(!goes);
        }
    }
    let last = |binding: &Binding| id_of(binding).filter(|id| left.get(id) == Some(&0));
    if pods.is_empty() || allowed.unassign {
        found.unassigned = free.iter().filter_map(|(binding, _)| last(binding)).collect();
        return;
    }
    let pods = match found.on_node.as_slice() {
        [one] => format!("pod {one} may live on it"),
        several => format!("{} pods may live on it, {} first", several.len(), several[0]),
    };
    free.retain(|(binding, _)| {
        let Some(id) = last(binding) else { return true };
        let why = format!(
            "with its last binding identity {} is taken from the nodes, and {pods}: decide with \
             --unassign",
            id.name()
        );
        found.kept.push((binding_name(binding), why));
        false
    });
}

/// Bindings of the add-on's identities go by their entry in ARM's record, all of one identity or
/// none: what is removed in the cluster comes back.
fn add_on(
    estate: &Estate,
    survey: &Survey,
    free: &mut Vec<(&Binding, Vec<&Workload>)>,
    found: &mut Removal,
) {
    let Some(entries) = &estate.add_on else { return };
    let kept = |namespace: &Namespace, name: &str| entries.contains(&format!("{namespace}/{name}"));
    for identity in estate.identities.iter().filter(|i| kept(&i.namespace, &i.name)) {
        let of = |b: &Binding| b.namespace == identity.namespace && b.identity == identity.name;
        let all = estate.bindings.iter().filter(|b| of(b)).count();
        let ready = free.iter().filter(|(b, _)| of(b)).count();
        let answered = users_of(survey, identity).any(|w| w.phase == Phase::BindingRemoved);
        let entry = Entry { namespace: identity.namespace.clone(), name: identity.name.clone() };
        if ready < all {
            for (binding, _) in free.iter().filter(|(b, _)| of(b)) {
                let why = "another binding of the same add-on identity stays".to_owned();
                found.kept.push((binding_name(binding), why));
            }
        } else if all > 0 || answered {
            let users = free.iter().filter(|(b, _)| of(b)).flat_map(|(_, users)| users);
            found.workloads.extend(users.map(|workload| workload.name()));
            found.add_on.push(entry);
        }
    }
    // Entries whose objects AKS has not made, or has made elsewhere, are nobody's here.
    free.retain(|(binding, _)| !kept(&binding.namespace, &binding.identity));
}

fn users_of<'a>(
    survey: &'a Survey,
    identity: &PodIdentity,
) -> impl Iterator<Item = &'a Workload> + use<'a> {
    let id = matching::resource_id(identity);
    survey.workloads.iter().filter(move |w| w.identity.as_ref().map(|acts| &acts.id) == id.as_ref())
}

fn identities(estate: &Estate, survey: &Survey, allowed: Allowed<'_>, found: &mut Removal) {
    let entries = estate.add_on.clone().unwrap_or_default();
    let goes = |b: &Binding| found.bindings.contains(b);
    let mut identities = Vec::new();
    for identity in &estate.identities {
        if entries.contains(&format!("{}/{}", identity.namespace, identity.name)) {
            continue;
        }
        let names = |b: &&Binding| b.namespace == identity.namespace && b.identity == identity.name;
        let mut bindings = estate.bindings.iter().filter(names).peekable();
        let answered = bindings.peek().is_some();
        let mut of_removed =
            users_of(survey, identity).filter(|w| w.phase == Phase::BindingRemoved).peekable();
        let left = of_removed.peek().is_some();
        let chosen = |w: &Workload| allowed.workloads.is_none_or(|names| names.contains(&w.name()));
        if !of_removed.all(chosen) {
            continue;
        }
        let free = bindings.all(goes) && (answered || left);
        if free && users_of(survey, identity).next().is_some() {
            identities.push(identity.clone());
        }
    }
    found.identities = identities;
}
