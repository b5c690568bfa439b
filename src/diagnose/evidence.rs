//! What a diagnosis is made from: the [`model::snapshot`](crate::model::snapshot) types plus what
//! only `doctor` looks at. Plain data; whatever was not looked at is [`Observation::Unknown`] of
//! kind [`FailureKind::NotReached`], which is how a link tells "left out" from "refused".

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::Kubectl;
use crate::model::{
    AccountName, ArmId, Audience, ClientId, ClusterName, FailureKind, Issuer, Namespace, Origin,
    PrincipalId, RemoteFailure, RoleId, Subject, TenantId,
    desired::PodSelection,
    snapshot::{
        Assignments, Injected, Observation, ObservedAccount, ObservedCluster, ObservedCredential,
        ObservedIdentity, ObservedPod, ObservedTarget, ObservedTemplate,
    },
};

/// The observation of something that nobody looked at.
pub fn not_asked<T>() -> Observation<T> {
    Observation::Unknown(RemoteFailure::new(FailureKind::NotReached, "look", "it was not asked"))
}

fn not_asked_of_any<T>() -> Arc<Observation<T>> {
    Arc::new(not_asked())
}

/// Everything about one workload in one cluster. What other workloads are judged by too, a
/// namespace or a tenant, is shared with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// When it was read.
    pub now: Timestamp,
    /// What was asked about.
    pub asked: Asked,
    /// What the file says, or the command line; nothing without both.
    #[serde(default)]
    pub wanted: Wanted,
    /// ARM's record of the cluster.
    #[serde(default = "not_asked")]
    pub cluster: Observation<ObservedCluster>,
    /// The API server that was talked to.
    #[serde(default = "not_asked")]
    pub server: Observation<Server>,
    /// The issuer's discovery document, fetched as Entra does: without a credential.
    #[serde(default = "not_asked")]
    pub discovery: Observation<Discovery>,
    /// Issuers of other clusters that are known, by name.
    #[serde(default)]
    pub other_issuers: BTreeMap<String, Issuer>,
    /// Why other clusters may be missing among them, where a list failed.
    #[serde(default)]
    pub clusters_unseen: Option<RemoteFailure>,
    /// The workload identity webhook.
    #[serde(default = "not_asked")]
    pub webhook: Observation<Webhook>,
    /// What admission makes of a labelled pod that runs as the account (a server-side dry run).
    #[serde(default = "not_asked")]
    pub dry_run: Observation<DryRun>,
    /// The namespace.
    #[serde(default = "not_asked")]
    pub namespace: Observation<NamespaceFacts>,
    /// The service accounts of the namespace.
    #[serde(default = "not_asked_of_any")]
    pub accounts: Arc<Observation<BTreeMap<AccountName, ObservedAccount>>>,
    /// The pod templates of the namespace.
    #[serde(default = "not_asked_of_any")]
    pub templates: Arc<Observation<Vec<Template>>>,
    /// The live pods of the namespace.
    #[serde(default = "not_asked_of_any")]
    pub pods: Arc<Observation<Vec<ObservedPod>>>,
    /// Warnings about the namespace's pods and controllers.
    #[serde(default)]
    pub events: Vec<Event>,
    /// `SecretProviderClass` objects of the namespace, by name.
    #[serde(default)]
    pub provider_classes: BTreeMap<String, ProviderClass>,
    /// Every identity that could be listed.
    #[serde(default = "not_asked")]
    pub identities: Observation<Vec<ObservedIdentity>>,
    /// Why identities may be missing among them, where one of several lists failed.
    #[serde(default)]
    pub identities_unseen: Option<RemoteFailure>,
    /// Federated credentials, by identity.
    #[serde(default)]
    pub credentials: BTreeMap<ArmId, Observation<Vec<ObservedCredential>>>,
    /// Role assignments and where was looked.
    #[serde(default)]
    pub assignments: Arc<Assignments>,
    /// Settings of target resources.
    #[serde(default)]
    pub targets: Arc<BTreeMap<ArmId, Observation<ObservedTarget>>>,
    /// The claims of a token asked for the account.
    #[serde(default = "not_asked")]
    pub token: Observation<TokenClaims>,
    /// What Entra said to that token.
    #[serde(default = "not_asked")]
    pub exchange: Observation<Exchange>,
    /// What the target's data plane said.
    #[serde(default = "not_asked")]
    pub probe: Observation<ProbeAnswer>,
}

