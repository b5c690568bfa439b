//! The real world: Azure and the clusters behind [`Remote`], every failure named by what was tried.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::remote::{
    AccountFields, AccountRef, Assigned, Assignment, Notes, PodRun, Proved, Proving, Remote,
};
use crate::{
    azure::{Arm, ArmError, NewAssignment, PutAssignment},
    kubernetes::{Client, Connection, Place, TemplateChange, Within},
    model::{
        AccountName, ArmId, Audience, ClusterName, FailureKind, Issuer, Namespace, PrincipalId,
        Project, RemoteFailure,
        desired::Feature,
        kubectl::kubectl,
        names,
        snapshot::{
            Injected, ObservedAccount, ObservedAssignment, ObservedCluster, ObservedCredential,
            ObservedIdentity, ObservedPod, ObservedTemplate,
        },
    },
    plan::step::TemplateRef,
    prove::{PodTerms, Proof, Prover, ResolvedClaim, Terms},
};

/// Azure, Entra and the clusters of a run.
#[derive(Debug, Clone)]
pub struct Remotes {
    /// Azure Resource Manager.
    pub arm: Arm,
    /// Entra and data planes.
    pub prover: Prover,
    /// The API servers.
    pub clusters: BTreeMap<ClusterName, RemoteCluster>,
    /// The owner mark; also decides the field manager.
    pub project: Project,
}

/// One API server.
#[derive(Debug, Clone)]
pub struct RemoteCluster {
    /// How it is reached.
    pub connection: Connection,
    /// The kubeconfig context that people reach it by, for commands in hints.
    pub context: Option<String>,
    /// The kubeconfig, where it is not the usual one.
    pub kubeconfig: Option<String>,
}

fn azure(tried: String) -> impl FnOnce(ArmError) -> RemoteFailure {
    move |error| error.failure(tried)
}

impl Remotes {
    async fn client(&self, cluster: &ClusterName) -> Result<Client, RemoteFailure> {
        match self.clusters.get(cluster) {
            Some(cluster) => cluster.connection.client().await,
            None => Err(RemoteFailure::new(
                FailureKind::NotReached,
                format!("connect to cluster {cluster}"),
                "the configuration does not say how",
            )),
        }
    }

    fn manager(&self) -> String {
        names::field_manager(&self.project)
    }

    /// The same client, telling this step what it waits for.
    fn arm(&self, notes: Notes) -> Arm {
        self.arm.with_waits(notes)
    }
}

fn claim(proving: &Proving<'_>) -> ResolvedClaim {
    ResolvedClaim {
        namespace: proving.namespace.clone(),
        account: proving.account.clone(),
        identity: proving.identity.clone(),
        client: proving.client,
        principal: proving.principal,
        tenant: proving.tenant,
        issuer: proving.issuer.clone(),
        audience: proving.audience.clone(),
        grants: proving.grants.to_vec(),
    }
}

fn proved(proof: Proof) -> Proved {
    Proved {
        issuer: proof.iss,
        subject: proof.sub,
        audience: proof.aud,
        principal: proof.oid,
        attempts: proof.attempts,
        answers: proof.answers,
        method: proof.method.as_str().to_owned(),
        probe: proof.probe,
    }
}

#[async_trait]
impl Remote for Remotes {
    fn project(&self) -> &Project {
        &self.project
    }

    fn kubectl(&self, cluster: &ClusterName) -> String {
        let cluster = self.clusters.get(cluster);
        let kubeconfig = cluster.and_then(|cluster| cluster.kubeconfig.as_deref());
        kubectl(kubeconfig, cluster.and_then(|cluster| cluster.context.as_deref()))
    }

    async fn cluster(&self, id: &ArmId) -> Result<Option<ObservedCluster>, RemoteFailure> {
        self.arm.cluster(id).await.map_err(azure(format!("read cluster {}", id.name())))
    }

