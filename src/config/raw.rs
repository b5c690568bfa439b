//! The file as it is written: every key with its place, nothing checked beyond its type. The JSON
//! Schema in `schema/` is generated from these types and their comments.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    source::{Located, Span},
    table::Word,
};

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

macro_rules! words {
    ($(#[doc = $doc:literal] $name:ident {
        $(#[doc = $word_doc:literal] $variant:ident = $word:literal,)*
    })*) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
        pub enum $name {
            $(#[doc = $word_doc] #[schemars(rename = $word)] $variant,)*
        }

        impl Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)*];
        }
    )*};
}

words! {
    /// A cloud of Azure.
    CloudName {
        /// The public cloud.
        Public = "public",
        /// Azure US Government.
        UsGov = "usgov",
        /// Azure operated by 21Vianet.
        China = "china",
    }
    /// How much of a cluster is managed.
    Access {
        /// Service accounts and pod templates are managed, identities proved.
        Kubernetes = "kubernetes",
        /// The Azure side only: nothing in the cluster is read, written or proved.
        None = "none",
    }
    /// A feature of AKS that may be switched on. Neither can be undone.
    Feature {
        /// The OIDC issuer.
        OidcIssuer = "oidc-issuer",
        /// The workload identity add-on.
        WorkloadIdentity = "workload-identity",
    }
    /// When pods are rolled.
    Rollout {
        /// In the same run, after the proof.
        Auto = "auto",
        /// With the team's next deployment.
        NextDeploy = "next-deploy",
        /// By somebody else.
        Never = "never",
    }
    /// Who writes the objects in the cluster.
    ManagedBy {
        /// widentity, except what bears the marks of Argo CD, Flux or Helm under GitOps.
        Auto = "auto",
        /// widentity, whatever the marks say.
        Widentity = "widentity",
        /// Git: nothing is written in the cluster.
        Git = "git",
    }
    /// A service that a probe asks.
    ProbeKind {
        /// Lists one secret's name of a Key Vault.
        KeyVault = "key-vault",
        /// Lists one container of a Blob endpoint.
        Blob = "blob",
        /// Lists keys of an App Configuration store.
        AppConfiguration = "app-configuration",
        /// Reads the target from Azure Resource Manager.
        ResourceManager = "resource-manager",
    }
}

/// A widentity configuration: which service accounts act as which Azure identities, with which roles.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Workloads")]
pub struct File {
    /// The version of this format.
    #[schemars(with = "u8", range(min = 1, max = 1))]
    pub version: Option<Located<i64>>,
    /// The owner mark on everything that is made, unique per subscription.
    #[schemars(with = "String", regex(pattern = r"^[a-z0-9-]{1,40}$"))]
    pub project: Option<Located<String>>,
    /// Files with more `[[workloads]]` and `[targets]`, relative to this one. `*`, `?` and `**` match.
    #[schemars(with = "Option<Vec<String>>")]
    pub include: Vec<Located<String>>,
    /// Where identities live.
    #[schemars(with = "Azure")]
    pub azure: Option<Azure>,
    /// The clusters, by a name of your choice.
    #[schemars(with = "Option<BTreeMap<String, Cluster>>")]
    pub clusters: Vec<(Located<String>, Cluster)>,
    /// Names for the ids of targets.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub targets: Vec<(Located<String>, Located<String>)>,
    /// What workloads that do not say otherwise get.
    #[schemars(with = "Option<Defaults>")]
    pub defaults: Defaults,
    /// How workloads leave AAD Pod Identity.
    #[schemars(with = "Option<Migrate>")]
    pub migrate: Migrate,
    /// The workloads.
    #[schemars(with = "Option<Vec<Workload>>")]
    pub workloads: Vec<Workload>,
}

/// Where identities live, and in which cloud.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Azure {
    /// The Entra tenant's GUID.
    #[schemars(with = "String", regex(pattern = GUID))]
    pub tenant: Option<Located<String>>,
    /// The GUID of the subscription in which identities are made.
    #[schemars(with = "String", regex(pattern = GUID))]
    pub subscription: Option<Located<String>>,
    /// The resource group in which identities are made. It must exist.
    #[schemars(with = "String", length(min = 1, max = 90))]
    pub resource_group: Option<Located<String>>,
    /// The region of new identities, for example `westeurope`.
    #[schemars(with = "String", regex(pattern = r"^[a-z0-9]+$"))]
    pub location: Option<Located<String>>,
    /// The cloud; `public` if absent.
    pub cloud: Option<Cloud>,
    /// Tags of new identities, beside widentity's own.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub tags: Vec<(Located<String>, Located<String>)>,
}

const GUID: &str = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";

/// A cloud, by name or by its endpoints.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Cloud {
    /// One of Azure's clouds.
    Named(Located<CloudName>),
    /// Any other: Azure Stack, an emulator.
    Custom(CustomCloud),
}

/// The endpoints of a cloud.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CustomCloud {
    /// The URL of Azure Resource Manager.
    #[schemars(with = "String", url)]
    pub resource_manager: Option<Located<String>>,
    /// The URL of the token endpoint's host.
    #[schemars(with = "String", url)]
    pub authority: Option<Located<String>>,
    /// A PEM file of certificate authorities to trust beside the system's, relative to this file.
    pub ca_file: Option<Located<String>>,
}

