//! The walk along the chain.

use std::collections::BTreeMap;

use super::{
    evidence::Evidence,
    facts::Facts,
    link::{Checked, Diagnosis, Link, State},
    links::{
        access, account, annotations, cluster, credential, exchange, identity, pods, template,
        webhook,
    },
};

/// Judges every link of one workload in order. What depends on a broken link is not reached; what
/// could not be seen does not stop the walk.
pub fn chain(evidence: &Evidence) -> Diagnosis {
    let mut facts = Facts::of(evidence);
    let mut seen: BTreeMap<Link, State> = BTreeMap::new();
    for link in Link::ALL {
        let state = match root(&seen, link) {
            Some(because) => State::NotReached { because },
            None => judge(link, &mut facts),
        };
        seen.insert(link, state);
    }
    let links = seen.into_iter().map(|(link, state)| Checked { link, state }).collect();
    Diagnosis { workload: facts.address(), links, live_pods: facts.live_pods, notes: facts.notes }
}

/// The broken link that `link` waits for.
fn root(seen: &BTreeMap<Link, State>, link: Link) -> Option<Link> {
    link.needs().iter().find_map(|need| match seen.get(need)? {
        State::Broken(_) => Some(*need),
        State::NotReached { because } => Some(*because),
        State::Holds { .. } | State::CouldNotSee { .. } => None,
    })
}

fn judge(link: Link, facts: &mut Facts<'_>) -> State {
    match link {
        Link::Cluster => cluster::cluster(facts),
        Link::Issuer => cluster::issuer(facts),
        Link::Discovery => cluster::discovery(facts),
        Link::Webhook => webhook::webhook(facts),
        Link::Template => template::template(facts),
        Link::Account => account::account(facts),
        Link::Annotations => annotations::annotations(facts),
        Link::Pods => pods::pods(facts),
        Link::Token => exchange::token(facts),
        Link::Identity => identity::identity(facts),
        Link::Credential => credential::credential(facts),
        Link::Exchange => exchange::exchange(facts),
        Link::Role => access::role(facts),
        Link::Target => access::target(facts),
        Link::Probe => access::probe(facts),
    }
}