    async fn enable_features(
        &self,
        id: &ArmId,
        features: &BTreeSet<Feature>,
        notes: Notes,
    ) -> Result<ObservedCluster, RemoteFailure> {
        let words: Vec<&str> = features.iter().map(|feature| feature.as_str()).collect();
        let tried = format!("enable {} on cluster {}", words.join(" and "), id.name());
        self.arm(notes).enable_features(id, features).await.map_err(azure(tried))
    }

    async fn identity(&self, id: &ArmId) -> Result<Option<ObservedIdentity>, RemoteFailure> {
        self.arm.identity(id).await.map_err(azure(format!("read identity {}", id.name())))
    }

    async fn create_identity(
        &self,
        id: &ArmId,
        location: &str,
        tags: &BTreeMap<String, String>,
        notes: Notes,
    ) -> Result<ObservedIdentity, RemoteFailure> {
        let tried = format!("create identity {}", id.name());
        self.arm(notes).create_identity(id, location, tags).await.map_err(azure(tried))
    }

    async fn set_identity_tags(
        &self,
        id: &ArmId,
        tags: &BTreeMap<String, String>,
        notes: Notes,
    ) -> Result<(), RemoteFailure> {
        let tried = format!("tag identity {}", id.name());
        self.arm(notes).set_identity_tags(id, tags).await.map_err(azure(tried))
    }

    async fn credentials(
        &self,
        identity: &ArmId,
    ) -> Result<Option<Vec<ObservedCredential>>, RemoteFailure> {
        let tried = format!("list federated credentials of identity {}", identity.name());
        self.arm.credentials(identity).await.map_err(azure(tried))
    }

    async fn put_credential(
        &self,
        identity: &ArmId,
        credential: &ObservedCredential,
        notes: Notes,
    ) -> Result<(), RemoteFailure> {
        let tried =
            format!("put federated credential {} on identity {}", credential.name, identity.name());
        self.arm(notes).put_credential(identity, credential).await.map_err(azure(tried))
    }

    async fn assignments(
        &self,
        scope: &ArmId,
        principal: PrincipalId,
    ) -> Result<Vec<ObservedAssignment>, RemoteFailure> {
        let tried = format!("list role assignments of principal {principal} at {scope}");
        self.arm.assignments_at(scope, Some(principal)).await.map_err(azure(tried))
    }

    async fn put_assignment(
        &self,
        assignment: &Assignment<'_>,
        notes: Notes,
    ) -> Result<Assigned, RemoteFailure> {
        let Assignment { scope, name, principal, role, condition, description } = assignment;
        let new = NewAssignment {
            scope: (*scope).clone(),
            name: *name,
            principal: *principal,
            role: *role,
            description: (*description).to_owned(),
            condition: condition.map(str::to_owned),
        };
        let tried = format!("assign role {role} to principal {principal} at {scope}");
        match self.arm(notes).put_assignment(&new).await.map_err(azure(tried))? {
            PutAssignment::Made => Ok(Assigned::Made),
            PutAssignment::Existed(name) => {
                Ok(Assigned::Existed(name.map(|name| name.to_string())))
            }
        }
    }

    async fn prove(
        &self,
        cluster: &ClusterName,
        proving: &Proving<'_>,
        notes: Notes,
    ) -> Result<Proved, RemoteFailure> {
        let claim = claim(proving);
        let client = self.client(cluster).await?;
        let terms = Terms {
            probe: proving.probe,
            age: proving.age,
            window: proving.window,
            deadline: Instant::now() + proving.deadline,
        };
        let mut progress = |what: String| notes(&what);
        let proof = self.prover.prove(&client, &claim, terms, &mut progress).await?;
        Ok(proved(proof))
    }

    async fn prove_by_pod(
        &self,
        cluster: &ClusterName,
        proving: &Proving<'_>,
        pod: PodRun<'_>,
        stop: BoxFuture<'_, ()>,
        notes: Notes,
    ) -> Result<Proved, RemoteFailure> {
        let client = self.client(cluster).await?;
        let terms = PodTerms {
            project: &self.project,
            image: pod.image,
            window: proving.window,
            now: pod.now,
            deadline: Instant::now() + proving.deadline,
        };
        let claim = claim(proving);
        let mut progress = |what: String| notes(&what);
        let proof = self.prover.prove_by_pod(&client, &claim, terms, &mut progress, stop).await?;
        Ok(proved(proof))
    }

