//! Where backups lie beside the cluster, which may be what is lost.

use std::fmt;

use serde_json::Value;

use crate::model::{ClusterName, RemoteFailure, pod_identity::Backup};

/// Backups beside those in the cluster. What the cluster holds is newer and counts where both do.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// Writes a backup, over an earlier one of the same workload.
    fn put(&self, cluster: &ClusterName, backup: &Backup) -> Result<(), RemoteFailure>;
    /// The backups of a cluster; one that cannot be read is not among them.
    fn of(&self, cluster: &ClusterName) -> Vec<Backup>;
    /// Keeps an object that is about to be removed, as `kubectl apply` makes it again; `name` is
    /// unique in its cluster.
    fn keep(&self, cluster: &ClusterName, name: &str, object: &Value) -> Result<(), RemoteFailure>;
}

/// No shelf: backups are in the cluster alone.
impl Shelf for () {
    fn put(&self, _: &ClusterName, _: &Backup) -> Result<(), RemoteFailure> {
        Ok(())
    }

    fn of(&self, _: &ClusterName) -> Vec<Backup> {
        Vec::new()
    }

    fn keep(&self, _: &ClusterName, _: &str, _: &Value) -> Result<(), RemoteFailure> {
        Ok(())
    }
}
