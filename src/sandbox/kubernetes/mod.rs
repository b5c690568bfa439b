//! An emulated Kubernetes API server with the controllers that a cluster runs.
//!
//! Objects live in the world's store under `kube/<cluster key>/<group>/<resource>/<namespace>/<name>`
//! (`core` for the core group, `-` for objects without a namespace). A request is handled in one
//! store lock ([`storage::Tx`]); after a write the controllers run until nothing is left to do
//! ([`Kubernetes::reconcile`]). What must wait, such as a pod that starts, waits on the world's clock
//! and is caught up by the next request.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "JSON values and types of the schema: what is not named has no meaning there"
)]

mod admission;
mod apply;
mod auth;
mod cluster;
mod controllers;
mod defaults;
mod delete;
mod discovery;
mod duplicates;
mod error;
mod fields;
mod http;
mod impersonation;
mod kinds;
mod kubelet;
mod list;
mod objects;
mod openapi;
mod patch;
mod pods;
mod protobuf;
mod request;
mod review;
mod scale;
mod schema;
mod selectors;
mod server_side_apply;
mod storage;
mod tables;
mod token_request;
mod validation;
mod verbs;
mod watch;
pub mod webhook;

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::Value;

use super::context::{ClusterRef, Context};

pub use auth::{Rule, TokenRules};
pub use cluster::Options;
pub(super) use kubelet::Kubelet;

/// The API server and controllers of one emulated cluster.
pub struct Kubernetes {
    ctx: Arc<Context>,
    cluster: ClusterRef,
    /// `kube/<cluster key>/`.
    prefix: String,
    state: Mutex<storage::State>,
    /// Rings with the newest resource version after each write.
    bell: tokio::sync::watch::Sender<u64>,
}

impl Kubernetes {
    /// The API server of `cluster` over the world's store; what the store already holds is found
    /// again. Namespaces, nodes and roles that every cluster has are made if they are absent.
    pub fn new(ctx: Arc<Context>, cluster: ClusterRef) -> Arc<Self> {
        let prefix = format!("kube/{}/", cluster.key());
        let (bell, _) = tokio::sync::watch::channel(0);
        let kube = Arc::new(Self {
            ctx,
            cluster,
            prefix,
            state: Mutex::new(storage::State::default()),
            bell,
        });
        kube.load();
        kube.bootstrap();
        kube.reconcile();
        kube
    }

    /// Creates those of `objects` that are absent, as the cluster's administrator. Objects that
    /// are refused are returned with the refusal's message.
    pub fn seed_objects(&self, objects: Vec<Value>) -> Vec<(Value, String)> {
        let mut refused = Vec::new();
        for object in objects {
            let result = self.seed(&object);
            self.reconcile();
            if let Err(status) = result
                && status.reason != "AlreadyExists"
            {
                refused.push((object, status.message));
            }
        }
        refused
    }

    fn seed(&self, object: &Value) -> error::Outcome<()> {
        let kinds = self.kinds();
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let name = object["kind"].as_str().unwrap_or_default();
        let kind = kinds
            .of(version, name)
            .or_else(|| kinds.of("batch/v1beta1", name))
            .ok_or_else(error::Status::no_such_path)?;
        let namespace = if kind.namespaced {
            object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned()
        } else {
            String::new()
        };
        let mut tx = self.begin();
        tx.create(kind, &namespace, object.clone(), &objects::Writer::system("widentity-sandbox"))
            .map(drop)
    }

    /// The present of this world.
    fn now(&self) -> Timestamp {
        self.ctx.clock.now()
    }
}
