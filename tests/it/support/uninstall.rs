//! A cluster with AAD Pod Identity in the sandbox, to be uninstalled over HTTPS.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use widentity::{
    migrate::uninstall::{AzureWishes, Uninstall, Wishes},
    model::{
        ClusterName, RemoteFailure,
        desired::{Access, DesiredState},
        pod_identity::Backup,
    },
    ops::{
        Connected,
        connect::connect,
        migrate::{
            Overview, Request, Shelf, Waived, overview,
            uninstall::{self, Event, Pace, Ran, Site},
        },
    },
    sandbox::{ClusterRef, Seed, SeedCluster, clock::Clock},
};

use super::{
    arm::{Served, answered, json as with_body},
    kube_apiserver::Admin,
    pod_identity::{make, manifests},
    signed_in, worlds,
};

const API: &str = "?api-version=2025-10-01";
/// Everything is accepted, and nothing of Azure asked for.
pub(crate) const BOTH: Wishes = Wishes {
    open_metadata: true,
    disable_add_on: true,
    azure: AzureWishes { roles: false, node_identities: false },
};
/// Everything is asked for.
pub(crate) const ALL: Wishes =
    Wishes { azure: AzureWishes { roles: true, node_identities: true }, ..BOTH };

/// The sandbox, and widentity connected to it.
pub(crate) struct World {
    pub(crate) desired: DesiredState,
    pub(crate) connected: Connected,
    pub(crate) served: Served,
    pub(crate) admin: Admin,
    /// The path of the cluster's record.
    pub(crate) cluster: String,
    /// How long MIC is waited for.
    pub(crate) patience: Duration,
    /// What earlier runs wrote down.
    pub(crate) backups: Backups,
}

/// A shelf in memory.
#[derive(Debug, Default)]
pub(crate) struct Backups(pub(crate) Vec<Backup>, pub(crate) Mutex<BTreeMap<String, Value>>);

impl Shelf for Backups {
    fn put(&self, _: &ClusterName, _: &Backup) -> Result<(), RemoteFailure> {
        Ok(())
    }

    fn of(&self, _: &ClusterName) -> Vec<Backup> {
        self.0.clone()
    }

    fn keep(&self, _: &ClusterName, name: &str, object: &Value) -> Result<(), RemoteFailure> {
        self.1.lock().unwrap().insert(name.to_owned(), object.clone());
        Ok(())
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let mut desired = worlds::desired(&["prod"]);
        let cluster = desired.clusters.values_mut().next().unwrap();
        let id = cluster.id.to_string();
        let seed = Seed {
            clusters: vec![SeedCluster {
                cluster: ClusterRef { name: "prod".to_owned(), id: id.clone() },
                location: String::new(),
                oidc_issuer: true,
                workload_identity: true,
                entra: false,
                namespaces: vec!["shop".to_owned()],
                deployments: Vec::new(),
                objects: Vec::new(),
            }],
            ..Seed::default()
        };
        let served = Served::start(seed, |options| {
            options.clock = Clock::Real;
            options.settings.tenant = worlds::tenant().0;
            options.settings.subscription = worlds::subscription().0;
            options.settings.delays.cluster_update = Duration::from_millis(100);
        })
        .await;
        let ready = served.running.ready();
        let path = &ready.kubeconfigs["prod"];
        cluster.access =
            Access::Context { context: None, kubeconfig: Some(path.display().to_string()) };
        let target = signed_in::target(ready, Some(desired.tenant));
        let connected = connect(&desired, target, Arc::new(|_: &str| {})).await.unwrap();
        let admin = Admin::by(path).await;
        Self {
            desired,
            connected,
            served,
            admin,
            cluster: id,
            patience: Duration::from_mins(2),
            backups: Backups::default(),
        }
    }

    pub(crate) async fn installed() -> Self {
        let world = Self::start().await;
        make(&world.admin, &manifests("default")).await;
        world
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            desired: &self.desired,
            sandbox: true,
            now: Timestamp::now(),
            soak: SignedDuration::from_hours(24),
            waived: Waived::default(),
            shelf: &self.backups,
        }
    }

    pub(crate) async fn overview(&self) -> Overview {
        overview(self.request(), &self.connected).await
    }

    /// Reads, decides, and does it where nothing is in the way.
    pub(crate) async fn uninstall(&self, wishes: Wishes) -> (Uninstall, Option<Ran>) {
        let mut quiet = |_: Event<'_>| {};
        self.uninstall_with(wishes, &mut quiet).await
    }

    pub(crate) async fn uninstall_with(
        &self,
        wishes: Wishes,
        sink: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> (Uninstall, Option<Ran>) {
        let overview = self.overview().await;
        let sites = uninstall::sites(&self.desired, &overview, &self.connected, |_| true).await;
        let what = sites[0].decide(wishes);
        if !what.obstacles.is_empty() {
            return (what, None);
        }
        let ran = self.carry_out(&sites[0], &what, sink).await;
        (what, Some(ran))
    }

    /// Does what was decided.
    pub(crate) async fn run(&self, site: &Site<'_>, what: &Uninstall) -> Ran {
        let mut quiet = |_: Event<'_>| {};
        self.carry_out(site, what, &mut quiet).await
    }

    async fn carry_out(
        &self,
        site: &Site<'_>,
        what: &Uninstall,
        sink: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Ran {
        let pace = Pace {
            look: Duration::from_millis(20),
            unassigned: self.patience,
            gone: Duration::from_mins(2),
        };
        let (_never, interrupt) = watch::channel(false);
        let with = (&self.connected, &self.backups as &dyn Shelf);
        uninstall::run(site, what, with, pace, &interrupt, sink).await
    }

    pub(crate) async fn fault(&self, rule: Value) {
        let asked = with_body(self.served.own("POST", "faults"), &rule);
        assert_eq!(answered(asked).await.unwrap().0, 204);
    }

    /// Takes the faults back; how many requests the first rule has matched.
    pub(crate) async fn mended(&self) -> u64 {
        let (_, rules) = answered(self.served.own("GET", "faults")).await.unwrap();
        let seen = rules[0]["seen"].as_u64().unwrap_or_else(|| panic!("{rules}"));
        assert_eq!(answered(self.served.own("DELETE", "faults")).await.unwrap().0, 204);
        seen
    }

    pub(crate) async fn scale_mic(&self, replicas: u32) {
        let path = "/apis/apps/v1/namespaces/default/deployments/mic";
        let body = json!({"spec": {"replicas": replicas}});
        let kind = "application/merge-patch+json";
        self.admin.send(http::Method::PATCH, path, kind, &body).await;
        // MIC runs as long as one of its pods is available.
        let settled = async {
            let available = |object: &Value| object["status"]["availableReplicas"].as_u64();
            while available(&self.admin.get(path).await).unwrap_or(0) != u64::from(replicas) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_mins(1), settled).await.is_ok());
    }

    pub(crate) async fn record(&self) -> Value {
        let path = format!("{}{API}", self.cluster);
        answered(self.served.arm("GET", &path)).await.unwrap().1
    }

    /// What `az aks pod-identity` leaves in the record.
    pub(crate) async fn profile(&self, profile: Value) {
        let mut record = self.record().await;
        record["properties"]["podIdentityProfile"] = profile;
        let path = format!("{}{API}", self.cluster);
        let (status, _) =
            answered(with_body(self.served.arm("PUT", &path), &record)).await.unwrap();
        assert_eq!(status, 200);
        while self.record().await["properties"]["provisioningState"] != "Succeeded" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
