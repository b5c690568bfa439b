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
    model::snapshot::ObservedPod,
};

/// The clouds that can be mistaken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloud {
    Public,
    UsGovernment,
    China,
}

impl Cloud {
    fn words(self) -> &'static str {
        match self {
            Self::Public => "the public cloud",
            Self::UsGovernment => "Azure Government",
            Self::China => "Azure in China",
        }
    }

    /// The cloud of an authority; none for a host of one's own.
    fn of_authority(url: &str) -> Option<Self> {
        let rest = url.trim().trim_start_matches("https://");
        let host = rest.split(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
        match host.as_str() {
            "login.microsoftonline.com" | "login.microsoft.com" | "login.windows.net" => {
                Some(Self::Public)
            }
            "login.microsoftonline.us" => Some(Self::UsGovernment),
            "login.chinacloudapi.cn" | "login.partner.microsoftonline.cn" => Some(Self::China),
            _ => None,
        }
    }

    /// The cloud of an AKS API server.
    fn of_server(fqdn: &str) -> Option<Self> {
        let suffix = |end: &str| fqdn.to_ascii_lowercase().ends_with(end);
        if suffix(".azmk8s.io") {
            Some(Self::Public)
        } else if suffix(".azure.us") {
            Some(Self::UsGovernment)
        } else if suffix(".azk8s.cn") || suffix(".azure.cn") {
            Some(Self::China)
        } else {
            None
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_told_by_their_hosts() {
        let public = Some(Cloud::Public);
        assert_eq!(Cloud::of_authority("https://login.microsoftonline.com/"), public);
        assert_eq!(Cloud::of_authority("https://LOGIN.windows.net"), public);
        assert_eq!(
            Cloud::of_authority("https://login.microsoftonline.us/"),
            Some(Cloud::UsGovernment)
        );
        assert_eq!(Cloud::of_authority("https://127.0.0.1:4443/"), None);
        assert_eq!(Cloud::of_server("x.hcp.westeurope.azmk8s.io"), public);
        assert_eq!(Cloud::of_server("x.internal"), None);
    }
}
