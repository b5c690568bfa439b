//! One cluster: ARM's record, then its API server, side by side with the other clusters.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::{arm::Reader, need::Need};
use crate::{
    kubernetes::{Client, Connection, KubeError, Within},
    model::{
        ClusterName, FailureKind, Namespace, RemoteFailure,
        desired::{Access, DesiredCluster, DesiredState},
        snapshot::{ClusterSnapshot, Evidence, KubernetesSnapshot, Observation, ObservedCluster},
    },
};

/// Pods of more namespaces than this are listed for the whole cluster at once.
pub const NAMESPACES_ONE_BY_ONE: usize = 10;

/// Reads the clusters of chosen workloads.
pub(super) async fn read(
    reader: &Reader<'_>,
    desired: &DesiredState,
    need: &Need,
    connections: &BTreeMap<ClusterName, Connection>,
) -> BTreeMap<ClusterName, ClusterSnapshot> {
    let clusters = || desired.clusters.values().filter(|c| need.clusters.contains_key(&c.name));
    let records = reader.clusters(clusters().map(|cluster| cluster.id.clone())).await;
    let each = clusters().map(|cluster| {
        let arm = records.get(&cluster.id).cloned().unwrap_or_else(|| {
            let tried = format!("read cluster {}", cluster.name);
            Observation::Unknown(RemoteFailure::new(FailureKind::NotReached, tried, "not asked"))
        });
        async move {
            let namespaces = need.clusters.get(&cluster.name).cloned().unwrap_or_default();
            let connection = connections.get(&cluster.name);
            let kubernetes = Box::pin(kubernetes(cluster, &arm, connection, &namespaces)).await;
            (cluster.name.clone(), ClusterSnapshot { arm, kubernetes })
        }
    });
    join_all(each).await.into_iter().collect()
}

async fn kubernetes(
    cluster: &DesiredCluster,
    arm: &Observation<ObservedCluster>,
    connection: Option<&Connection>,
    namespaces: &BTreeSet<Namespace>,
) -> Observation<KubernetesSnapshot> {
    let tried = format!("connect to cluster {}", cluster.name);
    let unreached = |message: &str| RemoteFailure::new(FailureKind::NotReached, &tried, message);
    match arm {
        _ if cluster.access == Access::None => return Observation::Absent,
        Observation::Absent => return Observation::Absent,
        Observation::Present(record) if record.power_state.as_deref() == Some("Stopped") => {
            let hint = format!("az aks start --ids {}", record.id);
            return Observation::Unknown(unreached("the cluster is stopped").with_hint(hint));
        }
        Observation::Present(_) | Observation::Unknown(_) => {}
    }
    let Some(connection) = connection else {
        return Observation::Unknown(unreached("no way to reach it was given"));
    };
    match connection.client().await {
        Ok(client) => match Box::pin(snapshot(&client, &cluster.name, namespaces)).await {
            Ok(snapshot) => Observation::Present(snapshot),
            Err(failure) => Observation::Unknown(failure),
        },
        Err(failure) => Observation::Unknown(failure),
    }
}

/// Everything of one API server. Fails only where it does not answer at all: each part that is
/// refused is Unknown by itself.
async fn snapshot(
    client: &Client,
    cluster: &ClusterName,
    namespaces: &BTreeSet<Namespace>,
) -> Result<KubernetesSnapshot, RemoteFailure> {
    // Asked first and alone: an unreachable server costs one time-out, not ten.
    let version = client.version().await;
    let version =
        version.map_err(|e| e.failure(format!("read the version of cluster {cluster}")))?;
    let at = Reading { client, cluster, namespaces };
    let (issuer, webhook, existing, accounts, templates, pods) = futures::join!(
        client.discovery_issuer(),
        client.webhook(),
        at.namespaces(),
        at.parts("service accounts", async |within| client.accounts(within).await, false),
        at.parts("pod templates", async |within| client.templates(within).await, false),
        at.parts(
            "pods",
            async |within| client.pods(within).await,
            namespaces.len() <= NAMESPACES_ONE_BY_ONE,
        ),
    );
    let mut pod_security = BTreeMap::new();
    let namespaces = existing.into_iter().map(|(namespace, seen)| {
        let seen = match seen {
            Observation::Present(level) => {
                pod_security.extend(level.map(|level| (namespace.clone(), level)));
                Observation::Present(())
            }
            Observation::Absent => Observation::Absent,
            Observation::Unknown(failure) => Observation::Unknown(failure),
        };
        (namespace, seen)
    });
    let namespaces = namespaces.collect();
    Ok(KubernetesSnapshot {
        evidence: Evidence {
            host: client.host().to_owned(),
            issuer: match issuer {
                Ok(issuer) => Observation::Present(issuer),
                Err(error) => Observation::Unknown(at.failure("read the issuer", &error)),
            },
        },
        version,
        namespaces,
        accounts,
        templates,
        pods,
        webhook: match webhook {
            Ok(Some(webhook)) => Observation::Present(webhook),
            Ok(None) => Observation::Absent,
            Err(error) => Observation::Unknown(at.failure("list mutating webhooks", &error)),
        },
        pod_security,
    })
}

