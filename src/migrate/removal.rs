//! What `finish` may remove: bindings whose every workload has soaked and that select nothing any
//! more, and identities that no other binding names. What the AKS add-on keeps goes as an entry of
//! ARM's record. Everything else is kept, with the reason.

use std::collections::BTreeSet;

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
    /// Managed identities that AKS takes from the nodes with their last entry.
    pub unassigned: BTreeSet<ArmId>,
    /// Live pods that may live on an identity of their node, `namespace/name`.
    pub on_node: Vec<String>,
    /// What stays: the object, and why.
    pub kept: Vec<(String, String)>,
    /// Those of `kept` that only workloads use that were not chosen.
    pub not_chosen: BTreeSet<String>,
}

/// An identity that the AKS add-on keeps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl Entry {
    fn of(identity: &PodIdentity) -> Self {
        Self { namespace: identity.namespace.clone(), name: identity.name.clone() }
    }
}

impl Removal {
    /// How many objects and entries go.
    pub fn count(&self) -> usize {
        self.bindings.len() + self.identities.len() + self.add_on.len()
    }

    /// The managed identities that anything of this names, which are all that its gates look at.
    pub fn managed(&self, estate: &Estate) -> BTreeSet<ArmId> {
        let bound = self.bindings.iter().filter_map(|b| matching::identity_of(estate, b));
        let entry = |identity: &&PodIdentity| self.add_on.contains(&Entry::of(identity));
        let kept = estate.identities.iter().filter(entry);
        bound.chain(&self.identities).chain(kept).filter_map(matching::resource_id).collect()
    }

    /// What of this is in another removal, too: what was confirmed and may still go. Objects are
    /// compared by UID and come as they are now: a DELETE demands what this was decided on. The
    /// second part names what may not go any more.
    pub fn still(&self, now: &Self) -> (Self, Vec<(String, String)>) {
        let mut left = self.clone();
        let mut changed = Vec::new();
        let mut why = |object: String| {
            let known = now.kept.iter().find(|(kept, _)| *kept == object);
            let why = known.map_or("it changed since it was confirmed", |(_, why)| why.as_str());
            changed.push((object, why.to_owned()));
        };
        renew(&mut left.bindings, &now.bindings, |b| &b.uid, |b| why(binding_name(b)));
        renew(&mut left.identities, &now.identities, |i| &i.uid, |i| why(identity_name(i)));
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

/// Keeps what is still among the objects of `now`, as it is there, and tells what is not.
fn renew<T: Clone>(left: &mut Vec<T>, now: &[T], uid: fn(&T) -> &str, mut gone: impl FnMut(&T)) {
    left.retain_mut(|one| {
        let still = now.iter().find(|other| uid(other) == uid(one));
        match still {
            Some(now) => one.clone_from(now),
            None => gone(one),
        }
        still.is_some()
    });
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
    /// The workloads that were chosen, `namespace/account`.
    pub chosen: &'a BTreeSet<String>,
    /// Those of them that were proved again in this run.
    pub proved: &'a BTreeSet<String>,
    /// Whether identities may be taken from nodes that other pods may live on.
    pub unassign: bool,
}

impl Allowed<'_> {
    /// Why this does not extend to a workload.
    fn refuses(self, workload: &Workload) -> Option<&'static str> {
        let name = workload.name();
        if !self.chosen.contains(&name) {
            return Some("was not chosen");
        }
        (!self.proved.contains(&name)).then_some("was not proved again in this run")
    }
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
        if users.iter().all(|workload| !allowed.chosen.contains(&workload.name())) {
            found.not_chosen.insert(binding_name(binding));
        }
        match obstacle(estate, binding, &users, allowed) {
            Some(why) => found.kept.push((binding_name(binding), why)),
            None => free.push((binding, users)),
        }
    }
    add_on(estate, survey, &mut free, allowed, &mut found);
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
    if let Some(carrier) = matching::carriers(estate, binding).next() {
        return Some(format!("it still selects what {} makes", carrier.text()));
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
    let refused = users.iter().find_map(|w| Some(format!("{} {}", w.name(), allowed.refuses(w)?)));
    let unlooked = || {
        let failure = estate.unlooked.first()?;
        Some(format!("other kinds may use it: {failure}; waive it with --allow-unseen-kinds"))
    };
    refused
        .or_else(|| user(estate, binding))
        .or_else(|| kept(binding.kept_by.as_deref()))
        .or_else(unlooked)
}

/// What another tool keeps is made again, with the next release or at once, and `rollback` would
/// make it beside that.
fn kept(by: Option<&str>) -> Option<String> {
    by.map(|by| format!("{by} keeps it: take it out of what {by} applies"))
}

