//! `[clusters.*]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{Problems, ids, names};
use crate::{
    config::{
        code::Code,
        diagnostic::Diagnostic,
        raw,
        source::{Located, Sources, Span},
    },
    model::{
        Audience, ClusterName,
        desired::{Access, DesiredCluster, Feature},
    },
};

/// The clusters by name; one with a problem is there without a value, so that workloads may name
/// it.
pub(super) type Clusters = BTreeMap<ClusterName, Option<DesiredCluster>>;

/// What an AKS id looks like.
const ID: &str = "it has the form /subscriptions/<GUID>/resourceGroups/<group>/providers/\
                  Microsoft.ContainerService/managedClusters/<name>: az aks show --query id";

pub(super) fn clusters(
    raw: &[(Located<String>, raw::Cluster)],
    directory: &Path,
    sources: &Sources,
    problems: &mut Problems,
) -> Clusters {
    let mut clusters = Clusters::new();
    let mut ids: BTreeMap<String, (Span, &str)> = BTreeMap::new();
    for (name, cluster) in raw {
        let good = super::name(name, "cluster", names::cluster, Code::InvalidName, problems);
        let checked = check(name, cluster, directory, sources, problems);
        if let (Some(checked), Some(id)) = (&checked, &cluster.id) {
            let key = checked.id.key().to_owned();
            if let Some((first, other)) = ids.get(&key) {
                problems.push(
                    Diagnostic::at(
                        Code::DuplicateCluster,
                        id.span,
                        format!("clusters `{other}` and `{}` have the same id", name.value),
                    )
                    .also(*first, "first here"),
                );
            } else {
                ids.insert(key, (id.span, &name.value));
            }
        }
        clusters.insert(ClusterName::from(name.value.as_str()), good.and(checked));
    }
    clusters
}

fn check(
    name: &Located<String>,
    raw: &raw::Cluster,
    directory: &Path,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<DesiredCluster> {
    let cluster =
        |text: &str| ids::resource(text, "Microsoft.ContainerService/managedClusters", "a cluster");
    let id = raw.id.as_ref().and_then(|id| ids::checked(id, "id", ID, cluster, problems));
    let access = access(raw, directory, problems);
    let audience = match &raw.audience {
        None => Some(Audience::default()),
        Some(text) => audience(text, problems),
    };
    Some(DesiredCluster {
        name: ClusterName::from(name.value.as_str()),
        id: id?,
        enable: features(raw.enable.as_ref(), problems),
        audience: audience?,
        access: access?,
        origin: sources.origin(raw.span),
    })
}

fn access(raw: &raw::Cluster, directory: &Path, problems: &mut Problems) -> Option<Access> {
    if let Some(access) = raw.access.as_ref().filter(|access| access.value == raw::Access::None) {
        if let Some(way) = raw.context.as_ref().or(raw.kubeconfig.as_ref()) {
            problems.push(
                Diagnostic::at(
                    Code::ContextWithoutAccess,
                    way.span,
                    "a way to reach a cluster that is not to be reached",
                )
                .also(access.span, "the cluster is left alone here")
                .help("remove one of the two"),
            );
            return None;
        }
        return Some(Access::None);
    }
    if let Some(context) = raw.context.as_ref().filter(|context| context.value.is_empty()) {
        problems.push(
            Diagnostic::at(Code::InvalidValue, context.span, "`context` is empty")
                .help("leave it out to connect with server and CA from Azure"),
        );
        return None;
    }
    let kubeconfig = match &raw.kubeconfig {
        None => None,
        Some(file) => Some(super::path(file, directory, "kubeconfig", problems)?),
    };
    if raw.context.is_none() && kubeconfig.is_none() {
        return Some(Access::Azure);
    }
    Some(Access::Context {
        context: raw.context.as_ref().map(|context| context.value.clone()),
        kubeconfig: kubeconfig.map(|path| path.display().to_string()),
    })
}

fn features(
    raw: Option<&Located<Vec<Located<raw::Feature>>>>,
    problems: &mut Problems,
) -> BTreeSet<Feature> {
    let mut features = BTreeSet::new();
    for feature in raw.map(|list| list.value.as_slice()).unwrap_or_default() {
        let value = match feature.value {
            raw::Feature::OidcIssuer => Feature::OidcIssuer,
            raw::Feature::WorkloadIdentity => Feature::WorkloadIdentity,
        };
        if !features.insert(value) {
            problems.push(Diagnostic::at(
                Code::DuplicateValue,
                feature.span,
                format!("`{}` is there twice", value.as_str()),
            ));
        }
    }
    features
}

fn audience(text: &Located<String>, problems: &mut Problems) -> Option<Audience> {
    let written = text.value.as_str();
    if written.is_empty()
        || written.chars().count() > 600
        || written.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        problems.push(
            Diagnostic::at(
                Code::InvalidAudience,
                text.span,
                "an audience has 1 to 600 characters and no white space",
            )
            .help(format!("leave it out for `{}`", Audience::DEFAULT)),
        );
        return None;
    }
    // Documented for credentials of those clouds; the webhook's tokens have the public one.
    if ["api://AzureADTokenExchangeUSGov", "api://AzureADTokenExchangeChina"].contains(&written) {
        problems.push(
            Diagnostic::at(
                Code::UnusualAudience,
                text.span,
                format!("the AKS webhook asks tokens for `{}` in every cloud", Audience::DEFAULT),
            )
            .label("matches only where the webhook was told so")
            .help("leave `audience` out unless this cluster runs its own webhook"),
        );
    }
    Some(Audience::from(written))
}
