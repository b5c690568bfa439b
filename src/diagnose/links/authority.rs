//! The authority that tokens are asked at must be of the cluster's cloud.
//!
//! Sources: Azure Workload Identity documentation and `pkg/webhook` on authority hosts; AKS
//! documentation on the API server addresses of the national clouds.

use super::{manifest::unset, pods::roll, template::words};
use crate::{
    diagnose::{
        evidence::{DryRun, Template},
        facts::Facts,
        link::{Fix, State},
    },
    model::{cloud::Cloud, snapshot::ObservedPod},
};

/// The cloud of the cluster, or, where its record was not read, the one that the webhook writes.
fn ours(facts: &Facts<'_>) -> Option<Cloud> {
    let record = facts.evidence.cluster.present();
    let fqdn = record.and_then(|arm| arm.fqdn.as_deref().or(arm.private_fqdn.as_deref()));
    fqdn.and_then(Cloud::of_server).or_else(|| Cloud::of_authority(tried(facts)?))
}

/// The authority that admission writes into a pod.
fn tried<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    match facts.evidence.dry_run.present()? {
        DryRun::Admitted(injected) => injected.authority_hosts.first().map(String::as_str),
        DryRun::Denied(_) => None,
    }
}

fn broken(message: String, fix: Fix) -> State {
    State::broken("authority-other-cloud", message, fix)
}

/// An authority that the manifest writes out.
pub(super) fn of_manifest(facts: &Facts<'_>, template: &Template) -> Option<State> {
    let cloud = ours(facts)?;
    let literals = template.seen.literal_env.iter();
    let mut set = literals.filter(|(_, variable, _)| variable == "AZURE_AUTHORITY_HOST");
    let (container, value, other) = set.find_map(|(container, _, value)| {
        let value = value.as_deref()?;
        Some((container, value, Cloud::of_authority(value).filter(|other| *other != cloud)?))
    })?;
    Some(broken(
        format!(
            "container {container} of {} sets AZURE_AUTHORITY_HOST to {value}, of {}; the cluster \
             is in {}, and the webhook never changes a variable that is set",
            words(facts, template),
            other.words(),
            cloud.words()
        ),
        unset(facts, template, container, "AZURE_AUTHORITY_HOST"),
    ))
}

/// The authority in a live pod.
pub(super) fn of_pod(facts: &Facts<'_>, pod: &ObservedPod) -> Option<State> {
    let cloud = ours(facts)?;
    let (host, other) = pod.injected.authority_hosts.iter().find_map(|host| {
        Some((host, Cloud::of_authority(host).filter(|other| *other != cloud)?))
    })?;
    let message = format!(
        "pod {} asks {host} for tokens, of {}; the cluster is in {}",
        pod.name,
        other.words(),
        cloud.words()
    );
    let still = tried(facts).and_then(Cloud::of_authority) == Some(other);
    let fix = if still {
        Fix::advice("set AZURE_ENVIRONMENT of the webhook's settings to the cluster's cloud")
    } else {
        roll(facts)
    };
    Some(broken(message, fix))
}
