//! Desired state: the configuration, compiled. Every name and id that does not depend on what
//! Azure invents is already here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    AccountName, Address, ArmId, Audience, ClusterName, Namespace, Origin, Project, RoleId,
    Subject, SubscriptionId, TenantId, names,
};

/// What the file asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredState {
    /// The owner mark.
    pub project: Project,
    /// The tenant that must be acted in.
    pub tenant: TenantId,
    /// Where identities live.
    pub home: Home,
    /// The clusters of the file.
    pub clusters: BTreeMap<ClusterName, DesiredCluster>,
    /// The identities that workloads use.
    pub identities: BTreeMap<ArmId, DesiredIdentity>,
    /// Role assignments: equal grants of several workloads are one object.
    pub assignments: Vec<DesiredAssignment>,
    /// The workloads, ordered by namespace and service account.
    pub workloads: Vec<DesiredWorkload>,
}

/// The subscription and resource group in which identities are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The resource group; it must exist.
    pub resource_group: String,
    /// The region of new identities.
    pub location: String,
}

/// A cluster of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredCluster {
    /// Its name in the file.
    pub name: ClusterName,
    /// Its ARM id.
    pub id: ArmId,
    /// What may be switched on; both cannot be undone.
    pub enable: BTreeSet<Feature>,
    /// The audience that the cluster's webhook asks tokens for.
    pub audience: Audience,
    /// How its API server is reached.
    pub access: Access,
    /// Where `[clusters.<name>]` stands.
    pub origin: Origin,
}

/// A feature of AKS that widentity may enable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// The OIDC issuer. Azure does not let it be disabled again.
    OidcIssuer,
    /// The workload identity add-on: the mutating webhook.
    WorkloadIdentity,
}

impl Feature {
    /// The word used in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OidcIssuer => "oidc-issuer",
            Self::WorkloadIdentity => "workload-identity",
        }
    }
}

/// How a cluster's API server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// A context of a kubeconfig; the default kubeconfig where `kubeconfig` is absent.
    Context {
        /// The context's name; absent: the kubeconfig's current one.
        context: Option<String>,
        /// Path of the kubeconfig.
        kubeconfig: Option<String>,
    },
    /// Server and CA from Azure, the token is our own.
    Azure,
    /// Not at all: the Azure side only, "not managed, not proved".
    None,
}

/// A user-assigned identity that workloads use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredIdentity {
    /// Its id, whether it exists or not.
    pub id: ArmId,
    /// What may be done to it.
    pub control: IdentityControl,
    /// Tags it must carry (ours and the file's); empty for external ones.
    pub tags: BTreeMap<String, String>,
    /// Whether an existing identity without our tag may be taken over: it is named in the file
    /// or a workload says `adopt`.
    pub adopt: bool,
    /// The first place that names it.
    pub origin: Origin,
}

/// What widentity may do to an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityControl {
    /// Made if absent, tagged.
    Managed,
    /// Named by its full id: must exist, never made, tagged or deleted.
    External,
}

/// One role assignment: principal of an identity, role, scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredAssignment {
    /// The identity whose principal gets the role.
    pub identity: ArmId,
    /// The role.
    pub role: Role,
    /// The scope.
    pub scope: ArmId,
    /// An ABAC condition (version 2.0).
    pub condition: Option<String>,
    /// The workloads that need it, by index into [`DesiredState::workloads`], ascending.
    pub workloads: Vec<usize>,
    /// The address of this object: a part of the first of these workloads.
    pub address: Address,
    /// Where the first grant stands.
    pub origin: Origin,
}

/// A role, as far as it is known without asking Azure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Known: a built-in role, or a GUID or id that was written.
    Known {
        /// The definition's GUID.
        id: RoleId,
        /// The display name, where it is in the table of built-in roles.
        name: Option<String>,
    },
    /// A custom role's name, looked up at the scope while observing.
    Named {
        /// The display name as written.
        name: String,
    },
}

