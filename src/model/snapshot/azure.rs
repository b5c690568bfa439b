//! What was read from Azure Resource Manager.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Observation;
use crate::model::{
    ArmId, Audience, ClientId, FailureKind, Issuer, PrincipalId, RemoteFailure, RoleId, Subject,
    TenantId,
};

/// ARM's record of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedCluster {
    /// Its id as ARM renders it.
    pub id: ArmId,
    /// The region.
    pub location: String,
    /// `Succeeded`, `Updating`, …
    pub provisioning_state: String,
    /// `Running` or `Stopped`, where given.
    pub power_state: Option<String>,
    /// The issuer, when the OIDC issuer is enabled.
    pub issuer: Option<Issuer>,
    /// Whether the workload identity add-on is on.
    pub workload_identity: bool,
    /// The public API server's host name.
    pub fqdn: Option<String>,
    /// The private API server's host name.
    pub private_fqdn: Option<String>,
    /// The eTag to send with `If-Match`.
    pub etag: Option<String>,
    /// The Kubernetes version.
    pub kubernetes_version: Option<String>,
    /// Whether the Pod Identity add-on is on.
    pub pod_identity: Option<PodIdentityProfile>,
}

/// `podIdentityProfile` of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentityProfile {
    /// Whether the add-on is enabled.
    pub enabled: bool,
    /// `namespace/name` of each identity that ARM keeps in the cluster.
    pub identities: Vec<String>,
}

/// A user-assigned identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedIdentity {
    /// Its id as ARM renders it.
    pub id: ArmId,
    /// The client id.
    pub client_id: ClientId,
    /// The principal id.
    pub principal_id: PrincipalId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The region.
    pub location: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl ObservedIdentity {
    /// The tag of this name, as `(name, value)` with the name as it is there: Azure keeps the case
    /// of tag names and does not tell them apart by it.
    ///
    /// Source: Azure documentation, "Use tags to organize your Azure resources", limitations.
    pub fn tag(&self, name: &str) -> Option<(&str, &str)> {
        let found = self.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// A federated credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCredential {
    /// Its name.
    pub name: String,
    /// The issuer, byte for byte.
    pub issuer: Issuer,
    /// The subject; none for a flexible credential, which has an expression instead.
    pub subject: Option<Subject>,
    /// The audiences; Azure allows exactly one.
    pub audiences: Vec<Audience>,
}

/// Role assignments and where was looked for them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// Everything seen.
    pub seen: Vec<ObservedAssignment>,
    /// The scopes that were listed (each covers what lies below it) and how that went.
    pub looked: Vec<(ArmId, Observation<()>)>,
}

/// A role assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAssignment {
    /// Its id.
    pub id: ArmId,
    /// Its GUID name.
    pub name: String,
    /// The principal.
    pub principal_id: PrincipalId,
    /// The role.
    pub role: RoleId,
    /// The scope.
    pub scope: ArmId,
    /// The ABAC condition.
    pub condition: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// When it was made, as Azure says.
    pub created_on: Option<Timestamp>,
}

impl Assignments {
    /// The assignment of this triple; unknown where the scope was not covered by a good read.
    pub fn find(
        &self,
        principal: PrincipalId,
        role: RoleId,
        scope: &ArmId,
    ) -> Observation<&ObservedAssignment> {
        let same = |a: &&ObservedAssignment| {
            a.principal_id == principal && a.role == role && a.scope == *scope
        };
        if let Some(found) = self.seen.iter().find(same) {
            return Observation::Present(found);
        }
        let mut failure = None;
        for (looked, how) in self.looked.iter().filter(|(looked, _)| scope.is_within(looked)) {
            match how {
                Observation::Present(()) | Observation::Absent => return Observation::Absent,
                Observation::Unknown(why) => failure = Some((looked, why)),
            }
        }
        Observation::Unknown(failure.map_or_else(
            || {
                RemoteFailure::new(
                    FailureKind::NotReached,
                    format!("list role assignments at {scope}"),
                    "the scope was not listed",
                )
            },
            |(_, why)| why.clone(),
        ))
    }
}

/// What matters of a target resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTarget {
    /// For a Key Vault: whether it honours role assignments (`enableRbacAuthorization`).
    pub rbac: Option<bool>,
    /// For a Key Vault: the objects that an access policy names. They count only where `rbac` is
    /// false.
    #[serde(default)]
    pub policies: Vec<PrincipalId>,
}
