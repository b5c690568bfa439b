//! Which versions a server serves of the kinds that have more than one, or may be absent.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Client, KubeError, client::Ask};
use crate::model::snapshot::TemplateKind;

/// Versions found by discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Versions {
    /// `batch/v1`, or `batch/v1beta1` on servers before 1.21; none where neither is served.
    pub cron_job: Option<&'static str>,
    /// `argoproj.io/v1alpha1` where Argo Rollouts is installed.
    pub rollout: Option<&'static str>,
    /// The preferred version of every group that is not Kubernetes' own, nor Pod Identity's.
    pub custom: Vec<String>,
}

/// The groups of Kubernetes itself and of metrics: the kinds among them that make pods are read by
/// name.
///
/// Source: Kubernetes documentation, "API Reference".
const BUILT_IN: [&str; 29] = [
    "aadpodidentity.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "auditregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "custom.metrics.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "external.metrics.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "metrics.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "settings.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

#[derive(Deserialize)]
pub(super) struct ResourceList {
    #[serde(default)]
    pub resources: Vec<Resource>,
}

#[derive(Deserialize)]
pub(super) struct Resource {
    /// The plural, with the subresource behind a slash.
    pub name: String,
    /// What may be done with it, `list` for one.
    #[serde(default)]
    pub verbs: Vec<String>,
}

/// `APIGroupList`, which every server has: what it does not name is not served, whereas a 404 at a
/// group's own path may come from something before the server.
#[derive(Deserialize)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<GroupVersion>,
    preferred_version: Option<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

impl Versions {
    pub(super) async fn discover(client: &Client) -> Result<Self, KubeError> {
        let list: GroupList = client.ask(&Ask::get("/apis")).await?;
        let versions = list.groups.iter().flat_map(|group| &group.versions);
        let known: BTreeSet<&str> = versions.map(|v| v.group_version.as_str()).collect();
        let serves = async |version: &'static str, plural: &'static str| {
            if !known.contains(version) {
                return Ok(None);
            }
            let list: ResourceList = client.ask(&Ask::get(format!("/apis/{version}"))).await?;
            let there = list.resources.iter().any(|resource| resource.name == plural);
            Ok::<_, KubeError>(there.then_some(version))
        };
        let batch = async {
            match serves("batch/v1", "cronjobs").await? {
                None => serves("batch/v1beta1", "cronjobs").await,
                found => Ok(found),
            }
        };
        let (cron_job, rollout) =
            futures::try_join!(batch, serves("argoproj.io/v1alpha1", "rollouts"))?;
        let custom = list.groups.iter().filter(|group| !BUILT_IN.contains(&group.name.as_str()));
        let custom = custom
            .filter_map(|group| group.preferred_version.as_ref().or(group.versions.first()))
            .map(|version| version.group_version.clone())
            .collect();
        Ok(Self { cron_job, rollout, custom })
    }

    /// The kinds to list, with the version and plural of each.
    pub(super) fn kinds(&self) -> Vec<(TemplateKind, &'static str)> {
        let mut kinds = vec![
            (TemplateKind::Deployment, "apps/v1"),
            (TemplateKind::StatefulSet, "apps/v1"),
            (TemplateKind::DaemonSet, "apps/v1"),
        ];
        kinds.extend(self.cron_job.map(|version| (TemplateKind::CronJob, version)));
        kinds.extend(self.rollout.map(|version| (TemplateKind::Rollout, version)));
        kinds
    }
}

/// The plural of a kind, as it stands in paths.
pub(super) fn plural(kind: TemplateKind) -> &'static str {
    match kind {
        TemplateKind::Deployment => "deployments",
        TemplateKind::StatefulSet => "statefulsets",
        TemplateKind::DaemonSet => "daemonsets",
        TemplateKind::CronJob => "cronjobs",
        TemplateKind::Rollout => "rollouts",
        TemplateKind::ReplicaSet => "replicasets",
        TemplateKind::ReplicationController => "replicationcontrollers",
        TemplateKind::Job => "jobs",
        TemplateKind::Pod => "pods",
    }
}

/// The kind as manifests write it.
pub(super) fn kind_name(kind: TemplateKind) -> &'static str {
    match kind {
        TemplateKind::Deployment => "Deployment",
        TemplateKind::StatefulSet => "StatefulSet",
        TemplateKind::DaemonSet => "DaemonSet",
        TemplateKind::CronJob => "CronJob",
        TemplateKind::Rollout => "Rollout",
        TemplateKind::ReplicaSet => "ReplicaSet",
        TemplateKind::ReplicationController => "ReplicationController",
        TemplateKind::Job => "Job",
        TemplateKind::Pod => "Pod",
    }
}

/// The path of a collection: `/apis/apps/v1[/namespaces/<ns>]/deployments`. The core group's
/// version is written `v1`.
pub(super) fn collection(version: &str, namespace: Option<&str>, plural: &str) -> String {
    let root = if version.contains('/') { "/apis" } else { "/api" };
    let namespace =
        namespace.map(|n| format!("/namespaces/{}", super::client::segment(n))).unwrap_or_default();
    format!("{root}/{version}{namespace}/{plural}")
}

impl Client {
    /// The server's version, for example `v1.33.2`.
    pub async fn version(&self) -> Result<String, KubeError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Info {
            git_version: String,
        }
        let info: Info = self.ask(&Ask::get("/version")).await?;
        Ok(info.git_version)
    }
}
