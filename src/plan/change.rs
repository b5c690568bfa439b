//! One difference between desired and actual state, with its reasons.

use serde::{Deserialize, Serialize};

use crate::model::{Address, Origin};

/// A difference that a run would remove.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The object's name in plans and reports.
    pub address: Address,
    /// What kind of object it is.
    pub kind: ObjectKind,
    /// What would be done to it.
    pub action: Action,
    /// Its ARM id, or `<cluster>: <kind> <namespace>/<name>`; the part that is not known before
    /// apply is written `(known after apply)`.
    pub id: String,
    /// The fields that change.
    pub fields: Vec<FieldChange>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The workloads that need it, by address.
    pub workloads: Vec<Address>,
    /// The configuration line behind it.
    pub origin: Origin,
    /// The digest of this change: what `--approved` compares.
    pub digest: String,
}

/// Kinds of objects, in Terraform's manner of naming types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// An AKS cluster's settings.
    AzureKubernetesCluster,
    /// A user-assigned managed identity.
    AzureUserAssignedIdentity,
    /// A federated identity credential.
    AzureFederatedIdentityCredential,
    /// A role assignment.
    AzureRoleAssignment,
    /// A service account: its existence and annotations.
    KubernetesServiceAccount,
    /// A pod template: its label and chain annotation.
    KubernetesPodTemplate,
    /// A rollout that only re-triggers stale pods; not counted as an object.
    KubernetesRollout,
}

impl ObjectKind {
    /// The type's name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AzureKubernetesCluster => "azure_kubernetes_cluster",
            Self::AzureUserAssignedIdentity => "azure_user_assigned_identity",
            Self::AzureFederatedIdentityCredential => "azure_federated_identity_credential",
            Self::AzureRoleAssignment => "azure_role_assignment",
            Self::KubernetesServiceAccount => "kubernetes_service_account",
            Self::KubernetesPodTemplate => "kubernetes_pod_template",
            Self::KubernetesRollout => "kubernetes_rollout",
        }
    }

    /// Whether it counts in `Plan: 3 to add, 1 to change, 1 to destroy.`
    pub fn counted(self) -> bool {
        self != Self::KubernetesRollout
    }
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Create,
    /// Some of its fields are set.
    Update,
}

/// A field that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field's path as a reader of the object would write it, for example
    /// `metadata.annotations["azure.workload.identity/client-id"]`.
    pub field: String,
    /// The present value; none where there is none.
    pub before: Option<serde_json::Value>,
    /// The value afterwards.
    pub after: Planned,
    /// The formula of a value that Azure invents, for example `client_id of identity/wi_a`, also
    /// where its result is known by now: digests take the formula, so that what was approved
    /// before a first, partial run is still approved after it.
    pub formula: Option<String>,
}

/// A planned value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planned {
    /// Known now.
    Known(serde_json::Value),
    /// Known after apply; the formula says from what, for example `client_id of identity/wi_a`.
    AfterApply(String),
}

/// Why a change is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// The object does not exist.
    Missing,
    /// A field has another value than the file asks for.
    Differs {
        /// The field.
        field: String,
        /// The present value; none where it is not set.
        have: Option<String>,
        /// The wanted value, or the formula of one known after apply.
        want: String,
        /// What the difference comes down to where it is small enough to be overlooked, for
        /// example `only the trailing slash differs`.
        near: Option<String>,
    },
    /// The feature is off and the file says `enable`.
    FeatureOff {
        /// The feature's word.
        feature: String,
    },
    /// Live pods do not carry today's values.
    PodsStale {
        /// How many pods of the present revision.
        pods: usize,
        /// The first difference found, in words.
        why: String,
    },
    /// Something it is built from changes in this plan.
    Follows {
        /// The address of that change.
        of: Address,
    },
}
