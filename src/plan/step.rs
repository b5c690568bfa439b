//! Steps: the plan's work in order. The executor makes no choices; everything it needs stands
//! here or is an output of an earlier step.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{
    AccountName, Address, ArmId, Audience, ClientId, ClusterName, Issuer, Namespace, Origin,
    PrincipalId, RoleId, Subject, TenantId,
    desired::{Feature, Probe},
    snapshot::{ObservedCredential, TemplateKind},
};

/// The position of a step in [`super::Plan::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub usize);

/// One unit of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its position.
    pub id: StepId,
    /// What it works on.
    pub address: Address,
    /// What is done.
    pub operation: Operation,
    /// Steps that must be done before. All have smaller positions.
    pub needs: Vec<StepId>,
    /// Locks held while it runs: no two steps with a common lock run at once.
    pub locks: BTreeSet<Lock>,
    /// The workloads (in their clusters) that wait for it.
    pub workloads: Vec<Address>,
    /// The configuration line behind it.
    pub origin: Origin,
    /// The change it carries out, as an index into [`super::Plan::changes`]; none for proofs,
    /// waits and guards. Two steps share one change where an account is made bare and annotated
    /// after its proof; the object is counted once.
    pub change: Option<usize>,
}

/// What may only be written by one step at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// An identity and its federated credentials: Azure refuses concurrent writes with 409
    /// `ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity`.
    Identity(ArmId),
    /// A cluster's ARM record.
    Cluster(ArmId),
    /// A Kubernetes object: cluster, then `kind/namespace/name`.
    Object(ClusterName, String),
}

/// A value that a step needs: known when planning, or an output of an earlier step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value<T> {
    /// Known when planning.
    Known(T),
    /// The output of the step at this address; the type says which output.
    AfterApply(Address),
}

