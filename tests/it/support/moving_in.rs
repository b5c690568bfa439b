//! A recorded estate as a town, in which the commands can be run to their end.

use std::collections::{BTreeMap, BTreeSet};

use widentity::model::{
    AccountName, ClusterName, Namespace,
    desired::{DesiredWorkload, Feature},
    names,
    pod_identity::{AzureIdentityState, Estate, EstatePod, EstateTemplate},
    snapshot::*,
};

use super::{
    fake::{guid, present},
    town::{self, CLUSTER, PodIdentities, Town},
    worlds,
};

/// A town with this estate and these workloads in its file.
pub(crate) fn town(estate: &Estate, workloads: &[DesiredWorkload], may_enable: bool) -> Town {
    let mut base = worlds::desired(&[CLUSTER]);
    let name = ClusterName::from(CLUSTER);
    base.workloads = workloads.to_vec();
    for workload in &mut base.workloads {
        workload.clusters = vec![name.clone()];
        workload.selected = [name.clone()].into();
        // Identities of the recordings are of one tenant.
        base.tenant = workload.tenant;
    }
    if may_enable {
        let both = [Feature::OidcIssuer, Feature::WorkloadIdentity];
        base.clusters.get_mut(&name).unwrap().enable = both.into();
    }
    let mut world = worlds::bare_world(&worlds::desired(&[CLUSTER]));
    let have = inhabited(estate, &mut world, &name);
    for (id, state) in &estate.azure {
        let (identity, credentials) = match state {
            AzureIdentityState::Present(identity, credentials) => {
                (Observation::Present(identity.clone()), Observation::Present(credentials.clone()))
            }
            AzureIdentityState::Gone => (Observation::Absent, Observation::Absent),
            AzureIdentityState::Unknown(failure) => {
                (Observation::Unknown(failure.clone()), Observation::Unknown(failure.clone()))
            }
        };
        if let Observation::Present(identity) = &identity {
            base.tenant = identity.tenant_id;
        }
        world.identities.insert(id.clone(), identity);
        world.credentials.insert(id.clone(), credentials);
    }
    let mut town = Town::new(base, world, have);
    town.fake.other_issuers.extend(estate.issuer.clone().map(|issuer| (name, issuer)));
    town
}

fn inhabited(estate: &Estate, world: &mut Snapshot, name: &ClusterName) -> PodIdentities {
    let cluster = world.clusters.get_mut(name).unwrap();
    let arm = present(&mut cluster.arm);
    arm.issuer.clone_from(&estate.issuer);
    arm.workload_identity = estate.workload_identity;
    let seen = present(&mut cluster.kubernetes);
    seen.evidence.issuer = estate.issuer.clone().map_or(Observation::Absent, Observation::Present);
    let mut have = PodIdentities {
        identities: estate.identities.clone(),
        bindings: estate.bindings.clone(),
        installs: estate.installs.clone(),
        add_on: estate.add_on.clone(),
        backups: estate.backups.clone(),
        ..PodIdentities::default()
    };
    for (n, identity) in have.identities.iter_mut().enumerate() {
        identity.uid = format!("identity-{n}");
    }
    for (n, binding) in have.bindings.iter_mut().enumerate() {
        binding.uid = format!("binding-{n}");
    }
    let stamps =
        |pod: &&EstatePod| estate.templates.iter().any(|t| t.kind.writable() && t.stamps(pod));
    have.rest = Estate {
        pods: estate.pods.iter().filter(|pod| !stamps(pod)).cloned().collect(),
        templates: estate.templates.iter().filter(|t| !t.kind.writable()).cloned().collect(),
        version: estate.version.clone(),
        pod_security: estate.pod_security.clone(),
        busy: estate.busy.clone(),
        exceptions: estate.exceptions.clone(),
        secret_classes: estate.secret_classes.clone(),
        triggers: estate.triggers.clone(),
        ..Estate::default()
    };
    let places = estate.templates.iter().map(|t| &t.namespace);
    let places: BTreeSet<&Namespace> =
        places.chain(estate.accounts.iter().map(|account| &account.namespace)).collect();
    for place in places {
        seen.namespaces.insert(place.clone(), Observation::Present(()));
        let accounts = accounts(estate, place);
        seen.accounts.insert(place.clone(), Observation::Present(accounts));
        let (mut templates, mut pods) = (Vec::new(), Vec::new());
        let here = estate.templates.iter().filter(|t| t.namespace == *place && t.kind.writable());
        for old in here {
            have.traits.insert((place.clone(), old.key()), old.clone());
            let new = template(old);
            pods.extend(self::pods(estate, old, &new, &mut have.labels));
            templates.push(new);
        }
        seen.templates.insert(place.clone(), Observation::Present(templates));
        seen.pods.insert(place.clone(), Observation::Present(pods));
    }
    have
}

