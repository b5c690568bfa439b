//! What was read from Azure and Kubernetes, and what could not be.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ArmId, ClusterName, RemoteFailure, RoleId};

mod azure;
mod kubernetes;

pub use azure::{
    Assignments, ObservedAssignment, ObservedCluster, ObservedCredential, ObservedIdentity,
    ObservedTarget, PodIdentityProfile,
};
pub use kubernetes::{
    Evidence, FieldOwners, Injected, KubernetesSnapshot, Manager, ObjectMeta, ObservedAccount,
    ObservedPod, ObservedTemplate, ObservedWebhook, OwnedField, Progress, Strategy, TemplateKind,
};

/// The outcome of one read. A failed read is [`Observation::Unknown`], never absence: nothing is
/// created, changed or deleted because of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation<T> {
    /// It is there.
    Present(T),
    /// It is not there, and whoever said so can know.
    Absent,
    /// It could not be seen.
    Unknown(RemoteFailure),
}

impl<T> Observation<T> {
    /// The value, if it was seen.
    pub fn present(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// The failure, if it could not be seen.
    pub fn failure(&self) -> Option<&RemoteFailure> {
        match self {
            Self::Unknown(failure) => Some(failure),
            Self::Present(_) | Self::Absent => None,
        }
    }

    /// Borrows the value.
    pub fn as_ref(&self) -> Observation<&T> {
        match self {
            Self::Present(value) => Observation::Present(value),
            Self::Absent => Observation::Absent,
            Self::Unknown(failure) => Observation::Unknown(failure.clone()),
        }
    }

    /// Changes the value and keeps absence and failure.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Observation<U> {
        match self {
            Self::Present(value) => Observation::Present(f(value)),
            Self::Absent => Observation::Absent,
            Self::Unknown(failure) => Observation::Unknown(failure),
        }
    }
}

/// Everything that was read in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When reading began.
    pub taken_at: Timestamp,
    /// The clusters of the file that were read.
    pub clusters: BTreeMap<ClusterName, ClusterSnapshot>,
    /// The resource group of [`super::desired::Home`].
    pub home: Observation<()>,
    /// The identities of the file, by id.
    pub identities: BTreeMap<ArmId, Observation<ObservedIdentity>>,
    /// Identities tagged with the project in its resource group that the file does not name.
    pub other_identities: Vec<ObservedIdentity>,
    /// Federated credentials of each identity that exists.
    pub credentials: BTreeMap<ArmId, Observation<Vec<ObservedCredential>>>,
    /// Role assignments, with where was looked.
    pub assignments: Assignments,
    /// Custom roles that were looked up, by lower-cased name; several definitions may share one.
    pub roles: BTreeMap<String, Observation<Vec<RoleId>>>,
    /// Targets whose settings matter, by id, where they were readable.
    pub targets: BTreeMap<ArmId, Observation<ObservedTarget>>,
}

/// One cluster: ARM's record and the API server's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterSnapshot {
    /// What ARM says.
    pub arm: Observation<ObservedCluster>,
    /// What the API server says; absent where `access = "none"` or ARM's 404 proves it is gone.
    pub kubernetes: Observation<KubernetesSnapshot>,
}
