//! What the executor asks of the world, one function an operation. [`super::Remotes`] is the real
//! one; tests put an in-memory world in its place that fails at any call.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    kubernetes::TemplateChange,
    model::{
        AccountName, ArmId, Audience, ClientId, ClusterName, Issuer, Namespace, PrincipalId,
        Project, RemoteFailure, RoleId, Subject, TenantId,
        desired::{Feature, Probe},
        snapshot::{
            Injected, ObservedAccount, ObservedAssignment, ObservedCluster, ObservedCredential,
            ObservedIdentity, ObservedPod, ObservedTemplate,
        },
    },
    plan::step::TemplateRef,
    prove::{
        Probed,
        retry::{Age, Window},
    },
};

/// Called before every wait with what is waited for, as a fragment after "waiting for".
pub type Notes = Arc<dyn Fn(&str) + Send + Sync>;

/// A namespace and an account in a cluster.
#[derive(Debug, Clone, Copy)]
pub struct AccountRef<'a> {
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// The namespace.
    pub namespace: &'a Namespace,
    /// The account.
    pub account: &'a AccountName,
}

impl fmt::Display for AccountRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, namespace, account } = self;
        write!(f, "service account {namespace}/{account} in cluster {cluster}")
    }
}

/// A role assignment to be put.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment<'a> {
    /// The scope.
    pub scope: &'a ArmId,
    /// The GUID name.
    pub name: Uuid,
    /// The principal.
    pub principal: PrincipalId,
    /// The role.
    pub role: RoleId,
    /// An ABAC condition (version 2.0).
    pub condition: Option<&'a str>,
    /// The mark.
    pub description: &'a str,
}

/// How putting a role assignment went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    /// It was made or updated.
    Made,
    /// The triple is assigned under another name, where Azure says which.
    Existed(Option<String>),
}

/// What is to be proved, all values known.
#[derive(Debug, Clone, PartialEq)]
pub struct Proving<'a> {
    /// The identity, whose credentials are read when Entra refuses.
    pub identity: &'a ArmId,
    /// Whose token.
    pub namespace: &'a Namespace,
    /// The account.
    pub account: &'a AccountName,
    /// The client id that asks.
    pub client: ClientId,
    /// Whom the token must be for.
    pub principal: PrincipalId,
    /// The tenant.
    pub tenant: TenantId,
    /// The issuer that the account's token must carry.
    pub issuer: Issuer,
    /// The audience to ask for.
    pub audience: &'a Audience,
    /// What the file grants, in words.
    pub grants: &'a [String],
    /// A data-plane request with the exchanged identity.
    pub probe: Option<&'a Probe>,
    /// How old the credential is.
    pub age: Age,
    /// Over how long Entra's answers must lie.
    pub window: Window,
    /// How long may be asked again.
    pub deadline: Duration,
}

/// The pod of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodRun<'a> {
    /// What it runs.
    pub image: &'a str,
    /// The wall time.
    pub now: Timestamp,
}

/// What a proof saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The issuer of the account's token.
    pub issuer: Issuer,
    /// Its subject.
    pub subject: Subject,
    /// Its audience.
    pub audience: Audience,
    /// Whom Entra's token is for.
    pub principal: PrincipalId,
    /// How often was asked.
    pub attempts: u32,
    /// How many answers in a row came at the end.
    pub answers: u32,
    /// How the account's token was got.
    pub method: String,
    /// What came of the probe.
    pub probe: Option<Probed>,
}

/// The service-account fields of one server-side apply: the complete set this manager owns.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountFields<'a> {
    /// The UID the object must have.
    pub uid: &'a str,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Whether fields of other managers are taken over.
    pub force: bool,
}

/// Azure, Entra and the clusters. A failure of kind `Conflict` means that the world is not as it
/// was when planned. Reads may be repeated; writes are made once for each call.
#[async_trait]
pub trait Remote: Send + Sync {
    /// The owner mark.
    fn project(&self) -> &Project;
    /// The beginning of a kubectl command for a cluster, without the namespace.
    fn kubectl(&self, cluster: &ClusterName) -> String;

