//! What was read from the API server of a cluster.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Observation;
use crate::model::{AccountName, Audience, Issuer, Namespace, names};

/// What the API server of one cluster says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KubernetesSnapshot {
    /// What tells whether this is the cluster of ARM's record.
    pub evidence: Evidence,
    /// The server's version, `v1.33.2`.
    pub version: String,
    /// Namespaces of the file that exist. A namespace is looked up by name where listing is denied.
    pub namespaces: BTreeMap<Namespace, Observation<()>>,
    /// Service accounts, by namespace.
    pub accounts: BTreeMap<Namespace, Observation<BTreeMap<AccountName, ObservedAccount>>>,
    /// Pod templates, by namespace.
    pub templates: BTreeMap<Namespace, Observation<Vec<ObservedTemplate>>>,
    /// Live pods, by namespace.
    pub pods: BTreeMap<Namespace, Observation<Vec<ObservedPod>>>,
    /// The workload identity webhook.
    pub webhook: Observation<ObservedWebhook>,
    /// The Pod Security level that a namespace enforces, where its label says one and could be
    /// read: `restricted`, `baseline`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_security: BTreeMap<Namespace, String>,
}

/// What tells one API server from another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The host that is talked to.
    pub host: String,
    /// The issuer of the server's discovery document.
    pub issuer: Observation<Issuer>,
}

/// The mutating webhook of workload identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedWebhook {
    /// The configuration objects that send labelled pods to a workload identity webhook; more
    /// than one is a double installation.
    pub configurations: Vec<String>,
    /// The namespace its service lives in: `kube-system` for the add-on.
    pub service_namespace: Option<String>,
}

/// A field that widentity may set, for the question who owns it. Written `annotation:<key>`,
/// `template-label:<key>` or `template-annotation:<key>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum OwnedField {
    /// An annotation of the object itself.
    Annotation(String),
    /// A label of the pod template.
    TemplateLabel(String),
    /// An annotation of the pod template.
    TemplateAnnotation(String),
}

impl From<OwnedField> for String {
    fn from(field: OwnedField) -> Self {
        match field {
            OwnedField::Annotation(key) => format!("annotation:{key}"),
            OwnedField::TemplateLabel(key) => format!("template-label:{key}"),
            OwnedField::TemplateAnnotation(key) => format!("template-annotation:{key}"),
        }
    }
}

impl TryFrom<String> for OwnedField {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("annotation", key)) => Ok(Self::Annotation(key.to_owned())),
            Some(("template-label", key)) => Ok(Self::TemplateLabel(key.to_owned())),
            Some(("template-annotation", key)) => Ok(Self::TemplateAnnotation(key.to_owned())),
            _ => Err(format!("`{text}` is not an owned field")),
        }
    }
}

/// An entry of managed fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Manager {
    /// The manager's name, for example `kubectl-client-side-apply`.
    pub name: String,
    /// `Apply` or `Update`.
    pub operation: String,
}

/// Owners of the fields that widentity may set.
pub type FieldOwners = BTreeMap<OwnedField, BTreeSet<Manager>>;

/// Marks of other tools on an object: what its labels, annotations and managed fields say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectMeta {
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the object, without the last-applied configuration.
    pub annotations: BTreeMap<String, String>,
    /// All its field managers.
    pub managers: BTreeSet<String>,
    /// Owners of the fields that widentity may set.
    pub owners: FieldOwners,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAccount {
    /// Its UID.
    pub uid: String,
    /// Labels, annotations, managers.
    pub meta: ObjectMeta,
}

/// What stamps pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateKind {
    /// apps Deployment.
    Deployment,
    /// apps StatefulSet.
    StatefulSet,
    /// apps DaemonSet.
    DaemonSet,
    /// batch CronJob.
    CronJob,
    /// Argo Rollouts' Rollout.
    Rollout,
    /// apps ReplicaSet without a Deployment: read only.
    ReplicaSet,
    /// core `ReplicationController`: read only.
    ReplicationController,
    /// batch Job: read only.
    Job,
    /// A pod without a controller: read only.
    Pod,
}

impl TemplateKind {
    /// The kind in lower case, as addresses show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::CronJob => "cronjob",
            Self::Rollout => "rollout",
            Self::ReplicaSet => "replicaset",
            Self::ReplicationController => "replicationcontroller",
            Self::Job => "job",
            Self::Pod => "pod",
        }
    }

    /// Where the pod template stands in an object of this kind. A pod is its own.
    pub fn template_path(self) -> &'static [&'static str] {
        match self {
            Self::CronJob => &["spec", "jobTemplate", "spec", "template"],
            Self::Pod => &[],
            Self::Deployment
            | Self::StatefulSet
            | Self::DaemonSet
            | Self::Rollout
            | Self::ReplicaSet
            | Self::ReplicationController
            | Self::Job => &["spec", "template"],
        }
    }

    /// [`Self::template_path`] as a JSON pointer.
    pub fn template_pointer(self) -> String {
        [&[""], self.template_path()].concat().join("/")
    }

    /// Whether widentity may write its template. The others must be recreated by their owner.
    pub fn writable(self) -> bool {
        match self {
            Self::Deployment
            | Self::StatefulSet
            | Self::DaemonSet
            | Self::CronJob
            | Self::Rollout => true,
            Self::ReplicaSet | Self::ReplicationController | Self::Job | Self::Pod => false,
        }
    }

    /// Whether a controller of this kind and name made a pod whose owner reference is `owner`,
    /// `(kind, name)`. A Deployment's pods belong to a `ReplicaSet` named after it and a hash, so
    /// no list of `ReplicaSets` is needed; a `CronJob`'s to a Job likewise.
    pub fn stamps(self, name: &str, owner: (&str, &str)) -> bool {
        let (kind, owner) = owner;
        let is = |wanted: &str| kind.eq_ignore_ascii_case(wanted);
        let stem = owner.rsplit_once('-').map_or(owner, |(stem, _)| stem);
        match self {
            Self::Deployment | Self::Rollout => is("ReplicaSet") && stem == name,
            Self::CronJob => is("Job") && stem == name,
            Self::StatefulSet
            | Self::DaemonSet
            | Self::ReplicaSet
            | Self::ReplicationController
            | Self::Job => is(self.as_str()) && owner == name,
            Self::Pod => false,
        }
    }
}