    async fn token_issuer(
        &self,
        at: AccountRef<'_>,
        audience: &Audience,
    ) -> Result<Issuer, RemoteFailure> {
        let client = self.client(at.cluster).await?;
        let issued = client.token(at.namespace, at.account, audience, names::SHORTEST_TOKEN).await;
        let issued = issued.map_err(|e| e.failure(format!("request a token of {at}")))?;
        Ok(issued.iss)
    }

    async fn account(&self, at: AccountRef<'_>) -> Result<Option<ObservedAccount>, RemoteFailure> {
        let client = self.client(at.cluster).await?;
        let account = client.account(at.namespace, at.account).await;
        account.map_err(|e| e.failure(format!("read {at}")))
    }

    async fn create_account(&self, at: AccountRef<'_>) -> Result<ObservedAccount, RemoteFailure> {
        let client = self.client(at.cluster).await?;
        let made = client.create_account(at.namespace, at.account, &self.manager()).await;
        made.map_err(|e| e.failure(format!("create {at}")))
    }

    async fn apply_account(
        &self,
        at: AccountRef<'_>,
        fields: &AccountFields<'_>,
    ) -> Result<(), RemoteFailure> {
        let AccountFields { uid, annotations, force } = fields;
        let client = self.client(at.cluster).await?;
        let applied = client
            .apply_account(
                at.namespace,
                at.account,
                Some(uid),
                annotations,
                &self.manager(),
                *force,
            )
            .await;
        applied.map_err(|e| e.failure(format!("annotate {at}"))).map(drop)
    }

    async fn dry_run_pod(
        &self,
        at: AccountRef<'_>,
        like: &TemplateRef,
        proxy: bool,
    ) -> Result<Option<Injected>, RemoteFailure> {
        let client = self.client(at.cluster).await?;
        let TemplateRef { namespace, kind, api_version, name, .. } = like;
        let manager = self.manager();
        let injected =
            client.dry_run_like(*kind, api_version, namespace, name, proxy, &manager).await;
        injected.map_err(|e| e.failure(format!("dry-run a labelled pod of {like} as {at}")))
    }

    async fn template(
        &self,
        cluster: &ClusterName,
        target: &TemplateRef,
    ) -> Result<Option<ObservedTemplate>, RemoteFailure> {
        let TemplateRef { namespace, kind, api_version, name, .. } = target;
        let client = self.client(cluster).await?;
        let template = client.template(*kind, api_version, namespace, name).await;
        template.map_err(|e| e.failure(format!("read {target}")))
    }

    async fn apply_template(
        &self,
        cluster: &ClusterName,
        target: &TemplateRef,
        change: TemplateChange<'_>,
    ) -> Result<ObservedTemplate, RemoteFailure> {
        let TemplateRef { namespace, kind, api_version, name, uid } = target;
        let at = Place { kind: *kind, api_version, namespace, name, uid };
        let client = self.client(cluster).await?;
        let applied = client.apply_template(at, change, &self.manager()).await;
        applied.map_err(|e| e.failure(format!("patch {target}")))
    }

    async fn templates(
        &self,
        cluster: &ClusterName,
        namespace: &Namespace,
    ) -> Result<Vec<ObservedTemplate>, RemoteFailure> {
        let client = self.client(cluster).await?;
        let found = client.templates(Within::Namespace(namespace)).await;
        let mut found =
            found.map_err(|e| e.failure(format!("list pod templates of namespace {namespace}")))?;
        Ok(found.remove(namespace).unwrap_or_default())
    }

    async fn pods(
        &self,
        cluster: &ClusterName,
        namespace: &Namespace,
        account: &AccountName,
    ) -> Result<Vec<ObservedPod>, RemoteFailure> {
        let found = self.client(cluster).await?.pods_of_account(namespace, account).await;
        found.map_err(|e| e.failure(format!("list pods of account {namespace}/{account}")))
    }
}
