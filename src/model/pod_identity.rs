//! What AAD Pod Identity is made of in one cluster, as it was read. Everything has a default, so
//! that a recorded world holds only what matters in it.
//!
//! Source: Azure/aad-pod-identity at v1.8.17, `pkg/apis/aadpodidentity/v1/types.go`, and its
//! documentation pages on `AzureIdentity`, `AzureIdentityBinding` and pod exceptions.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AccountName, ArmId, ClusterName, Issuer, Namespace, RemoteFailure,
    snapshot::{ObservedCredential, ObservedIdentity, Strategy, TemplateKind},
};

/// The pod label that Pod Identity selects by. Its value is compared as a string.
pub const BINDING_LABEL: &str = "aadpodidbinding";
/// On an `AzureIdentity`: `namespaced` confines its bindings to their own namespace.
pub const BEHAVIOR_ANNOTATION: &str = "aadpodidentity.k8s.io/Behavior";

/// Everything that matters for leaving Pod Identity in one cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Estate {
    /// Its ARM id.
    pub id: Option<ArmId>,
    /// The cluster's name in the file.
    pub cluster: ClusterName,
    /// Its issuer, if the OIDC issuer is on.
    pub issuer: Option<Issuer>,
    /// Whether pods are given tokens: the add-on is on, or the webhook was installed by hand.
    pub workload_identity: bool,
    /// The server's version, `v1.33.2`; empty where it could not be read.
    pub version: String,
    /// The Pod Security level that a namespace enforces, where its label says one and could be
    /// read.
    pub pod_security: BTreeMap<Namespace, String>,
    /// `Updating` and the like, where an operation on the cluster is under way.
    pub busy: Option<String>,
    /// Whether any definition of the group `aadpodidentity.k8s.io` is served.
    pub installed: bool,
    /// `AzureIdentity` objects.
    pub identities: Vec<PodIdentity>,
    /// `AzureIdentityBinding` objects.
    pub bindings: Vec<Binding>,
    /// `AzurePodIdentityException` objects.
    pub exceptions: Vec<PodException>,
    /// `AzureAssignedIdentity` objects: what MIC has assigned and not taken back.
    pub assigned: Vec<Assigned>,
    /// Pod templates of every controller that none of these controllers stamps itself.
    pub templates: Vec<EstateTemplate>,
    /// Pods, live or not.
    pub pods: Vec<EstatePod>,
    /// Service accounts.
    pub accounts: Vec<EstateAccount>,
    /// `podIdentityProfile` of ARM's record, where it is enabled: `namespace/name` of each
    /// identity that ARM keeps in the cluster.
    pub add_on: Option<Vec<String>>,
    /// MIC and NMI.
    pub installs: Vec<Install>,
    /// `SecretProviderClass` objects that use Pod Identity.
    pub secret_classes: Vec<Named>,
    /// KEDA `TriggerAuthentication` and `ClusterTriggerAuthentication` objects whose provider is Pod
    /// Identity; the latter have no namespace.
    pub triggers: Vec<Named>,
    /// The managed identities that `identities` name, as Azure knows them.
    pub azure: BTreeMap<ArmId, AzureIdentityState>,
    /// What else carries the label of a binding that selects no pod template and no live pod.
    pub carriers: Vec<Carrier>,
    /// What could not be looked through for them.
    pub unlooked: Vec<RemoteFailure>,
    /// What was written down before workloads were changed.
    pub backups: Vec<Backup>,
    /// What could not be read.
    pub unseen: Vec<RemoteFailure>,
}

impl Estate {
    /// Whether everything was read. A failed read is not absence: where this is not so, nothing
    /// follows from what is missing.
    pub fn is_seen(&self) -> bool {
        self.unseen.is_empty()
    }
}

/// An object by namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Named {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

impl Named {
    /// `namespace/name`; the name alone where the kind has no namespaces.
    pub fn at(&self) -> String {
        if self.namespace.as_str().is_empty() {
            return self.name.clone();
        }
        format!("{}/{}", self.namespace, self.name)
    }