/// What a step does. `expect` is the precondition on the fields we own: the value when planned.
/// If the world has neither that value nor the wanted one, the step is stale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "operation")]
pub enum Operation {
    /// Switches features of a cluster on: GET, set, PUT with `If-Match`, wait. Output: issuer.
    EnableFeatures {
        /// The cluster's id.
        id: ArmId,
        /// What is switched on.
        features: BTreeSet<Feature>,
    },
    /// Makes an identity. Outputs: client id, principal id.
    CreateIdentity {
        /// Its id.
        id: ArmId,
        /// Its region.
        location: String,
        /// Its tags.
        tags: BTreeMap<String, String>,
    },
    /// Sets tags on an identity and keeps all others.
    TagIdentity {
        /// Its id.
        id: ArmId,
        /// The tags to set.
        tags: BTreeMap<String, String>,
        /// Their values when planned.
        expect: BTreeMap<String, Option<String>>,
        /// The principal when planned: a recreated identity is another one.
        principal: PrincipalId,
    },
    /// Makes or replaces a federated credential.
    PutCredential {
        /// The identity's id.
        identity: ArmId,
        /// The credential's name: ours, or that of the one found for issuer and subject.
        name: String,
        /// The issuer.
        issuer: Value<Issuer>,
        /// The subject.
        subject: Subject,
        /// The audience.
        audience: Audience,
        /// The credential of this name when planned; none where it is to be made.
        expect: Option<ObservedCredential>,
    },
    /// Assigns a role to an identity's principal.
    PutAssignment {
        /// The identity's id, for the report.
        identity: ArmId,
        /// The principal.
        principal: Value<PrincipalId>,
        /// The role.
        role: RoleId,
        /// The role's display name or GUID, for the report.
        role_label: String,
        /// The scope.
        scope: ArmId,
        /// The assignment's GUID; none: [`crate::model::names::role_assignment`] of the principal.
        name: Option<Uuid>,
        /// An ABAC condition (version 2.0).
        condition: Option<String>,
        /// The mark.
        description: String,
        /// Whether an assignment of this name existed when planned.
        exists: bool,
    },
    /// Reads the role assignments of an identity's principal back and waits until they have had
    /// time to take effect, or a probe passes. Before pods move to this identity.
    SettleRoles {
        /// The identity's id.
        identity: ArmId,
        /// The principal.
        principal: Value<PrincipalId>,
        /// The assignments: role and scope.
        assignments: Vec<(RoleId, ArmId)>,
    },
    /// Checks by a token's issuer that the API server is the cluster of ARM's record, where its
    /// discovery document and host do not tell.
    ConfirmCluster {
        /// The issuer of ARM's record.
        issuer: Value<Issuer>,
        /// An account that exists, to ask a token for.
        namespace: Namespace,
        /// Its name.
        account: AccountName,
        /// The audience to ask for.
        audience: Audience,
    },
    /// Makes a bare service account.
    CreateAccount {
        /// The namespace.
        namespace: Namespace,
        /// The name.
        account: AccountName,
    },
    /// Proves the chain: a token of the account, exchanged at Entra for the identity's.
    Prove {
        /// The namespace.
        namespace: Namespace,
        /// The account.
        account: AccountName,
        /// What is to be proved.
        claim: Claim,
        /// A data-plane request with the exchanged identity.
        probe: Option<Probe>,
    },
    /// Sets the account's annotations by server-side apply.
    AnnotateAccount {
        /// The namespace.
        namespace: Namespace,
        /// The account.
        account: AccountName,
        /// Its UID when planned; none where this run makes it.
        uid: Option<String>,
        /// The client id.
        client: Value<ClientId>,
        /// The tenant.
        tenant: TenantId,
        /// The token lifetime, where the file sets one.
        expiration: Option<u32>,
        /// Whether fields of managers that may be taken over are forced.
        force: bool,
        /// The annotations' values when planned, by annotation key.
        expect: BTreeMap<String, Option<String>>,
    },
    /// Before the first rollout of a workload in a cluster: a server-side dry run of a pod of its
    /// own template, labelled, must come back injected.
    CheckInjection {
        /// The namespace.
        namespace: Namespace,
        /// The account the pod would run as.
        account: AccountName,
        /// The controller whose template the pod is made from: what admission lets in already.
        like: TemplateRef,
        /// The audience that must come back.
        audience: Audience,
        /// Whether the pod asks for the migration sidecar, as those of the workload will.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        proxy: bool,
    },
    /// Labels the pod template, sets the chain value, and waits for the rollout.
    RollTemplate {
        /// The controller.
        target: TemplateRef,
        /// The account its pods run as.
        account: AccountName,
        /// The client id, for the chain value.
        client: Value<ClientId>,
        /// The tenant, for the chain value.
        tenant: TenantId,
        /// The audience, for the chain value.
        audience: Audience,
        /// The token lifetime in seconds, for the chain value.
        expiration: u32,
        /// Grows when the same chain must roll again.
        round: u32,
        /// Whether fields of managers that may be taken over are forced.
        force: bool,
        /// Whether the rollout is waited for.
        wait: bool,
        /// Label and chain annotation when planned.
        expect: (Option<String>, Option<String>),
        /// Labels of the pod template that go in the same roll, with their values when planned:
        /// what AAD Pod Identity selects by.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        remove_labels: BTreeMap<String, String>,
        /// What becomes of the annotation that asks for the migration sidecar.
        #[serde(default, skip_serializing_if = "Sidecar::is_not_ours")]
        sidecar: Sidecar,
    },
    /// Waits for a rollout that is under way already.
    AwaitRollout {
        /// The controller.
        target: TemplateRef,
    },
    /// Checks that every live pod of the account carries today's values.
    ProvePods {
        /// The namespace.
        namespace: Namespace,
        /// The account.
        account: AccountName,
        /// The client id.
        client: Value<ClientId>,
        /// The tenant.
        tenant: TenantId,
        /// The audience.
        audience: Audience,
        /// The token lifetime in seconds.
        expiration: u32,
    },
}

