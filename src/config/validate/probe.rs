//! `probe`: a data-plane request that shows that the grants work.

use std::collections::BTreeSet;

use super::{Problems, azure, ids, workloads::Surroundings};
use crate::{
    config::{
        checked::{Cloud, Grant},
        code::Code,
        diagnostic::Diagnostic,
        raw,
        source::{Located, Span},
    },
    model::{
        ArmId,
        desired::{Probe, ProbeKind},
    },
};

/// The probe as the model has it.
pub(super) fn probe(
    raw: &raw::Probe,
    grants: &[(Span, Grant)],
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Probe> {
    match raw {
        raw::Probe::Full(full) => {
            let (kind, text) = (full.kind.as_ref()?, full.url.as_ref()?);
            if kind.value == raw::ProbeKind::ResourceManager {
                let help = "write the id of a resource";
                let id = ids::checked(text, "url", help, ids::scope, problems)?;
                let origin = around.sources.origin(full.span);
                return Some(Probe { kind: model(kind.value), url: id.to_string(), origin });
            }
            azure::url(&text.value, text.span, "url", problems)?;
            Some(Probe {
                kind: model(kind.value),
                url: text.value.trim_end_matches('/').to_owned(),
                origin: around.sources.origin(full.span),
            })
        }
        raw::Probe::Kind(kind) => {
            let url = match kind.value {
                raw::ProbeKind::ResourceManager => target(kind, grants, problems)?,
                raw::ProbeKind::KeyVault
                | raw::ProbeKind::Blob
                | raw::ProbeKind::AppConfiguration => from_grants(kind, grants, around, problems)?,
            };
            Some(Probe { kind: model(kind.value), url, origin: around.sources.origin(kind.span) })
        }
    }
}

fn model(kind: raw::ProbeKind) -> ProbeKind {
    match kind {
        raw::ProbeKind::KeyVault => ProbeKind::KeyVault,
        raw::ProbeKind::Blob => ProbeKind::Blob,
        raw::ProbeKind::AppConfiguration => ProbeKind::AppConfiguration,
        raw::ProbeKind::ResourceManager => ProbeKind::ResourceManager,
    }
}

fn unclear(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::at(Code::ProbeUnclear, span, message.into())
        .help("write `probe = { kind = \"…\", url = \"…\" }`")
}

/// The id of the one target that the workload has a grant on.
fn target(
    kind: &Located<raw::ProbeKind>,
    grants: &[(Span, Grant)],
    problems: &mut Problems,
) -> Option<String> {
    let scopes: BTreeSet<&ArmId> = grants.iter().map(|(_, grant)| &grant.scope).collect();
    let mut scopes = scopes.into_iter();
    let why = match (scopes.next(), scopes.next()) {
        (Some(only), None) => return Some(only.to_string()),
        (None, _) => "the workload has no grant on a target to read",
        (Some(_), Some(_)) => "the workload has grants on more than one target",
    };
    problems.push(unclear(kind.span, why));
    None
}

/// The host's suffix in a cloud. Source: Microsoft documentation on endpoints of the national
/// clouds.
fn suffix(kind: raw::ProbeKind, cloud: &Cloud) -> Option<&'static str> {
    match (kind, cloud) {
        (raw::ProbeKind::KeyVault, Cloud::Public) => Some("vault.azure.net"),
        (raw::ProbeKind::KeyVault, Cloud::UsGovernment) => Some("vault.usgovcloudapi.net"),
        (raw::ProbeKind::KeyVault, Cloud::China) => Some("vault.azure.cn"),
        (raw::ProbeKind::Blob, Cloud::Public) => Some("blob.core.windows.net"),
        (raw::ProbeKind::Blob, Cloud::UsGovernment) => Some("blob.core.usgovcloudapi.net"),
        (raw::ProbeKind::Blob, Cloud::China) => Some("blob.core.chinacloudapi.cn"),
        (raw::ProbeKind::AppConfiguration, Cloud::Public) => Some("azconfig.io"),
        (raw::ProbeKind::AppConfiguration, Cloud::UsGovernment) => Some("azconfig.azure.us"),
        (raw::ProbeKind::AppConfiguration, Cloud::China) => Some("azconfig.azure.cn"),
        (raw::ProbeKind::ResourceManager, _) | (_, Cloud::Custom { .. }) => None,
    }
}

/// The URL of the one vault or account that the workload has a grant on.
fn from_grants(
    kind: &Located<raw::ProbeKind>,
    grants: &[(Span, Grant)],
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<String> {
    let (wanted, segment, what) = match kind.value {
        raw::ProbeKind::KeyVault => ("microsoft.keyvault/vaults", "/vaults/", "vault"),
        raw::ProbeKind::Blob => {
            ("microsoft.storage/storageaccounts", "/storageaccounts/", "storage account")
        }
        raw::ProbeKind::AppConfiguration => (
            "microsoft.appconfiguration/configurationstores",
            "/configurationstores/",
            "configuration store",
        ),
        raw::ProbeKind::ResourceManager => return None,
    };
    let name = |grant: &Grant| {
        let found = grant.scope.resource_type()?;
        let below = found.strip_prefix(wanted)?;
        if !below.is_empty() && !below.starts_with('/') {
            return None;
        }
        let key = grant.scope.key();
        let at = key.find(segment)? + segment.len();
        key[at..].split('/').next().map(str::to_owned)
    };
    let names: BTreeSet<String> = grants.iter().filter_map(|(_, grant)| name(grant)).collect();
    let mut names = names.into_iter();
    let name = match (names.next(), names.next()) {
        (Some(name), None) => name,
        (None, _) => {
            problems.push(unclear(
                kind.span,
                format!("the workload has no grant on a {what} to probe"),
            ));
            return None;
        }
        (Some(_), Some(_)) => {
            problems.push(unclear(
                kind.span,
                format!("the workload has grants on more than one {what}"),
            ));
            return None;
        }
    };
    let Some(suffix) = suffix(kind.value, around.azure.cloud.as_ref()?) else {
        problems.push(unclear(kind.span, "the hosts of this cloud's services are not known"));
        return None;
    };
    Some(format!("https://{name}.{suffix}"))
}
