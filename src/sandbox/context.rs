//! What every emulated service shares: the world, its clock, its settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    clock::{Clock, Ids},
    endpoints::Endpoints,
    faults::Faults,
    late::Late,
    limits::Buckets,
    store::Store,
    tokens::SigningKey,
};

/// The world and its rules, shared by all emulated services.
pub struct Context {
    /// All documents of the world.
    pub store: Store,
    /// The time that propagation, tokens and time stamps follow.
    pub clock: Clock,
    /// Where invented identifiers come from.
    pub ids: Ids,
    /// The rules of this world.
    pub settings: Settings,
    /// Where the services listen; known once they are up.
    pub endpoints: Endpoints,
    /// Faults to play and the request log.
    pub faults: Faults,
    /// Parsed signing keys by store key: parsing RSA for each token would dominate a request.
    pub(super) keys: Mutex<BTreeMap<String, Arc<SigningKey>>>,
    /// Identities under which a federated credential is being written.
    pub(super) writing: Mutex<BTreeSet<String>>,
    /// The published throttles.
    pub(super) buckets: Buckets,
    /// Clusters that came after the start.
    pub(super) late: Late,
}

impl Context {
    /// A context over `store`, with no endpoint up and no fault set.
    pub fn new(store: Store, clock: Clock, ids: Ids, settings: Settings) -> Self {
        Self {
            store,
            clock,
            ids,
            settings,
            endpoints: Endpoints::default(),
            faults: Faults::default(),
            keys: Mutex::new(BTreeMap::new()),
            writing: Mutex::new(BTreeSet::new()),
            buckets: Buckets::default(),
            late: Late::default(),
        }
    }
}

/// An emulated or real cluster of the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRef {
    /// The name that the configuration, the ready file and kubeconfig contexts use.
    pub name: String,
    /// The ARM id, in the case that the configuration wrote.
    pub id: String,
}

impl ClusterRef {
    /// The ARM id in the form that store keys use: lower case, without the leading slash.
    pub fn key(&self) -> String {
        self.id.to_lowercase().trim_start_matches('/').to_owned()
    }
}

/// The rules of a world. Plain data: a run may override what the world was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The tenant that every identity and token belongs to.
    pub tenant: Uuid,
    /// The subscription that `az` and the ready file show as the default one.
    pub subscription: Uuid,
    /// The application id of the principal that may do everything.
    pub operator: Uuid,
    /// How long writes take to be seen.
    pub delays: Delays,
    /// Whether the published throttles answer 429.
    pub limits: bool,
    /// Which pod layout the workload identity webhook writes.
    pub webhook_layout: WebhookLayout,
    /// The version that emulated API servers and new clusters report, such as `1.33.5`.
    pub kubernetes_version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: Uuid::from_u128(0x5a0d_b0c5_0000_4000_8000_0000_0000_0001),
            subscription: Uuid::from_u128(0x5a0d_b0c5_0000_4000_8000_0000_0000_0002),
            operator: Uuid::from_u128(0x5a0d_b0c5_0000_4000_8000_0000_0000_0003),
            delays: Delays::default(),
            limits: false,
            webhook_layout: WebhookLayout::V1_6,
            kubernetes_version: "1.33.5".to_owned(),
        }
    }
}

/// Propagation delays. Microsoft documents ranges (seconds to minutes); these are choices that
/// make waiting visible without being slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delays {
    /// Until Entra matches a new or changed federated credential.
    pub fic: Duration,
    /// How long a write of a federated credential takes; another one on the same identity is
    /// refused meanwhile.
    pub fic_write: Duration,
    /// Until a role assignment, or its removal, is honoured.
    pub role: Duration,
    /// Until an update of a cluster, or of a scale set, has ended.
    pub cluster_update: Duration,
    /// Until the Authorization service finds a new principal by itself (`PrincipalNotFound`).
    pub principal: Duration,
    /// Until a federated credential may be written under a new identity
    /// (`ParentResourceNotFound`).
    pub parent: Duration,
    /// Until a list shows what was made; reads by id show it at once.
    pub list: Duration,
    /// How long Entra remembers that nothing matched; zero remembers nothing.
    pub negative_cache: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            fic: Duration::from_secs(2),
            fic_write: Duration::from_millis(30),
            role: Duration::from_secs(3),
            cluster_update: Duration::from_secs(3),
            principal: Duration::ZERO,
            parent: Duration::ZERO,
            list: Duration::ZERO,
            negative_cache: Duration::ZERO,
        }
    }
}

impl Delays {
    /// A world in which every write is seen at once.
    pub fn none() -> Self {
        Self {
            fic: Duration::ZERO,
            role: Duration::ZERO,
            cluster_update: Duration::ZERO,
            ..Self::default()
        }
    }
}

/// The two pod layouts that releases of azure-workload-identity inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookLayout {
    /// Releases up to 1.5.
    #[serde(rename = "v1.5")]
    V1_5,
    /// Release 1.6 and later.
    #[serde(rename = "v1.6")]
    V1_6,
}