    /// ARM's record of a cluster.
    async fn cluster(&self, id: &ArmId) -> Result<Option<ObservedCluster>, RemoteFailure>;
    /// Switches features on and waits for the cluster to finish.
    async fn enable_features(
        &self,
        id: &ArmId,
        features: &BTreeSet<Feature>,
        notes: Notes,
    ) -> Result<ObservedCluster, RemoteFailure>;
    /// An identity.
    async fn identity(&self, id: &ArmId) -> Result<Option<ObservedIdentity>, RemoteFailure>;
    /// Makes an identity.
    async fn create_identity(
        &self,
        id: &ArmId,
        location: &str,
        tags: &BTreeMap<String, String>,
        notes: Notes,
    ) -> Result<ObservedIdentity, RemoteFailure>;
    /// Sets the complete map of tags.
    async fn set_identity_tags(
        &self,
        id: &ArmId,
        tags: &BTreeMap<String, String>,
        notes: Notes,
    ) -> Result<(), RemoteFailure>;
    /// The federated credentials of an identity; none where it does not exist.
    async fn credentials(
        &self,
        identity: &ArmId,
    ) -> Result<Option<Vec<ObservedCredential>>, RemoteFailure>;
    /// Makes or replaces a federated credential.
    async fn put_credential(
        &self,
        identity: &ArmId,
        credential: &ObservedCredential,
        notes: Notes,
    ) -> Result<(), RemoteFailure>;
    /// The role assignments of a principal that a scope shows.
    async fn assignments(
        &self,
        scope: &ArmId,
        principal: PrincipalId,
    ) -> Result<Vec<ObservedAssignment>, RemoteFailure>;
    /// Makes or updates a role assignment.
    async fn put_assignment(
        &self,
        assignment: &Assignment<'_>,
        notes: Notes,
    ) -> Result<Assigned, RemoteFailure>;

    /// Exchanges a token of the account for one of the identity, asking again while that promises
    /// to help.
    async fn prove(
        &self,
        cluster: &ClusterName,
        proving: &Proving<'_>,
        notes: Notes,
    ) -> Result<Proved, RemoteFailure>;

    /// Proves the same by a pod that runs as the account, and removes it also when `stop` comes
    /// first: this call ends by itself within seconds of that, and must not be given up before.
    async fn prove_by_pod(
        &self,
        cluster: &ClusterName,
        proving: &Proving<'_>,
        pod: PodRun<'_>,
        stop: BoxFuture<'_, ()>,
        notes: Notes,
    ) -> Result<Proved, RemoteFailure>;

    /// The issuer of a token of an account.
    async fn token_issuer(
        &self,
        at: AccountRef<'_>,
        audience: &Audience,
    ) -> Result<Issuer, RemoteFailure>;
    /// A service account.
    async fn account(&self, at: AccountRef<'_>) -> Result<Option<ObservedAccount>, RemoteFailure>;
    /// Makes a bare service account.
    async fn create_account(&self, at: AccountRef<'_>) -> Result<ObservedAccount, RemoteFailure>;
    /// Sets the fields of a service account.
    async fn apply_account(
        &self,
        at: AccountRef<'_>,
        fields: &AccountFields<'_>,
    ) -> Result<(), RemoteFailure>;
    /// What the API server would make of a labelled pod of this template, that asks for the
    /// migration sidecar or not; none where the controller does not exist.
    async fn dry_run_pod(
        &self,
        at: AccountRef<'_>,
        like: &TemplateRef,
        proxy: bool,
    ) -> Result<Option<Injected>, RemoteFailure>;
    /// A controller and its pod template.
    async fn template(
        &self,
        cluster: &ClusterName,
        target: &TemplateRef,
    ) -> Result<Option<ObservedTemplate>, RemoteFailure>;
    /// Sets and takes away fields of a controller and its pod template, in one write that rolls its
    /// pods once.
    async fn apply_template(
        &self,
        cluster: &ClusterName,
        target: &TemplateRef,
        change: TemplateChange<'_>,
    ) -> Result<ObservedTemplate, RemoteFailure>;
    /// The controllers of a namespace.
    async fn templates(
        &self,
        cluster: &ClusterName,
        namespace: &Namespace,
    ) -> Result<Vec<ObservedTemplate>, RemoteFailure>;
    /// The pods of an account.
    async fn pods(
        &self,
        cluster: &ClusterName,
        namespace: &Namespace,
        account: &AccountName,
    ) -> Result<Vec<ObservedPod>, RemoteFailure>;
}