/// An AKS cluster.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Cluster {
    /// Where the table begins.
    #[schemars(skip)]
    pub span: Span,
    /// The id: `/subscriptions/…/resourceGroups/…/providers/Microsoft.ContainerService/managedClusters/…`.
    #[schemars(with = "String", regex(pattern = "^/[sS]ubscriptions/"))]
    pub id: Option<Located<String>>,
    /// A context of the kubeconfig. Absent: server and CA come from Azure, with your own token.
    pub context: Option<Located<String>>,
    /// The kubeconfig, relative to this file. Absent: the one kubectl would use.
    pub kubeconfig: Option<Located<String>>,
    /// How much is managed; `kubernetes` if absent.
    pub access: Option<Located<Access>>,
    /// What may be switched on. Neither can be undone.
    pub enable: Option<Located<Vec<Located<Feature>>>>,
    /// The audience of federated tokens; `api://AzureADTokenExchange` if absent, in every cloud.
    #[schemars(with = "Option<String>", length(min = 1, max = 600))]
    pub audience: Option<Located<String>>,
}

/// What workloads that do not say otherwise get.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Defaults {
    /// The clusters; `["*"]` for all.
    pub clusters: Option<Located<Vec<Located<String>>>>,
    /// The names of identities, from `{project}`, `{namespace}` and `{service_account}`.
    pub identity_name: Option<Located<String>>,
    /// When pods are rolled.
    pub rollout: Option<Located<Rollout>>,
    /// Who writes the objects in the cluster.
    pub managed_by: Option<Located<ManagedBy>>,
    /// The lifetime of federated tokens in seconds.
    #[schemars(with = "Option<u32>", range(min = 3600, max = 86400))]
    pub token_expiration: Option<Located<i64>>,
}

/// How workloads leave AAD Pod Identity.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Migrate {
    /// How long proved pods run before `migrate finish` may remove their binding, for example
    /// `36h` or `90m`; `24h` if absent.
    #[schemars(with = "Option<String>", regex(pattern = r"^([0-9]+ ?[hms] ?)+$"))]
    pub soak: Option<Located<String>>,
}

/// A service account in one or more clusters, with its grants.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Workload {
    /// Where the table begins.
    #[schemars(skip)]
    pub span: Span,
    /// The namespace. It must exist.
    #[schemars(
        with = "String",
        length(max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<Located<String>>,
    /// The service account; made if absent.
    #[schemars(
        with = "String",
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub service_account: Option<Located<String>>,
    /// The clusters; `["*"]` for all. May be left out where the file has one cluster.
    pub clusters: Option<Located<Vec<Located<String>>>>,
    /// What the role is on: a key of `[targets]`, or an id.
    pub target: Option<Located<String>>,
    /// The role: a name, a GUID or an id.
    pub role: Option<Located<String>>,
    /// Several grants, or `[]` for none, instead of `target` and `role`.
    pub grants: Option<Located<Vec<Grant>>>,
    /// An identity by name (made if absent) or by full id (must exist, never touched).
    pub identity: Option<Located<String>>,
    /// The pod templates to label, as kind/name. Absent: every one that uses the account.
    pub pods: Option<Located<Vec<Located<String>>>>,
    /// The tenant's GUID, where it is not that of `[azure]`.
    #[schemars(with = "Option<String>", regex(pattern = GUID))]
    pub tenant: Option<Located<String>>,
    /// The lifetime of federated tokens in seconds.
    #[schemars(with = "Option<u32>", range(min = 3600, max = 86400))]
    pub token_expiration: Option<Located<i64>>,
    /// When pods are rolled; `auto` if absent.
    pub rollout: Option<Located<Rollout>>,
    /// Who writes the objects in the cluster; `auto` if absent.
    pub managed_by: Option<Located<ManagedBy>>,
    /// Whether fields of other managers and an unmarked identity may be taken over.
    pub adopt: Option<Located<bool>>,
    /// A data-plane request that proves that the grants work.
    pub probe: Option<Probe>,
    /// Whether pods get the migration sidecar, for SDKs that only ask the metadata endpoint.
    /// Microsoft does not support it in production.
    pub proxy: Option<Located<bool>>,
    /// Whether the program presents its identity's token as a credential of something else, such
    /// as an application that trusts the managed identity. Entra refuses that of a federated
    /// identity: `true` keeps `migrate` away from the workload, `false` says that it does not.
    pub chained: Option<Located<bool>>,
    /// Whether the identity is tagged so that nothing deletes it.
    pub protect: Option<Located<bool>>,
}

/// A role on a target.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Grant {
    /// Where the inline table is.
    #[schemars(skip)]
    pub span: Span,
    /// The role: a name, a GUID or an id.
    #[schemars(with = "String")]
    pub role: Option<Located<String>>,
    /// What the role is on: a key of `[targets]`, or an id.
    #[schemars(with = "String")]
    pub target: Option<Located<String>>,
    /// An ABAC condition, version 2.0.
    pub condition: Option<Located<String>>,
}

/// A data-plane request.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Probe {
    /// The service; the URL follows from the workload's grant on one.
    Kind(Located<ProbeKind>),
    /// The service and its URL.
    Full(FullProbe),
}

/// A service and its URL.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FullProbe {
    /// Where the inline table is.
    #[schemars(skip)]
    pub span: Span,
    /// The service.
    #[schemars(with = "ProbeKind")]
    pub kind: Option<Located<ProbeKind>>,
    /// The URL, for example `https://kv-payments.vault.azure.net`; for `resource-manager` the id of
    /// a resource.
    #[schemars(with = "String")]
    pub url: Option<Located<String>>,
}
