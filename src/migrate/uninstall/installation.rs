//! Which objects are the installation's. Rights go with the account that they were given to:
//! what somebody else uses as well stays, and is named.

use std::collections::BTreeSet;

use super::{Given, Kept, surroundings};
use crate::{
    migrate::surroundings::maker,
    model::{
        AccountName, Namespace,
        footprint::{Part, PartKind, RoleBinding},
        pod_identity::{Estate, EstateTemplate},
    },
};

/// The names that the manifests of the project give, and those that the chart gives by default.
const ACCOUNTS: [&str; 2] = ["aad-pod-id-mic-service-account", "aad-pod-id-nmi-service-account"];
const ROLES: [&str; 2] = ["aad-pod-id-mic-role", "aad-pod-id-nmi-role"];

type Account = (Namespace, AccountName);

/// Whether AKS made this NMI: it comes back when it is deleted, and goes with the add-on. Which
/// marks AKS gives it is not documented, so that the record in ARM and the place decide.
pub(super) fn of_add_on(estate: &Estate, part: &Part) -> bool {
    estate.add_on.is_some()
        && part.kind == PartKind::Nmi
        && part.namespace.as_ref().is_some_and(|namespace| namespace.as_str() == "kube-system")
}

/// The accounts that MIC and NMI run as, those of the add-on or all others.
fn running(given: Given<'_>, add_on: bool) -> BTreeSet<Account> {
    let Given { estate, footprint, .. } = given;
    let components = footprint.components.iter();
    let components = components.filter(|c| of_add_on(estate, &c.part) == add_on);
    components.filter_map(|c| Some((c.part.namespace.clone()?, c.account.clone()))).collect()
}

/// The accounts of the installation, by the components that run as them, by name or by the
/// chart's label; `default` is nobody's.
fn accounts(given: Given<'_>) -> BTreeSet<Account> {
    let of = |part: &Part| Some((part.namespace.clone()?, AccountName(part.name.clone())));
    let known = |part: &&Part| part.charted || ACCOUNTS.contains(&part.name.as_str());
    let named = given.footprint.accounts.iter().filter(known).filter_map(of);
    let mut all: BTreeSet<Account> = running(given, false).into_iter().chain(named).collect();
    let add_on = running(given, true);
    all.retain(|account| account.1.as_str() != "default" && !add_on.contains(account));
    all
}

/// Who else runs as an account: a template or a live pod that is not the installation's.
fn shared(given: Given<'_>, (namespace, account): &Account) -> Option<String> {
    let Given { estate, footprint, .. } = given;
    let own = |uid: &str| footprint.components.iter().any(|c| c.part.uid == uid);
    let mut templates = estate.templates.iter();
    let template = templates.find(|template| {
        (&template.namespace, &template.account) == (namespace, account) && !own(&template.uid)
    });
    // What made a pod may be of a kind that is not read.
    let mut pods = estate.pods.iter();
    let pod = pods.find(|pod| {
        !pod.gone
            && (&pod.namespace, &pod.account) == (namespace, account)
            && !surroundings::of_installation(given, pod)
    });
    template.map(EstateTemplate::key).or_else(|| pod.map(maker))
}

/// Whether a binding gives rights to accounts of the installation and to nobody else.
fn is_own(binding: &RoleBinding, accounts: &BTreeSet<Account>) -> bool {
    binding.others.is_empty()
        && !binding.accounts.is_empty()
        && binding.accounts.iter().all(|account| accounts.contains(account))
}

fn own_bindings<'a>(given: Given<'a>, accounts: &BTreeSet<Account>) -> Vec<&'a RoleBinding> {
    let bindings = given.footprint.role_bindings.iter();
    bindings.filter(|b| b.part.namespace.is_none() && is_own(b, accounts)).collect()
}