impl Role {
    /// The display name, or the GUID where none is known.
    pub fn label(&self) -> String {
        match self {
            Self::Known { name: Some(name), .. } | Self::Named { name } => name.clone(),
            Self::Known { id, name: None } => id.to_string(),
        }
    }
}

/// A workload: a service account in one or more clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredWorkload {
    /// The namespace.
    pub namespace: Namespace,
    /// The service account.
    pub account: AccountName,
    /// The clusters, ordered.
    pub clusters: Vec<ClusterName>,
    /// The identity it acts as.
    pub identity: ArmId,
    /// The tenant written to the service account.
    pub tenant: TenantId,
    /// The lifetime of its federated tokens in seconds, where the file sets one (3600..=86400).
    pub token_expiration: Option<u32>,
    /// Which pod templates are labelled.
    pub pods: PodSelection,
    /// When its pods are rolled.
    pub rollout: RolloutMode,
    /// Who writes its Kubernetes objects.
    pub managed_by: ManagedBy,
    /// Whether fields of Helm and other managers, and foreign credentials, may be taken over.
    pub adopt: bool,
    /// A data-plane request that proves the grants work.
    pub probe: Option<Probe>,
    /// Whether its pods get the migration sidecar, for SDKs that only know the metadata endpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy: bool,
    /// Whether its program presents its identity's token as a credential of something else; none
    /// where the file does not say. Only a migration asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chained: Option<bool>,
    /// Where `[[workloads]]` stands.
    pub origin: Origin,
    /// Those of its clusters that `--only`, `-n` and `--cluster` chose; all of them without such
    /// an option, none where it is only counted.
    pub selected: BTreeSet<ClusterName>,
}

impl DesiredWorkload {
    /// Its address, in no particular cluster.
    pub fn address(&self) -> Address {
        Address::workload(&self.namespace, &self.account)
    }

    /// Whether it is chosen in any cluster.
    pub fn is_selected(&self) -> bool {
        !self.selected.is_empty()
    }

    /// The subject of its tokens.
    pub fn subject(&self) -> Subject {
        Subject::of(&self.namespace, &self.account)
    }

    /// The lifetime its tokens will have, in seconds.
    pub fn expiration(&self) -> u32 {
        self.token_expiration.unwrap_or(names::DEFAULT_EXPIRATION)
    }
}

/// Which pod templates get the label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodSelection {
    /// Every template in the namespace that uses the account.
    All,
    /// Those named, as lower-case `kind/name`, for example `deployment/api`.
    Named(BTreeSet<String>),
}

/// When pods are rolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutMode {
    /// In this run, after the proof.
    #[default]
    Auto,
    /// With the team's next deployment; the template is left alone.
    NextDeploy,
    /// By somebody else.
    Never,
}

/// Who writes the Kubernetes objects of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ManagedBy {
    /// widentity, except what bears the marks of Argo CD, Flux or Helm under GitOps.
    #[default]
    Auto,
    /// widentity, whatever the marks say.
    Widentity,
    /// Git: nothing is written in the cluster.
    Git,
}

/// A data-plane request with the exchanged identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// The https URL that is listed; of [`ProbeKind::ResourceManager`] the id of a resource.
    pub url: String,
    /// Where it is written.
    pub origin: Origin,
}

/// The service that a [`Probe`] asks; it decides scope and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// Lists secrets of a Key Vault (one).
    KeyVault,
    /// Lists containers of a Blob endpoint (one).
    Blob,
    /// Lists keys of an App Configuration store (the first page).
    AppConfiguration,
    /// Reads a resource from Azure Resource Manager.
    ResourceManager,
}

impl DesiredState {
    /// The workload of an index kept in [`DesiredAssignment::workloads`].
    pub fn workload(&self, index: usize) -> &DesiredWorkload {
        &self.workloads[index]
    }

    /// Every workload with each of its chosen clusters.
    pub fn placements(&self) -> impl Iterator<Item = (&DesiredWorkload, &DesiredCluster)> {
        self.workloads.iter().flat_map(|workload| {
            let clusters = workload.selected.iter().filter_map(|name| self.clusters.get(name));
            clusters.map(move |cluster| (workload, cluster))
        })
    }
}
