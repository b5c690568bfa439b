//! Credentials and clients: who acts, in which tenant, against which endpoints.

use std::{collections::BTreeMap, sync::Arc};

pub use crate::azure::{AuthKind, CredentialEnv, Endpoints};
use crate::{
    azure::{Actor, Arm, CredentialError, TransportError, Waits, choose},
    execute::{RemoteCluster, Remotes},
    kubernetes::{Client, Connect, Connection, TokenSource},
    model::{
        ArmId, ClusterName, FailureKind, RemoteFailure, TenantId,
        desired::{Access, DesiredCluster, DesiredState},
    },
    ops::doctor::Reach,
    prove::Prover,
};

/// Where the world is and who asks.
#[derive(Debug)]
pub struct Target {
    /// Azure's endpoints.
    pub endpoints: Endpoints,
    /// The variables that credentials are made from.
    pub credentials: CredentialEnv,
    /// The one credential that may be used; absent: the first that applies.
    pub auth: Option<AuthKind>,
}

/// The clients of one run.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Azure Resource Manager.
    pub arm: Arm,
    /// Entra and the data planes, for proofs.
    pub prover: Prover,
    /// The API servers; those with `access = "none"` are missing.
    pub clusters: BTreeMap<ClusterName, Connection>,
    /// Who acts in which tenant.
    pub actor: Actor,
    /// The credential's kind.
    pub kind: AuthKind,
}

impl Connected {
    /// The world as the executor takes it.
    pub(super) fn remotes(&self, desired: &DesiredState) -> Remotes {
        let clusters = self.clusters.iter().map(|(name, connection)| {
            let access = desired.clusters.get(name).map(|cluster| &cluster.access);
            let (context, kubeconfig) = match access {
                Some(Access::Context { context, kubeconfig }) => {
                    (context.clone(), kubeconfig.clone())
                }
                Some(Access::Azure | Access::None) | None => (None, None),
            };
            let cluster = RemoteCluster { connection: connection.clone(), context, kubeconfig };
            (name.clone(), cluster)
        });
        Remotes {
            arm: self.arm.clone(),
            prover: self.prover.clone(),
            clusters: clusters.collect(),
            project: desired.project.clone(),
        }
    }
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No credential applies, or the one that does not works.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Another tenant than the file's.
    #[error("{actor} was signed in, the file is for tenant {wanted}")]
    WrongTenant {
        /// Who acts.
        actor: Box<Actor>,
        /// The file's tenant.
        wanted: TenantId,
    },
    /// No HTTPS client.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Chooses a credential, checks its tenant, and makes the clients. Nothing is read yet: an API
/// server is connected to when it is first needed.
pub async fn connect(
    desired: &DesiredState,
    target: Target,
    waits: Waits,
) -> Result<Connected, ConnectError> {
    let Target { endpoints, credentials, auth } = target;
    let chosen = choose(&credentials, &endpoints, auth, &waits).await?;
    let actor = chosen.actor().clone();
    // A token that names no tenant is not ours to judge; Azure will.
    if actor.tenant.is_some_and(|tenant| tenant != desired.tenant) {
        return Err(ConnectError::WrongTenant { actor: Box::new(actor), wanted: desired.tenant });
    }
    let kind = chosen.kind;
    let arm = Arm::new(&endpoints, chosen.credential, Arc::clone(&waits))?;
    let prover = Prover::new(&arm)?;
    let clusters = desired.clusters.values();
    let clusters = clusters.filter_map(|cluster| {
        let connection = as_written(&arm, cluster)?.telling(Arc::clone(&waits));
        Some((cluster.name.clone(), connection))
    });
    let clusters = clusters.collect();
    Ok(Connected { arm, prover, clusters, actor, kind })
}

/// Azure without a file: no tenant to check, and a credential only if one applies. Entra and the
/// issuers can be asked without.
pub async fn without_file(target: Target, waits: Waits) -> Reach {
    let Target { endpoints, credentials, auth } = target;
    let arm = match choose(&credentials, &endpoints, auth, &waits).await {
        Ok(chosen) => Arm::new(&endpoints, chosen.credential, waits).map_err(|error| {
            RemoteFailure::new(FailureKind::Refused, "reach Azure", error.to_string())
        }),
        Err(error) => Err(error.failure()),
    };
    Reach { arm, endpoints }
}

impl Connected {
    /// A client of a cluster's API server, connecting first if need be.
    pub(super) async fn client(&self, cluster: &ClusterName) -> Result<Client, RemoteFailure> {
        match self.clusters.get(cluster) {
            Some(connection) => connection.client().await,
            None => Err(RemoteFailure::new(
                FailureKind::NotReached,
                format!("connect to cluster {cluster}"),
                "no way to reach it was given",
            )),
        }
    }

    /// Azure as `doctor` takes it.
    pub fn reach(&self) -> Reach {
        Reach { arm: Ok(self.arm.clone()), endpoints: self.arm.endpoints().clone() }
    }
}

fn tried(cluster: &DesiredCluster) -> String {
    format!("connect to cluster {}", cluster.name)
}

fn as_written(arm: &Arm, cluster: &DesiredCluster) -> Option<Connection> {
    match &cluster.access {
        Access::None => None,
        Access::Context { context, kubeconfig } => {
            let path = kubeconfig.as_ref().map(Into::into);
            let connect = Connect::Kubeconfig { path, context: context.clone() };
            Some(Connection::to(connect, tried(cluster)))
        }
        Access::Azure => Some(from_azure(arm.clone(), cluster.id.clone(), tried(cluster))),
    }
}

/// Server and certificate authority come from Azure, the token is our own: no command that an
/// answer of Azure names is ever run.
fn from_azure(arm: Arm, id: ArmId, tried: String) -> Connection {
    Connection::lazy(move || {
        let (arm, id, tried) = (arm.clone(), id.clone(), tried.clone());
        Box::pin(async move {
            let found = arm.cluster_server(&id).await;
            let found = found.map_err(|error| error.failure(format!("{tried} through Azure")))?;
            let source = arm.clone();
            let token: TokenSource = Arc::new(move || {
                let arm = source.clone();
                Box::pin(async move {
                    let token = arm.kubernetes_token().await;
                    token.map_err(|error| error.failure("get a token for the API server"))
                })
            });
            let connect = Connect::Direct { server: found.server, ca_pem: found.ca_pem, token };
            Connection::to(connect, tried).client().await
        })
    })
}