    /// What it is and where, if it is a trigger of KEDA: one without a namespace is of the kind
    /// that serves the whole cluster.
    pub fn trigger(&self) -> String {
        let wide = if self.namespace.as_str().is_empty() { "Cluster" } else { "" };
        format!("{wide}TriggerAuthentication {}", self.at())
    }
}

/// A custom resource by which pods get the label of Pod Identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Carrier {
    /// The namespace; empty where its kind has none.
    pub namespace: Namespace,
    /// `plural.group/name`, as kubectl takes it.
    pub what: String,
    /// Where the labels stand in it, as a path with dots.
    pub at: String,
    /// The value of the label.
    pub selector: String,
}

impl Carrier {
    /// What it is and where: `clonesets.apps.kruise.io/cart in shop`.
    pub fn text(&self) -> String {
        if self.namespace.as_str().is_empty() {
            return self.what.clone();
        }
        format!("{} in {}", self.what, self.namespace)
    }
}

/// An `AzureAssignedIdentity`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Assigned {
    /// The namespace.
    pub namespace: Namespace,
    /// The name: `<pod>-<namespace of the pod>-<AzureIdentity>`.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The binding it was assigned for, `namespace/name`; none where the object does not say.
    pub binding: Option<String>,
}

impl Assigned {
    /// Whether MIC made it for a binding. Where it does not say, its name tells the identity.
    pub fn is_for(&self, binding: &Binding) -> bool {
        match &self.binding {
            Some(of) => *of == format!("{}/{}", binding.namespace, binding.name),
            None => self.name.ends_with(&format!("-{}", binding.identity)),
        }
    }
}

/// An `AzureIdentity`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PodIdentity {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// Its version, which a DELETE demands.
    pub resource_version: String,
    /// 0: user-assigned managed identity; 1 and 2: service principal with secret or certificate.
    pub kind: i64,
    /// `spec.resourceID` as written.
    pub resource_id: String,
    /// `spec.clientID` as written.
    pub client_id: String,
    /// Whether the Behavior annotation confines it to its namespace.
    pub namespaced: bool,
    /// The tool whose marks it bears, as [`super::keeper`] names it.
    pub kept_by: Option<String>,
}

/// An `AzureIdentityBinding`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Binding {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// Its version, which a DELETE demands.
    pub resource_version: String,
    /// The name of an `AzureIdentity` in the binding's namespace.
    pub identity: String,
    /// The value of the pod label that it selects.
    pub selector: String,
    /// The tool whose marks it bears.
    pub kept_by: Option<String>,
}

/// An `AzurePodIdentityException`: pods of its namespace with one of these labels reach the node's
/// metadata endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PodException {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The labels.
    pub pod_labels: BTreeMap<String, String>,
}

