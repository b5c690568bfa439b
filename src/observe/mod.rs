//! COLLECT: what to read, how much at once, into one [`Snapshot`].
//!
//! Lists where a list exists; nothing that the chosen workloads do not need, except what tells
//! that objects are left over; the children of an identity only where it exists. A read that fails
//! is Unknown with its failure, part by part, and never stops the others.

mod arm;
mod assignments;
mod cluster;
mod need;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    azure::Arm,
    kubernetes::Connection,
    model::{
        ClusterName,
        desired::DesiredState,
        snapshot::{Assignments, Snapshot},
    },
};

pub use self::cluster::{NAMESPACES_ONE_BY_ONE, Reading};
use self::{arm::Reader, need::Need};

/// Reads everything that planning needs. `clusters` says how each cluster's API server is reached;
/// a connection is made only if its cluster is to be read.
pub async fn observe(
    desired: &DesiredState,
    arm: &Arm,
    clusters: &BTreeMap<ClusterName, Connection>,
    now: Timestamp,
) -> Snapshot {
    let need = Need::of(desired);
    let reader = Reader::new(arm);
    let chain = async {
        let children = async {
            let identities = reader.identities(desired, &need).await;
            let credentials = reader.credentials(desired, &need, &identities).await;
            (identities, credentials)
        };
        let ((identities, credentials), listed) =
            futures::join!(children, assignments::lists(&reader, &need));
        let assignments: Assignments =
            assignments::complete(&reader, &need, &identities, listed).await;
        (identities, credentials, assignments)
    };
    let ((identities, credentials, assignments), roles, targets, clusters) = futures::join!(
        chain,
        reader.roles(&need),
        reader.targets(&need),
        cluster::read(&reader, desired, &need, clusters),
    );
    Snapshot {
        taken_at: now,
        clusters,
        home: identities.home,
        identities: identities.seen,
        other_identities: identities.others,
        credentials,
        assignments,
        roles,
        targets,
    }
}
