//! Which pod templates and pods make up a workload: those of one service account that Pod Identity
//! answers, or answered.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{matching, survey::account_of};
use crate::model::{
    AccountName, Namespace,
    pod_identity::{Backup, Estate, EstatePod, EstateTemplate, PodIdentity},
};

/// Namespace and account.
pub(super) type Key<'a> = (&'a Namespace, &'a AccountName);

/// What runs as one account.
#[derive(Default)]
pub(super) struct Group<'a> {
    pub(super) templates: Vec<&'a EstateTemplate>,
    pub(super) pods: Vec<&'a EstatePod>,
}

/// Every group, and what was left out of them.
pub(super) struct Groups<'a> {
    pub(super) all: BTreeMap<Key<'a>, Group<'a>>,
    /// Templates whose label gives them no identity today, while their account is another
    /// template's workload: moved with it they would be given its identity.
    pub(super) left_out: Vec<&'a EstateTemplate>,
}

pub(super) fn backup_of<'a>(
    estate: &'a Estate,
    (namespace, account): Key<'_>,
) -> Option<&'a Backup> {
    estate.backups.iter().find(|b| b.namespace == *namespace && b.account == *account)
}

/// Templates and pods of every account that Pod Identity answers or answered for. What its label
/// gives no identity is a workload only where nothing else of its account is one.
pub(super) fn groups(estate: &Estate) -> Groups<'_> {
    let mut all: BTreeMap<Key<'_>, Group<'_>> = BTreeMap::new();
    let mut unanswered: BTreeMap<Key<'_>, Group<'_>> = BTreeMap::new();
    // What was not seen may be there; a list is read whole or not at all.
    let hidden = !estate.is_seen() && (estate.bindings.is_empty() || estate.identities.is_empty());
    let answers = |namespace: &Namespace, selector: &str| {
        hidden || matching::gives(estate, namespace, selector)
    };
    let live = || estate.pods.iter().filter(|pod| !pod.gone);
    for template in &estate.templates {
        let key = (&template.namespace, &template.account);
        let backed = || {
            let of = |b: &Backup| b.templates.iter().any(|t| t.key == template.key());
            backup_of(estate, key).is_some_and(of)
        };
        let pointed = || template.labelled() && is_pointed(estate, key);
        // A running pod may carry a label that its template has lost.
        let own = live().filter(|pod| (&pod.namespace, &pod.account) == key);
        let own = own.filter(|pod| template.stamps(pod)).filter_map(EstatePod::selector);
        let labels: BTreeSet<&str> = template.selector().into_iter().chain(own).collect();
        if labels.iter().any(|label| answers(key.0, label)) || backed() || pointed() {
            all.entry(key).or_default().templates.push(template);
        } else if !labels.is_empty() {
            unanswered.entry(key).or_default().templates.push(template);
        }
    }
    for pod in live() {
        let key = (&pod.namespace, &pod.account);
        let stamped = estate.templates.iter().any(|template| template.stamps(pod));
        if let Some(selector) = pod.selector().filter(|_| !stamped) {
            let groups = if answers(key.0, selector) { &mut all } else { &mut unanswered };
            groups.entry(key).or_default().pods.push(pod);
            continue;
        }
        for groups in [&mut all, &mut unanswered] {
            if let Some(group) = groups.get_mut(&key)
                && group.templates.iter().any(|template| template.stamps(pod))
            {
                group.pods.push(pod);
            }
        }
    }
    let mut left_out = Vec::new();
    for (key, group) in unanswered {
        match all.entry(key) {
            Entry::Vacant(place) => drop(place.insert(group)),
            Entry::Occupied(_) => left_out.extend(group.templates),
        }
    }
    Groups { all, left_out }
}

/// Whether the account is annotated with the client id of an `AzureIdentity`: of any, or, while a
/// template of the account still carries the old label, of one that this label reaches.
fn is_pointed(estate: &Estate, key: Key<'_>) -> bool {
    let Some(client) = account_of(estate, key).and_then(|a| a.client_id.as_deref()) else {
        return false;
    };
    let is = |identity: &PodIdentity| identity.client_id.trim().eq_ignore_ascii_case(client);
    let labelled = estate.templates.iter().filter(|t| (&t.namespace, &t.account) == key);
    let selectors: BTreeSet<&str> = labelled.filter_map(EstateTemplate::selector).collect();
    if selectors.is_empty() {
        return estate.identities.iter().any(is);
    }
    let reached = selectors.iter().flat_map(|s| matching::reached(estate, key.0, s));
    reached.filter_map(|reached| reached.identity).any(is)
}
