//! The configuration, checked: every value parsed, every reference followed.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::SignedDuration;
use url::Url;

use super::diagnostic::Diagnostics;
use crate::model::{
    AccountName, ArmId, ClusterName, Namespace, Origin, Project, TenantId,
    desired::{
        DesiredCluster, Home, IdentityControl, ManagedBy, PodSelection, Probe, Role, RolloutMode,
    },
};

/// A configuration without errors.
#[derive(Debug)]
pub struct Config {
    /// The owner mark.
    pub project: Project,
    /// The tenant that must be acted in.
    pub tenant: TenantId,
    /// Where identities live.
    pub home: Home,
    /// The cloud. The sandbox ignores it.
    pub cloud: Cloud,
    /// The file's tags for identities, without widentity's own.
    pub tags: BTreeMap<String, String>,
    /// The repository path of the root file: what identities are tagged with. The same on every
    /// machine.
    pub source: String,
    /// The clusters.
    pub clusters: BTreeMap<ClusterName, DesiredCluster>,
    /// The workloads, ordered by namespace and service account.
    pub workloads: Vec<Workload>,
    /// How long proved pods run before `migrate finish` may remove their binding.
    pub soak: SignedDuration,
    /// Warnings, and the text that places refer to.
    pub(super) found: Diagnostics,
}

impl Config {
    /// What is probably not meant, though it can be done.
    pub fn warnings(&self) -> &Diagnostics {
        &self.found
    }
}

/// A cloud's endpoints, as far as the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cloud {
    /// The public cloud.
    Public,
    /// Azure US Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
    /// Another: Azure Stack, an emulator.
    Custom {
        /// Azure Resource Manager; https, or http to a loopback address.
        resource_manager: Url,
        /// The token endpoint's host; https, or http to a loopback address.
        authority: Url,
        /// A PEM file of authorities to trust beside the system's.
        ca_file: Option<PathBuf>,
    },
}

/// A workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The namespace.
    pub namespace: Namespace,
    /// The service account.
    pub account: AccountName,
    /// Its clusters, ordered.
    pub clusters: Vec<ClusterName>,
    /// The identity it acts as.
    pub identity: Identity,
    /// The tenant written to the service account.
    pub tenant: TenantId,
    /// The lifetime of its tokens in seconds, where the file sets one.
    pub token_expiration: Option<u32>,
    /// Which pod templates are labelled.
    pub pods: PodSelection,
    /// When its pods are rolled.
    pub rollout: RolloutMode,
    /// Who writes its Kubernetes objects.
    pub managed_by: ManagedBy,
    /// Whether what others made may be taken over.
    pub adopt: bool,
    /// Whether its identity is tagged as protected.
    pub protect: bool,
    /// A data-plane request.
    pub probe: Option<Probe>,
    /// Whether its pods get the migration sidecar.
    pub proxy: bool,
    /// Whether its program presents its identity's token as a credential of something else.
    pub chained: Option<bool>,
    /// Its grants.
    pub grants: Vec<Grant>,
    /// Where `[[workloads]]` stands.
    pub origin: Origin,
}

/// The identity of a workload.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub id: ArmId,
    /// What may be done to it: external if it was written by its full id.
    pub control: IdentityControl,
    /// Whether the workload names it, by name or id.
    pub written: bool,
    /// Where it is named, else where the workload stands.
    pub origin: Origin,
}

/// A role on a scope.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// The scope.
    pub scope: ArmId,
    /// An ABAC condition.
    pub condition: Option<String>,
    /// Where it is written.
    pub origin: Origin,
}

impl Grant {
    /// What makes two grants of one identity the same role assignment: role and scope, without
    /// regard to case.
    pub(super) fn key(&self) -> (String, String) {
        let role = match &self.role {
            Role::Known { id, .. } => id.to_string(),
            Role::Named { name } => name.to_lowercase(),
        };
        (role, self.scope.key().to_owned())
    }
}