/// What is read, where, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The API server.
    pub client: &'a Client,
    /// What it is called in messages.
    pub cluster: &'a ClusterName,
    /// The namespaces that matter.
    pub namespaces: &'a BTreeSet<Namespace>,
}

impl Reading<'_> {
    fn failure(&self, what: &str, error: &KubeError) -> RemoteFailure {
        error.failure(format!("{what} of cluster {}", self.cluster))
    }

    /// Which of the namespaces exist, with the Pod Security level that each enforces: by the list,
    /// or by name where it is denied.
    async fn namespaces(&self) -> BTreeMap<Namespace, Observation<Option<String>>> {
        let there =
            |found: Option<Option<String>>| found.map_or(Observation::Absent, Observation::Present);
        let all = match self.client.namespaces().await {
            Ok(all) => {
                let look =
                    |namespace: &Namespace| (namespace.clone(), there(all.get(namespace).cloned()));
                return self.namespaces.iter().map(look).collect();
            }
            Err(error) => error,
        };
        if !all.is_denied() {
            let failure = self.failure("list namespaces", &all);
            let unknown = |n: &Namespace| (n.clone(), Observation::Unknown(failure.clone()));
            return self.namespaces.iter().map(unknown).collect();
        }
        let each = self.namespaces.iter().map(|namespace| async move {
            let seen = match self.client.namespace(namespace).await {
                Ok(found) => there(found),
                Err(error) => {
                    let what = format!("read namespace {namespace}");
                    Observation::Unknown(self.failure(&what, &error))
                }
            };
            (namespace.clone(), seen)
        });
        join_all(each).await.into_iter().collect()
    }

    /// One kind of object by namespace: cluster-wide, and namespace by namespace where that is
    /// denied or `narrow` says so. The namespaces of the file are always in the answer; others
    /// are where objects in them bear a project's mark.
    pub async fn parts<T: Default>(
        &self,
        what: &str,
        list: impl AsyncFn(Within<'_>) -> Result<BTreeMap<Namespace, T>, KubeError>,
        narrow: bool,
    ) -> BTreeMap<Namespace, Observation<T>> {
        if !narrow {
            match list(Within::Among(self.namespaces)).await {
                Ok(mut found) => {
                    for namespace in self.namespaces {
                        found.entry(namespace.clone()).or_default();
                    }
                    return found.into_iter().map(|(n, t)| (n, Observation::Present(t))).collect();
                }
                Err(error) if error.is_denied() => {}
                Err(error) => {
                    let failure = self.failure(&format!("list {what}"), &error);
                    let unknown =
                        |n: &Namespace| (n.clone(), Observation::Unknown(failure.clone()));
                    return self.namespaces.iter().map(unknown).collect();
                }
            }
        }
        let list = &list;
        let each = self.namespaces.iter().map(|namespace| async move {
            let seen = match list(Within::Namespace(namespace)).await {
                Ok(mut found) => Observation::Present(found.remove(namespace).unwrap_or_default()),
                Err(error) => {
                    let what = format!("list {what} in namespace {namespace}");
                    Observation::Unknown(self.failure(&what, &error))
                }
            };
            (namespace.clone(), seen)
        });
        join_all(each).await.into_iter().collect()
    }
}