/// What becomes of the annotation that asks for the migration sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sidecar {
    /// It is nobody's, or somebody else's: it stays as it is.
    #[default]
    NotOurs,
    /// It is there and ours.
    Set,
    /// We set it; it goes.
    Dropped {
        /// Its value when planned.
        value: String,
    },
}

impl Sidecar {
    fn is_not_ours(&self) -> bool {
        *self == Self::NotOurs
    }
}

/// What a proof is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The identity, whose credentials tell why Entra refuses.
    pub identity: ArmId,
    /// The client id that asks for the token.
    pub client: Value<ClientId>,
    /// The principal that the token must be for.
    pub principal: Value<PrincipalId>,
    /// The tenant.
    pub tenant: TenantId,
    /// The issuer that the account's token must carry.
    pub issuer: Value<Issuer>,
    /// The audience to ask for.
    pub audience: Audience,
    /// What the file grants, as role and scope in words; only where a probe may be refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
}

/// A controller whose template is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TemplateRef {
    /// The namespace.
    pub namespace: Namespace,
    /// The kind.
    pub kind: TemplateKind,
    /// The version that the server serves.
    pub api_version: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

impl TemplateRef {
    /// The command that puts the former pods back; where there is nothing to go back to, the one
    /// that shows more.
    pub fn undo(&self, kubectl: &str) -> String {
        let Self { namespace, name, kind, .. } = self;
        match kind {
            TemplateKind::Rollout => {
                let argo = kubectl.replacen("kubectl", "kubectl argo rollouts", 1);
                format!("{argo} -n {namespace} undo {name}")
            }
            TemplateKind::Deployment | TemplateKind::StatefulSet | TemplateKind::DaemonSet => {
                format!("{kubectl} -n {namespace} rollout undo {}/{name}", kind.as_str())
            }
            TemplateKind::CronJob
            | TemplateKind::ReplicaSet
            | TemplateKind::ReplicationController
            | TemplateKind::Job
            | TemplateKind::Pod => {
                format!("{kubectl} -n {namespace} describe {}/{name}", kind.as_str())
            }
        }
    }
}

impl Operation {
    /// Whether it starts a rollout, which is paced: one first, then five at once.
    pub fn rolls(&self) -> bool {
        matches!(self, Self::RollTemplate { .. })
    }

    /// A short verb phrase for progress and reports.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::EnableFeatures { .. } => "enable",
            Self::CreateIdentity { .. } => "create identity",
            Self::TagIdentity { .. } => "tag identity",
            Self::PutCredential { expect: None, .. } => "create federated credential",
            Self::PutCredential { expect: Some(_), .. } => "update federated credential",
            Self::PutAssignment { exists: false, .. } => "assign role",
            Self::PutAssignment { exists: true, .. } => "update role assignment",
            Self::SettleRoles { .. } => "let roles settle",
            Self::ConfirmCluster { .. } => "confirm cluster",
            Self::CreateAccount { .. } => "create service account",
            Self::Prove { .. } => "prove",
            Self::AnnotateAccount { .. } => "annotate service account",
            Self::CheckInjection { .. } => "check webhook",
            Self::RollTemplate { .. } => "roll",
            Self::AwaitRollout { .. } => "await rollout",
            Self::ProvePods { .. } => "prove pods",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_undo_command_fits_the_kind() {
        let target = |kind| TemplateRef {
            namespace: "shop".into(),
            kind,
            api_version: "v1".to_owned(),
            name: "cart".to_owned(),
            uid: "u".to_owned(),
        };
        let undo = |kind| target(kind).undo("kubectl --context east");
        assert_eq!(
            undo(TemplateKind::StatefulSet),
            "kubectl --context east -n shop rollout undo statefulset/cart"
        );
        assert_eq!(
            undo(TemplateKind::Rollout),
            "kubectl argo rollouts --context east -n shop undo cart"
        );
    }
}
