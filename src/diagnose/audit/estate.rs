//! What an audit looks at.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    diagnose::{
        Kubectl,
        evidence::{ProviderClass, Template, Webhook, not_asked},
    },
    model::{
        AccountName, ArmId, Issuer, Namespace, PrincipalId, Project, SubscriptionId,
        pod_identity::Named,
        snapshot::{
            Assignments, Observation, ObservedAccount, ObservedCredential, ObservedIdentity,
            ObservedPod, ObservedTarget,
        },
    },
};

/// Identities, clusters and role assignments that were read together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estate {
    /// The project of the file, where there is one.
    #[serde(default)]
    pub project: Option<Project>,
    /// The clusters that were read.
    #[serde(default)]
    pub clusters: Vec<AuditCluster>,
    /// Issuers of clusters in other subscriptions that could be listed.
    #[serde(default)]
    pub other_issuers: BTreeSet<Issuer>,
    /// Whether no list of clusters failed: only then can an issuer be of none.
    #[serde(default)]
    pub all_clusters: bool,
    /// The identities that were read.
    #[serde(default)]
    pub identities: Vec<AuditIdentity>,
    /// Role assignments and where was looked.
    #[serde(default)]
    pub assignments: Assignments,
    /// Principals of identities in other subscriptions that could be listed.
    #[serde(default)]
    pub other_principals: BTreeSet<PrincipalId>,
    /// Whether no list of identities failed: only then can a principal be of none.
    #[serde(default)]
    pub all_identities: bool,
    /// The identities that the file's workloads act as.
    #[serde(default)]
    pub wanted: BTreeSet<ArmId>,
    /// The scopes of the file's grants.
    #[serde(default)]
    pub targets: BTreeSet<ArmId>,
    /// Key Vaults that role assignments are on.
    #[serde(default)]
    pub vaults: BTreeMap<ArmId, ObservedTarget>,
    /// How many role assignments each subscription holds in all.
    #[serde(default)]
    pub counted: BTreeMap<SubscriptionId, u32>,
}

/// An identity with its credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditIdentity {
    /// The identity.
    pub identity: ObservedIdentity,
    /// Its credentials.
    #[serde(default = "not_asked")]
    pub credentials: Observation<Vec<ObservedCredential>>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditCluster {
    /// Its name in the file, or the resource's.
    pub name: String,
    /// Its ARM id, where it is known.
    #[serde(default)]
    pub id: Option<ArmId>,
    /// How commands reach it.
    #[serde(default)]
    pub kubectl: Kubectl,
    /// Its issuer, where it has one.
    #[serde(default)]
    pub issuer: Option<Issuer>,
    /// Whether the Pod Identity add-on is on.
    #[serde(default)]
    pub pod_identity_add_on: bool,
    /// What its API server says.
    #[serde(default = "not_asked")]
    pub kubernetes: Observation<KubernetesFacts>,
}

/// What one API server says, in all namespaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesFacts {
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// Service accounts.
    pub accounts: BTreeMap<Namespace, BTreeMap<AccountName, ObservedAccount>>,
    /// Pod templates.
    pub templates: BTreeMap<Namespace, Vec<Template>>,
    /// Live pods.
    pub pods: BTreeMap<Namespace, Vec<ObservedPod>>,
    /// The webhook.
    pub webhook: Option<Webhook>,
    /// Objects of AAD Pod Identity.
    pub pod_identity: Vec<PodIdentityObject>,
    /// Whether a list of them was refused.
    pub pod_identity_unseen: bool,
    /// `SecretProviderClass` objects by `namespace/name`.
    pub provider_classes: BTreeMap<String, ProviderClass>,
    /// KEDA's `TriggerAuthentication` and `ClusterTriggerAuthentication` objects that use pod
    /// identity.
    pub keda_pod_identity: Vec<Named>,
}

/// An object of AAD Pod Identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentityObject {
    /// For example `AzureIdentityBinding`.
    pub kind: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// The managed identity that it names, for an `AzureIdentity`.
    #[serde(default)]
    pub identity: Option<ArmId>,
}
