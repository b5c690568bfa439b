//! `migrate finish`: removes bindings in batches and the identities behind them, by uid. Before each
//! batch the cluster is read and judged again: nothing goes that did not pass every gate a moment
//! ago. What is removed is written down first, so that `rollback` can make it again.

use super::{Objects, Patience, Request, Shelf, Surveyed, add_on, read::surveyed};
use crate::{
    migrate::{
        Workload, matching,
        removal::{self, Allowed, BATCH, Removal, binding_name, identity_name},
    },
    model::{
        RemoteFailure, names,
        pod_identity::{Assigned, Backup, Binding, PodIdentity},
    },
    ops::Connected,
};

/// What was removed in one cluster.
#[derive(Debug, Default)]
pub struct Finished {
    /// Objects, as `binding namespace/name`.
    pub removed: Vec<String>,
    /// What stays, and why.
    pub kept: Vec<(String, String)>,
    /// What stopped it.
    pub failure: Option<RemoteFailure>,
    /// Whether it was asked to stop before its end.
    pub interrupted: bool,
}

impl Finished {
    /// Takes note of an object that was deleted; `false` where finalizers hold it.
    fn removed(&mut self, object: String, held: Vec<String>) -> bool {
        let gone = held.is_empty();
        if gone {
            self.removed.push(object);
        } else {
            let by = held.join(", ");
            self.kept.push((object, format!("it is being deleted, and finalizer {by} holds it")));
        }
        gone
    }
}

/// What would be removed in one cluster.
pub fn decide(read: &Surveyed, allowed: Allowed<'_>) -> Removal {
    removal::removal(&read.estate, &read.survey, allowed)
}

/// What a removal is carried out with.
#[derive(Debug, Clone)]
pub struct Finishing<'a> {
    /// How the cluster is read again.
    pub request: Request<'a>,
    /// The clients.
    pub connected: &'a Connected,
    /// What may go.
    pub allowed: Allowed<'a>,
    /// How long others may take.
    pub patience: Patience,
}

/// Removes what was decided and confirmed, as far as it may still go.
pub async fn finish(read: &Surveyed, what: &Removal, with: &Finishing<'_>) -> Finished {
    let mut done = Finished { kept: what.kept.clone(), ..Finished::default() };
    done.failure = attempt(read, what, with, &mut done).await.err();
    done
}

async fn attempt(
    read: &Surveyed,
    what: &Removal,
    with: &Finishing<'_>,
    done: &mut Finished,
) -> Result<(), RemoteFailure> {
    let Finishing { request, connected, allowed, patience } = with;
    let name = &read.survey.cluster;
    let client = connected.client(name).await?;
    let cluster = request.cluster(name)?;
    let manager = names::field_manager(&request.desired.project);
    for batch in batches(what) {
        if patience.ends() {
            done.interrupted = true;
            return Ok(());
        }
        let these = batch.managed(&read.estate);
        let now = surveyed(*request, cluster, connected, &read.estate, these).await;
        if let Some(unseen) = now.survey.unseen.first() {
            return Err(unseen.clone());
        }
        let (still, changed) = batch.still(&decide(&now, *allowed));
        let there = |object: &String| is_there(&now, &batch, object);
        done.kept.extend(changed.into_iter().filter(|(object, _)| there(object)));
        let place = Place { client: &client, shelf: request.shelf, read: &now, manager: &manager };
        let arm = (&connected.arm, &cluster.id);
        add_on::remove(arm, place, &still, patience, &mut done.removed).await?;
        remove(place, &still, patience, done).await?;
    }
    Ok(())
}

/// The cluster that a batch is removed from.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Its API server.
    pub client: &'a dyn Objects,
    /// Where backups are kept beside those in the cluster.
    pub shelf: &'a dyn Shelf,
    /// What it is now.
    pub read: &'a Surveyed,
    /// Who writes.
    pub manager: &'a str,
}

/// Whether an object of a batch exists at all: what is gone needs no removal.
fn is_there(now: &Surveyed, batch: &Removal, object: &str) -> bool {
    let estate = &now.estate;
    let mut bindings = batch.bindings.iter().filter(|b| binding_name(b) == object);
    let mut identities = batch.identities.iter().filter(|i| identity_name(i) == object);
    match (bindings.next(), identities.next()) {
        (Some(binding), _) => estate.bindings.iter().any(|b| b.uid == binding.uid),
        (None, Some(identity)) => estate.identities.iter().any(|i| i.uid == identity.uid),
        // An entry of the add-on.
        (None, None) => estate
            .add_on
            .iter()
            .flatten()
            .any(|known| object.strip_prefix("add-on identity ") == Some(known)),
    }
}