/// What was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The namespace.
    pub namespace: Namespace,
    /// The service account, where it was named.
    #[serde(default)]
    pub account: Option<AccountName>,
    /// `kind/name` in lower case, where a controller was named.
    #[serde(default)]
    pub object: Option<String>,
    /// The cluster's name in the file, or the kubeconfig's context.
    #[serde(default)]
    pub cluster: Option<ClusterName>,
    /// The cluster's ARM id.
    #[serde(default)]
    pub cluster_id: Option<ArmId>,
    /// How commands reach the cluster.
    #[serde(flatten)]
    pub kubectl: Kubectl,
}

/// What is wanted, as far as anybody said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Where the workload stands in a file; then `apply` is a fix.
    pub origin: Option<Origin>,
    /// The identity.
    pub identity: Option<ArmId>,
    /// The tenant.
    pub tenant: Option<TenantId>,
    /// The audience of federated tokens.
    pub audience: Option<Audience>,
    /// Their lifetime in seconds.
    pub expiration: Option<u32>,
    /// The grants; none where nobody said, empty where access is not by roles.
    pub grants: Option<Vec<Grant>>,
    /// Which templates belong to it.
    pub pods: Option<PodSelection>,
    /// Features the file may switch on.
    pub enable: Vec<String>,
    /// Whether Git, not widentity, writes the Kubernetes objects.
    pub git: bool,
    /// Whether widentity leaves the pods to a later deployment.
    pub later: bool,
}

/// A role that is wanted at a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The definition's GUID: of a built-in role, or what Azure said about the name.
    #[serde(default)]
    pub role: Option<RoleId>,
    /// The name as written; empty: any role that opens the target's data.
    pub name: String,
    /// Why the definition of the name is not known, where it could not be looked up.
    #[serde(default)]
    pub unresolved: Option<RemoteFailure>,
    /// The target.
    pub scope: ArmId,
}

/// The API server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// The host that is talked to.
    pub host: String,
    /// Its version, for example `v1.33.2`.
    pub version: String,
    /// The issuer of its own discovery document.
    #[serde(default = "not_asked")]
    pub issuer: Observation<Issuer>,
}

/// An OIDC discovery document and its key set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// The `issuer` member.
    pub issuer: Issuer,
    /// Ids of the keys in its key set; none where the key set could not be read.
    pub kids: Option<Vec<String>>,
}

/// The webhook as installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Webhook {
    /// Every webhook that would see labelled pods.
    pub configurations: Vec<WebhookConfiguration>,
    /// Ready and wanted replicas behind it, where they could be read.
    pub replicas: Option<(u32, u32)>,
    /// Its image, where it could be read.
    pub image: Option<String>,
    /// `AZURE_TENANT_ID` of its settings, where they could be read.
    pub tenant: Option<String>,
    /// `AZURE_ENVIRONMENT` of its settings.
    pub environment: Option<String>,
}

impl Webhook {
    /// The namespaces that it is installed in.
    pub fn homes(&self) -> Vec<&str> {
        let services = self.configurations.iter();
        let mut homes: Vec<&str> =
            services.filter_map(|c| c.service_namespace.as_deref()).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }
}

/// One webhook of a `MutatingWebhookConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookConfiguration {
    /// The object's name.
    pub name: String,
    /// The namespace of its service: `kube-system` for the AKS add-on.
    pub service_namespace: Option<String>,
    /// Whether a CA bundle is set; without one the API server trusts no answer.
    pub ca_bundle: bool,
    /// `Fail` or `Ignore`.
    pub failure_policy: Option<String>,
    /// Which namespaces it sees.
    pub namespace_selector: Option<Selector>,
    /// Which pods it sees; none in versions before 1.0.
    pub object_selector: Option<Selector>,
}

/// A Kubernetes label selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Selector {
    /// Exact labels.
    pub match_labels: BTreeMap<String, String>,
    /// Expressions, all of which must hold.
    pub match_expressions: Vec<Requirement>,
}

/// One expression of a [`Selector`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// Values of `In` and `NotIn`.
    pub values: Vec<String>,
}