/// Why a role is the installation's, or why it stays; nothing to say of one that is neither.
fn role(given: Given<'_>, role: &Part, accounts: &BTreeSet<Account>) -> Result<(), String> {
    let to_it = || given.footprint.role_bindings.iter().filter(|b| b.role == role.name);
    if let Some(other) = to_it().find(|b| b.part.namespace.is_some() || !is_own(b, accounts)) {
        return Err(format!("role binding {} gives it to somebody else", other.part.at()));
    }
    let known = role.charted || ROLES.contains(&role.name.as_str()) || to_it().next().is_some();
    let why =
        "it names aadpodidentity.k8s.io, and nothing shows that it came with the installation";
    if known { Ok(()) } else { Err(why.to_owned()) }
}

/// Every object of the installation that is there.
pub(super) fn parts(given: Given<'_>) -> Vec<Part> {
    let Given { estate, footprint, .. } = given;
    let accounts = accounts(given);
    let free = |part: &&Part| {
        let key = part.namespace.clone().map(|n| (n, AccountName(part.name.clone())));
        key.is_some_and(|key| accounts.contains(&key) && shared(given, &key).is_none())
    };
    let in_add_on = |part: &Part| {
        let mut bindings = estate.bindings.iter();
        let binding = bindings.find(|b| part.kind == PartKind::Binding && b.uid == part.uid);
        let at = match binding {
            Some(binding) => format!("{}/{}", binding.namespace, binding.identity),
            None if part.kind == PartKind::Identity => part.at(),
            None => return false,
        };
        let held = estate.add_on.as_deref().unwrap_or_default();
        held.contains(&at)
    };
    let objects = footprint.definitions.iter().flat_map(|definition| &definition.objects);
    // What was assigned is MIC's to take back; what the add-on holds goes through ARM.
    let objects = objects.filter(|part| part.kind != PartKind::Assigned && !in_add_on(part));
    let components = footprint.components.iter().map(|component| &component.part);
    let components = components.filter(|part| !of_add_on(estate, part));
    let services = footprint.services.iter().map(|service| &service.part);
    let bindings = own_bindings(given, &accounts).into_iter().map(|binding| &binding.part);
    let roles = footprint.roles.iter().filter(|part| role(given, part, &accounts).is_ok());
    let definitions = footprint.definitions.iter().map(|definition| &definition.part);
    objects
        .chain(components)
        .chain(services)
        .chain(&footprint.records)
        .chain(bindings)
        .chain(roles)
        .chain(footprint.accounts.iter().filter(free))
        .chain(definitions)
        .cloned()
        .collect()
}

/// What stays, with the reason.
pub(super) fn kept(given: Given<'_>) -> Vec<Kept> {
    let footprint = given.footprint;
    let accounts = accounts(given);
    let mut kept = Vec::new();
    let mut keep = |what: String, why: String| kept.push(Kept { what, why });
    for part in &footprint.accounts {
        let key = part.namespace.clone().map(|n| (n, AccountName(part.name.clone())));
        if let Some(key) = key.filter(|key| accounts.contains(key))
            && let Some(who) = shared(given, &key)
        {
            keep(format!("ServiceAccount {}", part.at()), format!("{who} runs as it, too"));
        }
    }
    for binding in &footprint.role_bindings {
        let ours = binding.accounts.iter().any(|account| accounts.contains(account));
        if ours && !is_own(binding, &accounts) {
            let other = binding.accounts.iter().find(|account| !accounts.contains(account));
            let who = other.map(|(namespace, name)| format!("service account {namespace}/{name}"));
            let who = who.or_else(|| binding.others.first().cloned()).unwrap_or_default();
            let kind = if binding.part.namespace.is_none() { "Cluster" } else { "" };
            let what = format!("{kind}RoleBinding {}", binding.part.at());
            keep(what, format!("it also gives {} to {who}", binding.role));
        }
    }
    // AKS takes these away with its add-on.
    let add_on = running(given, true);
    let aks = |part: &Part| {
        let mut to_it = footprint.role_bindings.iter().filter(|b| b.role == part.name).peekable();
        to_it.peek().is_some() && to_it.all(|binding| is_own(binding, &add_on))
    };
    for part in footprint.roles.iter().filter(|part| !aks(part)) {
        if let Err(why) = role(given, part, &accounts) {
            keep(format!("ClusterRole {}", part.name), why);
        }
    }
    kept.sort();
    kept
}
