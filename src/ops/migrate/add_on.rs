//! Identities that the AKS add-on keeps: they go by ARM's record of the cluster, for what is
//! removed in the cluster comes back.

use super::{
    Objects, Patience,
    finish::{Place, backup_of},
};
use crate::{
    azure::Arm,
    migrate::{
        matching,
        removal::{Entry, Removal, entry_name},
    },
    model::{ArmId, RemoteFailure, pod_identity::PodIdentity},
};

/// Writes the entries down for the workloads that they answered, takes them out of the record in
/// one update, and waits until AKS has removed their objects from the cluster. What left the record
/// is `removed`, however long AKS takes.
pub(super) async fn remove(
    (arm, cluster): (&Arm, &ArmId),
    Place { client, shelf, read, manager }: Place<'_>,
    what: &Removal,
    patience: &Patience,
    removed: &mut Vec<String>,
) -> Result<(), RemoteFailure> {
    if what.add_on.is_empty() {
        return Ok(());
    }
    let wanted: Vec<(String, String)> =
        what.add_on.iter().map(|e| (e.namespace.to_string(), e.name.clone())).collect();
    let tried = format!("take identities out of the Pod Identity add-on of {}", cluster.name());
    let entries = arm.pod_identities(cluster, &wanted).await;
    let entries = entries.map_err(|error| error.failure(tried.clone()))?;
    for workload in &read.survey.workloads {
        let acts = workload.identity.as_ref().map(|acts| &acts.id);
        let own = what.add_on.iter().filter(|entry| {
            let of = |i: &&PodIdentity| i.namespace == entry.namespace && i.name == entry.name;
            let identity = read.estate.identities.iter().find(of);
            identity.and_then(matching::resource_id).is_some_and(|id| acts == Some(&id))
        });
        let own: Vec<&Entry> = own.collect();
        if own.is_empty() {
            continue;
        }
        let mut backup = backup_of(read, workload);
        for entry in &entries {
            let is = |own: &&Entry| {
                entry["namespace"] == own.namespace.as_str() && entry["name"] == own.name.as_str()
            };
            if own.iter().any(is) && !backup.add_on.contains(entry) {
                backup.add_on.push(entry.clone());
            }
        }
        client.write_backup(&backup, manager).await.map_err(|error| {
            error.failure(format!("write down what is removed for {}", workload.name()))
        })?;
        shelf.put(&read.survey.cluster, &backup)?;
    }
    let gone = arm.remove_pod_identities(cluster, &wanted).await;
    gone.map_err(|error| error.failure(tried))?;
    removed.extend(what.add_on.iter().map(entry_name));
    for entry in &what.add_on {
        vanished(client, entry, patience).await?;
    }
    Ok(())
}

/// Waits until AKS has removed the `AzureIdentity` of an entry.
async fn vanished(
    client: &dyn Objects,
    entry: &Entry,
    patience: &Patience,
) -> Result<(), RemoteFailure> {
    let tried = "wait for AKS to remove the add-on's objects";
    let left = async || {
        let there = client.pod_identity(&entry.namespace, &entry.name).await;
        let there = there.map_err(|error| error.failure(tried))?;
        let still = || format!("AzureIdentity {}/{} is still there", entry.namespace, entry.name);
        Ok(there.map(|_| still()))
    };
    // The record does not hold it any more; where somebody wants an end, AKS goes on by itself.
    patience.until(left, tried, "run migrate finish again").await?;
    Ok(())
}