/// What a server-side dry run of a labelled pod gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DryRun {
    /// The pod came back; this is what was injected.
    Admitted(Injected),
    /// Admission refused it with these words.
    Denied(String),
}

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A pod template with what only diagnosis looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The template.
    #[serde(flatten)]
    pub seen: ObservedTemplate,
    /// Names of its containers, init containers included.
    #[serde(default)]
    pub containers: Vec<String>,
    /// Whether its pods use the host's network.
    #[serde(default)]
    pub host_network: bool,
    /// `spec.os.name`.
    #[serde(default)]
    pub os: Option<String>,
    /// Its node selector.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Paths below `/var/run/secrets` that the manifest writes out in commands, arguments and
    /// variables.
    #[serde(default)]
    pub token_paths: Vec<String>,
    /// Audiences of service-account tokens that the manifest itself projects.
    #[serde(default)]
    pub projected: Vec<Audience>,
    /// `SecretProviderClass` objects its volumes name.
    #[serde(default)]
    pub provider_classes: Vec<String>,
    /// Variables of Azure's libraries that the manifest takes from another object.
    #[serde(default)]
    pub references: Vec<Reference>,
    /// Of a `CronJob`: the labels of the jobs it makes, which are not those of their pods.
    #[serde(default)]
    pub job_labels: BTreeMap<String, String>,
}

/// A variable whose value stands in another object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The container.
    pub container: String,
    /// The variable, for example `AZURE_CLIENT_ID`.
    pub variable: String,
    /// `ConfigMap`, `Secret`, or `field` for a part of the pod itself.
    pub kind: String,
    /// The object.
    #[serde(default)]
    pub name: String,
    /// The key in it.
    #[serde(default)]
    pub key: String,
    /// The value, where it was read. Secrets are never read.
    #[serde(default)]
    pub value: Option<String>,
}

/// A warning of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The object, as `kind/name` in lower case.
    pub object: String,
    /// For example `FailedCreate`.
    pub reason: String,
    /// What it says.
    pub message: String,
    /// When it was last said.
    #[serde(default)]
    pub last: Option<Timestamp>,
}

/// What matters of a `SecretProviderClass` of the Azure provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderClass {
    /// `usePodIdentity`.
    pub use_pod_identity: bool,
    /// `useVMManagedIdentity`.
    pub use_vm_identity: bool,
    /// `clientID`, which workload identity needs here too.
    pub client_id: Option<String>,
}

/// Claims of a service-account token. The token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// The issuer.
    pub iss: Issuer,
    /// The subject.
    pub sub: Subject,
    /// The audiences.
    pub aud: Vec<Audience>,
    /// The id of the key that signed it.
    #[serde(default)]
    pub kid: Option<String>,
    /// When it was issued, by the cluster's clock.
    #[serde(default)]
    pub issued_at: Option<Timestamp>,
}

/// One federated token exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The client id that was asked for.
    pub client: ClientId,
    /// What Entra said.
    pub outcome: ExchangeOutcome,
}

/// What Entra said to an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeOutcome {
    /// It gave a token for this principal.
    Granted {
        /// The token's `oid`, where it has one.
        principal: Option<PrincipalId>,
    },
    /// It refused.
    Refused {
        /// The numbers of `error_codes`, first first.
        codes: Vec<u32>,
        /// `error_description`.
        description: String,
    },
}

/// The data plane's answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// The URL that was listed.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The service's words; empty on success.
    #[serde(default)]
    pub message: String,
}

impl Evidence {
    /// The identity with this client id.
    pub fn identity_of(&self, client: ClientId) -> Option<&ObservedIdentity> {
        self.identities.present()?.iter().find(|identity| identity.client_id == client)
    }

    /// The identity with this id.
    pub fn identity_at(&self, id: &ArmId) -> Option<&ObservedIdentity> {
        self.identities.present()?.iter().find(|identity| identity.id == *id)
    }

    /// The principal Entra named when it granted a token to this client, `Some(None)` where it
    /// named none; none where nothing was granted.
    pub fn granted(&self, to: ClientId) -> Option<Option<PrincipalId>> {
        match &self.exchange.present()? {
            Exchange { client, outcome: ExchangeOutcome::Granted { principal } }
                if *client == to =>
            {
                Some(*principal)
            }
            Exchange { .. } => None,
        }
    }

    /// Entra's refusal of a token for this client.
    pub fn refused(&self, to: ClientId) -> Option<(&[u32], &str)> {
        match &self.exchange.present()? {
            Exchange { client, outcome: ExchangeOutcome::Refused { codes, description } }
                if *client == to =>
            {
                Some((codes, description))
            }
            Exchange { .. } => None,
        }
    }
}