/// The accounts of a namespace: those that were recorded, and those that a template names.
fn accounts(estate: &Estate, place: &Namespace) -> BTreeMap<AccountName, ObservedAccount> {
    let bare = |name: &AccountName| ObservedAccount {
        uid: guid(&format!("account {place} {name}")).to_string(),
        meta: ObjectMeta::default(),
    };
    let named = estate.templates.iter().filter(|t| t.namespace == *place).map(|t| &t.account);
    let mut found: BTreeMap<_, _> = named.map(|name| (name.clone(), bare(name))).collect();
    for account in estate.accounts.iter().filter(|a| a.namespace == *place) {
        let own = found.entry(account.name.clone()).or_insert_with(|| bare(&account.name));
        if let Some(client) = &account.client_id {
            let key = names::CLIENT_ID_ANNOTATION.to_owned();
            own.meta.annotations.insert(key, client.clone());
        }
        if let Some(by) = &account.kept_by {
            town::keep(&mut own.meta, by);
        }
    }
    found
}

fn template(old: &EstateTemplate) -> ObservedTemplate {
    let mut meta = ObjectMeta::default();
    if let Some(by) = &old.kept_by {
        town::keep(&mut meta, by);
    }
    if old.written.is_some() {
        meta.annotations.insert(names::PROJECT_ANNOTATION.to_owned(), worlds::PROJECT.to_owned());
    }
    let desired = match old.kind {
        TemplateKind::CronJob => 0,
        _ => old.replicas.unwrap_or(2),
    };
    ObservedTemplate {
        kind: old.kind,
        uid: guid(&format!("template {} {}", old.namespace, old.key())).to_string(),
        meta,
        labels: old.labels.clone(),
        annotations: old.annotations.clone(),
        host_network: old.host_network,
        windows: old.windows,
        strategy: old.strategy,
        progress: Progress {
            generation: 1,
            observed_generation: 1,
            desired,
            updated: if old.complete { desired } else { 0 },
            total: desired,
            available: desired,
            ..Progress::default()
        },
        ..worlds::template(&old.name, &old.account)
    }
}

/// The pods of a template. Where none were recorded of one that is on the old path, they are as
/// its controller would make them.
fn pods(
    estate: &Estate,
    old: &EstateTemplate,
    new: &ObservedTemplate,
    labels: &mut BTreeMap<String, BTreeMap<String, String>>,
) -> Vec<ObservedPod> {
    let recorded: Vec<&EstatePod> = estate.pods.iter().filter(|pod| old.stamps(pod)).collect();
    if recorded.is_empty() && !old.labelled() {
        let count = usize::try_from(new.progress.desired).unwrap();
        return (0..count).map(|n| worlds::pod(new, n, &Injected::default())).collect();
    }
    let pod = |pod: &EstatePod| {
        labels.insert(pod.name.clone(), pod.labels.clone());
        let phase = match (pod.gone && !pod.ending, pod.succeeded) {
            (true, true) => "Succeeded",
            (true, false) => "Failed",
            (false, _) => "Running",
        };
        let owner = pod.controller.as_ref().and_then(|controller| controller.split_once('/'));
        ObservedPod {
            name: pod.name.clone(),
            account: pod.account.clone(),
            controller: owner.map(|(kind, name)| (kind.to_owned(), name.to_owned())),
            revision: Some(pod.name.clone()),
            labelled: old.labelled(),
            phase: phase.to_owned(),
            ready: pod.ready,
            deleting: pod.ending,
            created: pod.created,
            ..worlds::pod(
                new,
                0,
                &Injected {
                    present: !pod.client_ids.is_empty(),
                    client_ids: pod.client_ids.clone(),
                    proxied: pod.proxied,
                    ..Injected::default()
                },
            )
        }
    };
    recorded.into_iter().map(pod).collect()
}