/// A pod template and the controller that stamps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedTemplate {
    /// The controller's kind.
    pub kind: TemplateKind,
    /// The version that the server serves, for example `apps/v1` or `batch/v1beta1`.
    pub api_version: String,
    /// The controller's name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Labels, annotations, managers of the controller.
    pub meta: ObjectMeta,
    /// The controller that owns it (`kind/name`), if any: then it is not ours to write.
    pub owned_by: Option<String>,
    /// The account its pods run as; `default` where the template names none.
    pub account: AccountName,
    /// Labels of the pod template.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod template.
    pub annotations: BTreeMap<String, String>,
    /// `AZURE_*` variables that the manifest itself sets: container, variable, literal value
    /// (none for a reference). The webhook never changes these.
    pub literal_env: Vec<(String, String, Option<String>)>,
    /// Whether its pods use the node's network.
    #[serde(default)]
    pub host_network: bool,
    /// Whether its pods run on Windows.
    #[serde(default)]
    pub windows: bool,
    /// How it replaces pods.
    pub strategy: Strategy,
    /// How far its controller has come.
    pub progress: Progress,
}

impl ObservedTemplate {
    /// `kind/name`, as addresses show it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name)
    }

    /// Whether the workload identity webhook mutates its pods.
    pub fn labelled(&self) -> bool {
        names::asks_for_injection(&self.labels)
    }
}

/// How a controller replaces pods when its template changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// By itself, old pods serving meanwhile.
    RollingUpdate,
    /// By itself, after all old pods are gone.
    Recreate,
    /// Only when somebody deletes a pod.
    OnDelete,
    /// A StatefulSet that updates only ordinals at or above this one.
    Partition(u32),
    /// Paused: not before somebody resumes it.
    Paused,
    /// New pods at its next run (CronJob), or never (Job, pod).
    NextRun,
}

impl Strategy {
    /// Whether its controller replaces all pods by itself once the template has changed.
    pub fn rolls_by_itself(self) -> bool {
        match self {
            Self::RollingUpdate | Self::Recreate => true,
            Self::OnDelete | Self::Partition(_) | Self::Paused | Self::NextRun => false,
        }
    }
}

/// How far a controller has come with its present template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// Pods wanted.
    pub desired: i64,
    /// Pods of the present template.
    pub updated: i64,
    /// Pods of any template.
    pub total: i64,
    /// Pods of the present template, or of any where the kind does not say, that are available.
    pub available: i64,
    /// The reason of a rollout that gave up, for example `ProgressDeadlineExceeded`.
    pub failed: Option<String>,
    /// Why the controller cannot make a pod just now, where it says: a quota, a webhook that does
    /// not answer. It keeps trying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindered: Option<String>,
}

impl Progress {
    /// Whether the controller has finished with its present template: the generation is observed,
    /// every pod is updated and available and no older one is left.
    pub fn complete(&self) -> bool {
        self.observed_generation >= self.generation
            && self.updated >= self.desired
            && self.total <= self.updated
            && self.available >= self.desired
    }
}

/// A live pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The account it runs as.
    pub account: AccountName,
    /// The controller as `(kind, name)`, for example `("ReplicaSet", "api-6d4cf56db6")`.
    pub controller: Option<(String, String)>,
    /// `pod-template-hash` or `controller-revision-hash`.
    pub revision: Option<String>,
    /// Whether it carries the label that the webhook selects by.
    pub labelled: bool,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Whether its Ready condition is true.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What the webhook put into it.
    pub injected: Injected,
}

impl ObservedPod {
    /// Whether it counts: not finished, not being deleted.
    pub fn live(&self) -> bool {
        !self.deleting && self.phase != "Succeeded" && self.phase != "Failed"
    }

    /// Whether the controller of `template` made it.
    pub fn is_made_by(&self, template: &ObservedTemplate) -> bool {
        let owner = self.controller.as_ref();
        owner.is_some_and(|(kind, name)| template.kind.stamps(&template.name, (kind, name)))
    }
}

/// The workload identity environment of a pod, found by audience and
/// `AZURE_FEDERATED_TOKEN_FILE`, never by path: webhook 1.6 moved the path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Injected {
    /// Whether a container has the variable and a projected token that its mount covers.
    pub present: bool,
    /// `AZURE_CLIENT_ID` of the containers: one value, or several that differ.
    pub client_ids: BTreeSet<String>,
    /// `AZURE_TENANT_ID` of the containers.
    pub tenant_ids: BTreeSet<String>,
    /// `AZURE_AUTHORITY_HOST` of the containers.
    pub authority_hosts: BTreeSet<String>,
    /// Those of these three variables that a container takes from a Secret or `ConfigMap`: the
    /// webhook leaves them alone, and their value is not seen.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub by_reference: BTreeSet<String>,
    /// The audience of the projected token.
    pub audience: Option<Audience>,
    /// The lifetime of the projected token in seconds.
    pub expiration: Option<u32>,
    /// Whether the migration sidecar is in it.
    pub proxied: bool,
}