/// The batches of a removal, the identities after all bindings.
pub fn batches(what: &Removal) -> Vec<Removal> {
    let mut all: Vec<Removal> = what
        .bindings
        .chunks(BATCH)
        .map(|bindings| Removal { bindings: bindings.to_vec(), ..Removal::default() })
        .collect();
    let entries = what.add_on.chunks(BATCH);
    all.extend(entries.map(|e| Removal { add_on: e.to_vec(), ..Removal::default() }));
    if !what.identities.is_empty() {
        all.push(Removal { identities: what.identities.clone(), ..Removal::default() });
    }
    all
}

/// Removes the bindings of a batch, waits for MIC, and removes its identities.
pub async fn remove(
    place: Place<'_>,
    batch: &Removal,
    patience: &Patience,
    done: &mut Finished,
) -> Result<(), RemoteFailure> {
    let Place { client, read, .. } = place;
    write_down(place, batch).await?;
    let mut gone = Vec::new();
    for binding in &batch.bindings {
        let at = binding_name(binding);
        let held = client.remove_binding(binding).await;
        if done.removed(at.clone(), held.map_err(|e| e.failure(format!("remove {at}")))?) {
            gone.push(binding.clone());
        }
    }
    if matching::assigns(&read.estate) && !gone.is_empty() {
        unassigned(client, &gone, patience).await?;
    }
    for identity in &batch.identities {
        let at = identity_name(identity);
        let held = client.remove_identity(identity).await;
        done.removed(at.clone(), held.map_err(|e| e.failure(format!("remove {at}")))?);
    }
    Ok(())
}

/// The backup of a workload, or a new one where it was switched without.
pub(super) fn backup_of(read: &Surveyed, workload: &Workload) -> Backup {
    let of = |b: &&Backup| b.namespace == workload.namespace && b.account == workload.account;
    let known = read.estate.backups.iter().find(of).cloned();
    let mut backup = known.unwrap_or_else(|| Backup {
        namespace: workload.namespace.clone(),
        account: workload.account.clone(),
        identity: workload.identity.as_ref().map(|a| a.id.to_string()).unwrap_or_default(),
        client_id: workload.identity.as_ref().map(|a| a.client.to_string()).unwrap_or_default(),
        ..Backup::default()
    });
    backup.bindings = workload.bindings.iter().cloned().collect();
    backup.unrun.clone_from(&workload.unrun);
    backup
}

/// Whether a workload acts as the managed identity of an `AzureIdentity`.
fn acts_as(workload: &Workload, identity: &PodIdentity) -> bool {
    let id = matching::resource_id(identity);
    id.is_some() && id.as_ref() == workload.identity.as_ref().map(|acts| &acts.id)
}

/// Every workload's backup gets the objects that answered for it, before the first one goes.
async fn write_down(
    Place { client, shelf, read, manager }: Place<'_>,
    what: &Removal,
) -> Result<(), RemoteFailure> {
    let bound = |w: &&Workload| {
        let of = |b: &Binding| w.bindings.contains(&format!("{}/{}", b.namespace, b.name));
        what.bindings.iter().any(of) || what.identities.iter().any(|i| acts_as(w, i))
    };
    for workload in read.survey.workloads.iter().filter(bound) {
        let tried = format!("write down what is removed for {}", workload.name());
        let mut backup = backup_of(read, workload);
        let mut objects = Vec::new();
        for binding in &what.bindings {
            if workload.bindings.contains(&format!("{}/{}", binding.namespace, binding.name)) {
                let object = client.pod_identity_binding(&binding.namespace, &binding.name).await;
                objects.extend(object.map_err(|error| error.failure(tried.clone()))?);
            }
        }
        for identity in &what.identities {
            if acts_as(workload, identity) {
                let object = client.pod_identity(&identity.namespace, &identity.name).await;
                objects.extend(object.map_err(|error| error.failure(tried.clone()))?);
            }
        }
        let new = |object: &serde_json::Value| !backup.removed.contains(object);
        let new: Vec<_> = objects.into_iter().filter(new).collect();
        backup.removed.extend(new);
        let written = client.write_backup(&backup, manager).await;
        written.map_err(|error| error.failure(tried))?;
        shelf.put(&read.survey.cluster, &backup)?;
    }
    Ok(())
}

/// Waits until MIC has taken back what it assigned for these bindings.
async fn unassigned(
    client: &dyn Objects,
    bindings: &[Binding],
    patience: &Patience,
) -> Result<(), RemoteFailure> {
    let tried = "wait for MIC to un-assign identities";
    let left = async || {
        let left = client.assigned().await.map_err(|error| error.failure(tried))?;
        let mut of = left.iter().filter(|assigned| bindings.iter().any(|b| assigned.is_for(b)));
        let still = |one: &Assigned| {
            format!("AzureAssignedIdentity {}/{} is still there", one.namespace, one.name)
        };
        Ok(of.next().map(still))
    };
    // What was removed is removed; where somebody wants an end, MIC goes on by itself.
    patience.until(left, tried, "look at MIC's log, then run migrate finish again").await?;
    Ok(())
}