/// Bindings of the add-on's identities go by their entry in ARM's record, all of one identity or
/// none: what is removed in the cluster comes back.
fn add_on(
    estate: &Estate,
    survey: &Survey,
    free: &mut Vec<(&Binding, Vec<&Workload>)>,
    allowed: Allowed<'_>,
    found: &mut Removal,
) {
    let Some(entries) = &estate.add_on else { return };
    let kept = |namespace: &Namespace, name: &str| entries.contains(&format!("{namespace}/{name}"));
    let of_entries = || estate.identities.iter().filter(|i| kept(&i.namespace, &i.name));
    let mut going: Vec<&PodIdentity> = Vec::new();
    for identity in of_entries() {
        let of = |b: &Binding| b.namespace == identity.namespace && b.identity == identity.name;
        let all = estate.bindings.iter().filter(|b| of(b)).count();
        let ready = free.iter().filter(|(b, _)| of(b)).count();
        let mut left =
            users_of(survey, identity).filter(|w| w.phase == Phase::BindingRemoved).peekable();
        let answered = left.peek().is_some();
        let refused = left.find_map(|w| Some(format!("{} {}", w.name(), allowed.refuses(w)?)));
        if ready < all {
            for (binding, _) in free.iter().filter(|(b, _)| of(b)) {
                let why = "another binding of the same add-on identity stays".to_owned();
                found.kept.push((binding_name(binding), why));
            }
        } else if let Some(why) = refused {
            found.kept.push((entry_name(&Entry::of(identity)), why));
        } else if all > 0 || answered {
            going.push(identity);
        }
    }
    let staying: BTreeSet<ArmId> =
        of_entries().filter(|i| !going.contains(i)).filter_map(matching::resource_id).collect();
    for identity in going {
        let id = matching::resource_id(identity).filter(|id| !staying.contains(id));
        if let Some(why) = id.as_ref().and_then(|id| on_nodes(estate, id, allowed, found)) {
            found.kept.push((entry_name(&Entry::of(identity)), why));
            continue;
        }
        let of = |b: &Binding| b.namespace == identity.namespace && b.identity == identity.name;
        let users = free.iter().filter(|(b, _)| of(b)).flat_map(|(_, users)| users);
        found.workloads.extend(users.map(|workload| workload.name()));
        found.unassigned.extend(id);
        found.add_on.push(Entry::of(identity));
    }
    // Entries whose objects AKS has not made, or has made elsewhere, are nobody's here.
    free.retain(|(binding, _)| !kept(&binding.namespace, &binding.identity));
}

/// AKS takes an identity from the nodes with its last entry; pods that use it there without Pod
/// Identity would lose it. Where MIC assigned it, the switch has taken it already.
fn on_nodes(
    estate: &Estate,
    id: &ArmId,
    allowed: Allowed<'_>,
    found: &mut Removal,
) -> Option<String> {
    let pods = matching::on_node_identity(estate);
    found.on_node = pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let pods = match found.on_node.as_slice() {
        _ if allowed.unassign => return None,
        [] => return None,
        [one] => format!("pod {one} may live on it"),
        several => format!("{} pods may live on it, {} first", several.len(), several[0]),
    };
    let name = id.name();
    Some(format!("with it {name} is taken from the nodes, and {pods}: decide with --unassign"))
}

fn users_of<'a>(
    survey: &'a Survey,
    identity: &PodIdentity,
) -> impl Iterator<Item = &'a Workload> + use<'a> {
    // What is no managed identity is nobody's here.
    let id = matching::resource_id(identity);
    let acts = move |w: &&Workload| w.identity.as_ref().is_some_and(|a| Some(&a.id) == id.as_ref());
    survey.workloads.iter().filter(acts)
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
        let users: Vec<&Workload> = users_of(survey, identity).collect();
        let mut left = users.iter().filter(|w| w.phase == Phase::BindingRemoved).peekable();
        let goes_with = (answered || left.peek().is_some()) && bindings.all(goes);
        if users.is_empty() || !goes_with {
            continue;
        }
        let refused = left.find_map(|w| Some(format!("{} {}", w.name(), allowed.refuses(w)?)));
        if users.iter().all(|workload| !allowed.chosen.contains(&workload.name())) {
            found.not_chosen.insert(identity_name(identity));
        }
        match refused.or_else(|| kept(identity.kept_by.as_deref())) {
            Some(why) => found.kept.push((identity_name(identity), why)),
            None => identities.push(identity.clone()),
        }
    }
    found.identities = identities;
}