/// A controller's pod template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EstateTemplate {
    /// The namespace.
    pub namespace: Namespace,
    /// The controller's kind.
    pub kind: TemplateKind,
    /// Its version.
    #[serde(default)]
    pub api_version: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    #[serde(default)]
    pub uid: String,
    /// The account its pods run as.
    #[serde(default = "default_account")]
    pub account: AccountName,
    /// Labels of the pod template.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod template.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The tool whose marks the controller bears, as [`super::keeper`] names it.
    #[serde(default)]
    pub kept_by: Option<String>,
    /// The object that makes this controller, `kind/name`: an operator's, which writes the template
    /// and would put back what anybody else changes in it.
    #[serde(default)]
    pub owned_by: Option<String>,
    /// How many pods it is to have; none where the kind does not count them.
    #[serde(default)]
    pub replicas: Option<i64>,
    /// A suspended `CronJob`, a finished Job.
    #[serde(default)]
    pub idle: bool,
    /// How it replaces pods.
    #[serde(default = "rolling")]
    pub strategy: Strategy,
    /// Whether every container that serves has a readiness probe: without one a new pod counts as
    /// ready before it has done anything.
    #[serde(default = "yes")]
    pub readiness: bool,
    /// Whether a roll may take a pod away before its successor is ready.
    #[serde(default)]
    pub gaps: bool,
    /// Whether its own selector demands the label, so that the label cannot be taken away.
    #[serde(default)]
    pub selector_holds: bool,
    /// Whether its pods use the node's network.
    #[serde(default)]
    pub host_network: bool,
    /// Whether its pods are sent to virtual nodes.
    #[serde(default)]
    pub virtual_node: bool,
    /// The `SecretProviderClass` objects of its namespace that its pods mount.
    #[serde(default)]
    pub secret_classes: BTreeSet<String>,
    /// Whether its pods run on Windows.
    #[serde(default)]
    pub windows: bool,
    /// The variable of its environment that makes its identity's token the assertion of an
    /// application.
    #[serde(default)]
    pub asserts: Option<String>,
    /// `AZURE_*` variables that it sets itself in containers that the webhook changes, as
    /// [`super::snapshot::ObservedTemplate::literal_env`].
    #[serde(default)]
    pub literal_env: Vec<(String, String, Option<String>)>,
    /// Whether its controller has finished with its present template.
    #[serde(default = "yes")]
    pub complete: bool,
    /// When widentity last wrote it.
    #[serde(default)]
    pub written: Option<Timestamp>,
    /// The project whose mark its controller bears.
    #[serde(default)]
    pub project: Option<String>,
    /// Keys of labels and annotations of the pod template that this project wrote last, and nobody
    /// else manages: their values are ours, whatever they were when it was switched.
    #[serde(default)]
    pub own: BTreeSet<String>,
    /// A digest of the pod template without what a migration changes in it: another one means that
    /// somebody changed the application. Empty where it was not taken.
    #[serde(default)]
    pub shape: String,
    /// When the last run of a `CronJob` whose runs do not overlap began, if one has succeeded
    /// since. Servers before 1.21 do not say.
    #[serde(default)]
    pub ran: Option<Timestamp>,
}

fn default_account() -> AccountName {
    "default".into()
}

fn rolling() -> Strategy {
    Strategy::RollingUpdate
}

fn yes() -> bool {
    true
}

