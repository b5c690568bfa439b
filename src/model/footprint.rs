//! What an installation of AAD Pod Identity consists of, in the cluster and in Azure, as it was
//! read before it is taken away. Everything has a default, so that a recorded world holds only
//! what matters in it.
//!
//! Source: Azure/aad-pod-identity at v1.8.17, `deploy/infra/*.yaml`, `charts/aad-pod-identity` and
//! `cmd/mic/main.go`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    AccountName, ArmId, ClusterName, Issuer, Namespace, PrincipalId, RemoteFailure,
    snapshot::ObservedAssignment,
};

/// What one cluster's API server holds of the installation, beside what an
/// [`Estate`](super::pod_identity::Estate) tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Footprint {
    /// The host that was talked to.
    pub host: String,
    /// The issuer of its discovery document, where it may be read.
    pub issuer: Option<Issuer>,
    /// The issuer of a token that it made for one of its accounts, where one was asked for.
    pub token_issuer: Option<Issuer>,
    /// Why no token could be had, where one was asked for.
    pub no_token: Option<RemoteFailure>,
    /// MIC and NMI.
    pub components: Vec<Component>,
    /// The definitions of the group `aadpodidentity.k8s.io`.
    pub definitions: Vec<Definition>,
    /// Service accounts that could be the installation's: by their name, by the chart's label, or
    /// because a role binding that could be gives them rights.
    pub accounts: Vec<Part>,
    /// Cluster roles that name the group, except those that every cluster has.
    pub roles: Vec<Part>,
    /// Cluster role bindings, and role bindings to a cluster role.
    pub role_bindings: Vec<RoleBinding>,
    /// Services, with what they select.
    pub services: Vec<Service>,
    /// What MIC writes while it runs: its `ConfigMap`, and what its replicas elect a leader by.
    pub records: Vec<Part>,
    /// Live pods that say in their environment that they use the metadata endpoint.
    pub metadata_users: Vec<MetadataUser>,
    /// What could not be read.
    pub unseen: Vec<RemoteFailure>,
}

/// An object of the installation.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Part {
    /// Its kind.
    pub kind: PartKind,
    /// Its namespace; none for an object of the whole cluster.
    pub namespace: Option<Namespace>,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether it bears the name label of Pod Identity's chart.
    pub charted: bool,
    /// Who keeps it.
    pub owner: Owner,
}

impl Part {
    /// `namespace/name`, or the name alone.
    pub fn at(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The kinds of [`Part`], in the order in which they go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// An `AzureIdentityBinding`.
    #[default]
    Binding,
    /// An `AzureIdentity`.
    Identity,
    /// An `AzureAssignedIdentity`: MIC's to take away.
    Assigned,
    /// MIC, a `Deployment`.
    Mic,
    /// NMI, a `DaemonSet`.
    Nmi,
    /// An `AzurePodIdentityException`.
    Exception,
    /// A `Service` before MIC or NMI.
    Service,
    /// MIC's `ConfigMap`.
    ConfigMap,
    /// What MIC's replicas elect a leader by.
    Lease,
    /// The same, as older versions did it.
    Endpoints,
    /// A `ClusterRoleBinding`.
    ClusterRoleBinding,
    /// A `ClusterRole`.
    ClusterRole,
    /// A `ServiceAccount`.
    ServiceAccount,
    /// A `CustomResourceDefinition`.
    Definition,
}

impl PartKind {
    /// `MIC` or `NMI`; none for what is neither.
    pub fn component(self) -> Option<&'static str> {
        if self == Self::Mic {
            Some("MIC")
        } else if self == Self::Nmi {
            Some("NMI")
        } else {
            None
        }
    }

    /// The kind as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "AzureIdentityBinding",
            Self::Identity => "AzureIdentity",
            Self::Assigned => "AzureAssignedIdentity",
            Self::Mic => "Deployment",
            Self::Nmi => "DaemonSet",
            Self::Exception => "AzurePodIdentityException",
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
            Self::Lease => "Lease",
            Self::Endpoints => "Endpoints",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
            Self::ClusterRole => "ClusterRole",
            Self::ServiceAccount => "ServiceAccount",
            Self::Definition => "CustomResourceDefinition",
        }
    }
}

/// Who puts an object back when it is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// Nobody: it was made by hand, or by `kubectl apply`.
    #[default]
    Nobody,
    /// A Helm release.
    Helm {
        /// The release's name.
        release: String,
        /// Its namespace.
        namespace: String,
    },
    /// A tool that applies what Git holds.
    Git {
        /// `Argo CD` or `Flux`.
        tool: String,
    },
}

/// MIC or NMI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Component {
    /// The Deployment or `DaemonSet`.
    pub part: Part,
    /// The account its pods run as.
    pub account: AccountName,
    /// The labels of its pods.
    pub labels: BTreeMap<String, String>,
}

/// A `CustomResourceDefinition` of the group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Definition {
    /// The definition.
    pub part: Part,
    /// The objects of it.
    pub objects: Vec<Part>,
}

/// A `ClusterRoleBinding`, or a `RoleBinding` to a cluster role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleBinding {
    /// The object; a `RoleBinding` has a namespace.
    pub part: Part,
    /// The cluster role.
    pub role: String,
    /// The service accounts that it gives the role to.
    pub accounts: Vec<(Namespace, AccountName)>,
    /// The users and groups that it gives the role to.
    pub others: Vec<String>,
}

/// A `Service`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// The object.
    pub part: Part,
    /// What it selects.
    pub selector: BTreeMap<String, String>,
}

/// A pod that uses the metadata endpoint of its node, as far as its environment tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetadataUser {
    /// The namespace.
    pub namespace: Namespace,
    /// The pod.
    pub pod: String,
    /// What tells it, for example `AZURE_CLIENT_ID is set and it has no workload identity`.
    pub why: String,
}

/// What Azure holds of the installation. Nothing marks what was made for Pod Identity, so that it
/// takes judgement what of it may go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AzureSide {
    /// The host names of the API server in ARM's record.
    pub hosts: Vec<String>,
    /// The resource group of the nodes.
    pub node_group: Option<ArmId>,
    /// The identity of the nodes, as a resource.
    pub kubelet: Option<ArmId>,
    /// The principals of the cluster.
    pub principals: BTreeMap<PrincipalId, ClusterPrincipal>,
    /// The identities that ARM's record names outside the Pod Identity add-on, each with the
    /// member that does, for example `properties/addonProfiles/omsagent`: AKS uses them.
    pub placed: BTreeMap<ArmId, String>,
    /// Principals as which another cluster of the file acts, too, that still has Pod Identity.
    pub elsewhere: BTreeMap<PrincipalId, ClusterName>,
    /// Their role assignments that Pod Identity's documentation asks for.
    pub assignments: Vec<ObservedAssignment>,
    /// The scale sets of the nodes with the user-assigned identities on them.
    pub scale_sets: Vec<ScaleSet>,
    /// What could not be read.
    pub unseen: Vec<RemoteFailure>,
}

/// As what a principal acts for a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterPrincipal {
    /// Its nodes: what Pod Identity acts as.
    Kubelet,
    /// Its control plane, also where the nodes act as the same: AKS itself.
    ControlPlane,
}

impl ClusterPrincipal {
    /// The words in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubelet => "the kubelet identity",
            Self::ControlPlane => "the cluster identity",
        }
    }
}

/// A scale set of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleSet {
    /// Its id.
    pub id: ArmId,
    /// The user-assigned identities on it.
    pub identities: Vec<ArmId>,
    /// Whether its upgrade policy leaves it to others to bring instances to its present model.
    #[serde(default)]
    pub manual: bool,
}
