//! The name of every object and step in plans, reports and `--only`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AccountName, ClusterName, Namespace};

/// `<namespace>/<service account>[@<cluster>][:<kind>[:<key>]]`, or a shared object:
/// `identity/<name>`, `cluster/<name>`.
///
/// A workload in a namespace called `identity` prints like a shared object: they are told apart by
/// variant, not by text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// A cluster of the file.
    Cluster(ClusterName),
    /// A user-assigned identity, by name.
    Identity(String),
    /// A workload or a part of it.
    Workload {
        /// The namespace.
        namespace: Namespace,
        /// The service account.
        account: AccountName,
        /// The cluster, for what exists once per cluster.
        cluster: Option<ClusterName>,
        /// The kind of part; none for the workload itself.
        part: Option<Part>,
    },
}

/// The part of a workload that an [`Address`] names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `federated-credential`.
    FederatedCredential,
    /// `role-assignment:<role and target>`.
    RoleAssignment(String),
    /// `service-account`.
    ServiceAccount,
    /// `proof`.
    Proof,
    /// `pod-template:<kind>/<name>`.
    PodTemplate(String),
    /// `rollout:<kind>/<name>`.
    Rollout(String),
    /// `pods`: the live pods of the account.
    Pods,
}

impl Address {
    /// The workload itself, in every cluster.
    pub fn workload(namespace: &Namespace, account: &AccountName) -> Self {
        Self::Workload {
            namespace: namespace.clone(),
            account: account.clone(),
            cluster: None,
            part: None,
        }
    }

    /// The same workload in one cluster.
    #[must_use]
    pub fn at(self, in_cluster: &ClusterName) -> Self {
        match self {
            Self::Workload { namespace, account, part, .. } => {
                Self::Workload { namespace, account, cluster: Some(in_cluster.clone()), part }
            }
            shared @ (Self::Cluster(_) | Self::Identity(_)) => shared,
        }
    }

    /// The workload in its cluster, or the shared object, that a part belongs to.
    #[must_use]
    pub fn whole(&self) -> Self {
        match self {
            Self::Workload { namespace, account, cluster, part: _ } => Self::Workload {
                namespace: namespace.clone(),
                account: account.clone(),
                cluster: cluster.clone(),
                part: None,
            },
            shared @ (Self::Cluster(_) | Self::Identity(_)) => shared.clone(),
        }
    }

    /// `namespace/account` of a workload, whatever the cluster and part.
    pub fn workload_name(&self) -> Option<String> {
        match self {
            Self::Workload { namespace, account, .. } => Some(format!("{namespace}/{account}")),
            Self::Cluster(_) | Self::Identity(_) => None,
        }
    }

    /// A part of the same workload.
    #[must_use]
    pub fn part(self, of: Part) -> Self {
        match self {
            Self::Workload { namespace, account, cluster, .. } => {
                Self::Workload { namespace, account, cluster, part: Some(of) }
            }
            shared @ (Self::Cluster(_) | Self::Identity(_)) => shared,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FederatedCredential => f.write_str("federated-credential"),
            Self::RoleAssignment(key) => write!(f, "role-assignment:{key}"),
            Self::ServiceAccount => f.write_str("service-account"),
            Self::Proof => f.write_str("proof"),
            Self::PodTemplate(key) => write!(f, "pod-template:{key}"),
            Self::Rollout(key) => write!(f, "rollout:{key}"),
            Self::Pods => f.write_str("pods"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster/{name}"),
            Self::Identity(name) => write!(f, "identity/{name}"),
            Self::Workload { namespace, account, cluster, part } => {
                write!(f, "{namespace}/{account}")?;
                if let Some(cluster) = cluster {
                    write!(f, "@{cluster}")?;
                }
                if let Some(part) = part {
                    write!(f, ":{part}")?;
                }
                Ok(())
            }
        }
    }
}