impl EstateTemplate {
    /// `kind/name`, as `pods` names it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name)
    }

    /// Whether the template may be written: its kind may, and nobody else makes it.
    pub fn writable(&self) -> bool {
        self.kind.writable() && self.owned_by.is_none()
    }

    /// Whether its controller made a pod, or it is that pod.
    pub fn stamps(&self, pod: &EstatePod) -> bool {
        if self.namespace != pod.namespace {
            return false;
        }
        let Some(controller) = pod.controller.as_deref() else {
            return self.kind == TemplateKind::Pod && self.name == pod.name;
        };
        controller.split_once('/').is_some_and(|owner| self.kind.stamps(&self.name, owner))
    }

    /// The value that Pod Identity selects it by.
    pub fn selector(&self) -> Option<&str> {
        self.labels.get(BINDING_LABEL).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the workload identity webhook mutates its pods.
    pub fn labelled(&self) -> bool {
        super::names::asks_for_injection(&self.labels)
    }

    /// Whether nothing answers its pods: it carries neither label.
    pub fn is_bare(&self) -> bool {
        !self.labelled() && self.selector().is_none()
    }

    /// Whether it asks for the migration sidecar.
    pub fn proxied(&self) -> bool {
        self.annotations.contains_key(super::names::PROXY_ANNOTATION)
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EstatePod {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// Its version, to be demanded of a delete.
    pub resource_version: String,
    /// The account it runs as.
    pub account: AccountName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `kind/name` of its controller, as its owner reference says.
    pub controller: Option<String>,
    /// Whether it has ended or is being deleted.
    pub gone: bool,
    /// Whether it is being deleted and has not ended: it may still ask for tokens.
    pub ending: bool,
    /// Whether it has ended well.
    pub succeeded: bool,
    /// Whether the migration sidecar is in it.
    pub proxied: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Whether it runs on a virtual node.
    pub virtual_node: bool,
    /// The client ids that the workload identity webhook put into it; empty where it put none.
    pub client_ids: BTreeSet<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

impl EstatePod {
    /// The value that Pod Identity selects it by.
    pub fn selector(&self) -> Option<&str> {
        self.labels.get(BINDING_LABEL).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// A service account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EstateAccount {
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: AccountName,
    /// The client id it is annotated with.
    pub client_id: Option<String>,
    /// The tool whose marks it bears.
    pub kept_by: Option<String>,
}

/// A part of Pod Identity itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Install {
    /// `mic` or `nmi`.
    pub component: String,
    /// `deployment` or `daemonset`.
    pub kind: String,
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// Whether Helm made it.
    pub helm: bool,
    /// Whether it does nothing: NMI has no ready pod although other pods are ready on nodes, or MIC
    /// is scaled to zero.
    pub stuck: bool,
    /// Whether it runs in managed mode, in which nobody assigns identities to nodes.
    pub managed: bool,
    /// Whether it matches within a namespace only.
    pub namespaced: bool,
}

/// What Azure says of a managed identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AzureIdentityState {
    /// It is there, with its federated credentials.
    Present(ObservedIdentity, Vec<ObservedCredential>),
    /// It does not exist.
    Gone,
    /// It could not be seen.
    Unknown(RemoteFailure),
}

/// What a workload was before widentity changed it: only the fields and objects that it changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// The namespace.
    pub namespace: Namespace,
    /// The account.
    pub account: AccountName,
    /// The managed identity that it answered as.
    pub identity: String,
    /// The client id it was given.
    pub client_id: String,
    /// Annotations of the account: the value before, none where there was none, and ours.
    pub annotations: BTreeMap<String, Field>,
    /// Its pod templates.
    pub templates: Vec<TemplateBackup>,
    /// Whether the account was made by widentity.
    pub account_made: bool,
    /// The UID of the account whose annotations these are, where it was there before.
    pub account_uid: Option<String>,
    /// Objects of Pod Identity that were removed, complete.
    pub removed: Vec<serde_json::Value>,
    /// Entries of the AKS add-on that were removed, as ARM had them.
    pub add_on: Vec<serde_json::Value>,
    /// The bindings that answered for it: `namespace/name`.
    pub bindings: Vec<String>,
    /// Pod templates that had shown nothing since their switch when their bindings went, `kind/name`.
    pub unrun: Vec<String>,
    /// When `apply` found all of its pods proved, by the clock of whoever ran it.
    pub arrived: Option<Timestamp>,
    /// Whether it was put back, or somebody began to.
    pub rolled_back: bool,
    /// Whether that was for a reason that says nothing of its application: its pods could not be
    /// made, or not as they should be.
    pub blameless: bool,
}

impl Backup {
    /// Whether a pod template is among what was changed.
    pub fn switched(&self) -> bool {
        let labelled = |template: &TemplateBackup| {
            let label = template.labels.get(super::names::USE_LABEL);
            label.is_some_and(|field| field.after.as_deref() == Some("true"))
        };
        self.templates.iter().any(labelled)
    }

    /// `namespace/account`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.account)
    }
}

/// A field that widentity sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Field {
    /// The value before.
    pub before: Option<String>,
    /// Our value; none where it was taken away.
    pub after: Option<String>,
}

/// The fields of one pod template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TemplateBackup {
    /// `kind/name`.
    pub key: String,
    /// The UID.
    pub uid: String,
    /// Labels of the pod template.
    pub labels: BTreeMap<String, Field>,
    /// Annotations of the pod template.
    pub annotations: BTreeMap<String, Field>,
    /// The project's mark on the controller; none in backups that did not note it.
    pub mark: Option<Field>,
    /// [`EstateTemplate::shape`] when the switch was tried.
    pub shape: String,
    /// Whether its label gave it no identity before the switch: there is none to give back.
    pub unanswered: bool,
}

impl TemplateBackup {
    /// Whether these labels are those that widentity gave, and not those that were there before:
    /// only a pod of the switched template has them.
    pub fn gave(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut changed = self.labels.iter().filter(|(_, field)| field.before != field.after);
        let same = |(key, field): (&String, &Field)| labels.get(key) == field.after.as_ref();
        changed.clone().next().is_some() && changed.all(same)
    }

    /// Whether these labels are those that were there before, and not those that widentity gave.
    pub fn had(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut changed = self.labels.iter().filter(|(_, field)| field.before != field.after);
        let same = |(key, field): (&String, &Field)| labels.get(key) == field.before.as_ref();
        changed.clone().next().is_some() && changed.all(same)
    }
}
