//! WHAT THINGS ARE: the words of the field as types, without IO, time or environment.
//!
//! [`desired::DesiredState`] is what the file asks for, [`snapshot::Snapshot`] is what was read.
//! Everything between them is the business of the stages. Imports nothing of ours.

pub mod address;
pub mod cloud;
pub mod desired;
pub mod failure;
pub mod footprint;
pub mod identifiers;
pub mod keeper;
pub mod kubectl;
pub mod names;
pub mod origin;
pub mod pod_identity;
pub mod roles;
pub mod same_cluster;
pub mod secret;
pub mod sidecar;
pub mod snapshot;
pub mod suggest;

pub use address::Address;
pub use failure::{FailureKind, RemoteFailure};
pub use identifiers::{
    AccountName, ArmId, Audience, ClientId, ClusterName, Issuer, Namespace, PrincipalId, Project,
    RoleId, Subject, SubscriptionId, TenantId,
};
pub use origin::Origin;
pub use same_cluster::{SameCluster, same_cluster};
pub use secret::Token;
