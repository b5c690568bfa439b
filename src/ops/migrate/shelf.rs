//! Where backups lie beside the cluster, which may be what is lost.

use std::fmt;

use crate::model::{ClusterName, RemoteFailure, pod_identity::Backup};

/// Backups beside those in the cluster. What the cluster holds is newer and counts where both do.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// Writes a backup, over an earlier one of the same workload.
    fn put(&self, cluster: &ClusterName, backup: &Backup) -> Result<(), RemoteFailure>;
    /// The backups of a cluster; one that cannot be read is not among them.
    fn of(&self, cluster: &ClusterName) -> Vec<Backup>;
}

/// No shelf: backups are in the cluster alone.
impl Shelf for () {
    fn put(&self, _: &ClusterName, _: &Backup) -> Result<(), RemoteFailure> {
        Ok(())
    }

    fn of(&self, _: &ClusterName) -> Vec<Backup> {
        Vec::new()
    }
}
