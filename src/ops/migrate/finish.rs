//! `migrate finish`: proves again, then removes bindings in batches and the identities behind
//! them, by uid. Before each batch the cluster is read and judged again: nothing goes that did not
//! pass every gate a moment ago. What is removed is written down first, so that `rollback` can
//! make it again.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Objects, Patience, Request, Shelf, Surveyed, add_on, read::surveyed};
use crate::{
    execute::{self, Event, Outcome, RunOptions, remote::Remote},
    migrate::{
        Phase, Workload, matching,
        removal::{self, Allowed, BATCH, Removal, binding_name, identity_name},
        transition,
    },
    model::{
        FailureKind, RemoteFailure,
        desired::DesiredState,
        names,
        pod_identity::{Assigned, Backup, Binding, PodIdentity},
        snapshot::Snapshot,
    },
    observe::observe,
    ops::{Connected, Planned, Scope, verify::proofs_only},
    plan::{self, PlanOptions},
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

/// Proves the chosen workloads that have soaked again; the answer holds those that passed.
pub async fn prove(
    base: &DesiredState,
    read: &Surveyed,
    chosen: &BTreeSet<String>,
    connected: &Connected,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> BTreeSet<String> {
    let Some(desired) = due(base, read, chosen) else { return BTreeSet::new() };
    let now: Timestamp = options.started_at;
    let seen = observe(&desired, &connected.arm, &connected.clusters, now).await;
    passed(&desired, &seen, &connected.remotes(&desired), options, sink).await
}

/// The chosen workloads that have soaked, as the engine sees them; none where there are none.
pub fn due(
    base: &DesiredState,
    read: &Surveyed,
    chosen: &BTreeSet<String>,
) -> Option<DesiredState> {
    let arrived = |w: &&Workload| matches!(w.phase, Phase::Soaked | Phase::BindingRemoved);
    let workloads = read.survey.workloads.iter().filter(|w| chosen.contains(&w.name()));
    let due: Vec<&Workload> = workloads.filter(arrived).collect();
    (!due.is_empty()).then(|| transition::desired(base, &read.survey.cluster, &due))
}

/// Carries out only the proofs of what was seen; the answer holds the workloads that passed.
pub async fn passed(
    desired: &DesiredState,
    seen: &Snapshot,
    remotes: &dyn Remote,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> BTreeSet<String> {
    let (plan, report) = plan::plan(desired, seen, PlanOptions::default());
    let scope = Scope::of(desired, "", false, options.started_at);
    let planned = proofs_only(Planned { scope, plan, report });
    let Ok(report) = execute::run(&planned.plan, remotes, options, sink).await else {
        return BTreeSet::new();
    };
    // Proved is who has a proof that succeeded and nothing against it.
    let mut passed: BTreeSet<String> = report
        .steps
        .iter()
        .filter(|step| step.info.exchanges_token)
        .filter(|step| step.outcome.as_ref().is_some_and(Outcome::satisfies))
        .filter_map(|step| step.info.address.workload_name())
        .collect();
    let failed = report.with(|outcome| !outcome.satisfies());
    let against = failed.filter_map(|step| step.info.address.workload_name());
    let found = planned.report.not_proved.iter().chain(&planned.report.blocked);
    let found =
        found.chain(&planned.report.refused).filter_map(|finding| finding.address.workload_name());
    let unseen = planned.report.unknown.iter().filter_map(|unseen| unseen.address.workload_name());
    for name in against.chain(found).chain(unseen).collect::<Vec<_>>() {
        passed.remove(&name);
    }
    passed
}

/// How many pods are ending that a binding still selects: they go by themselves, and keep their
/// binding until then.
pub fn ending(read: &Surveyed) -> usize {
    let Surveyed { estate, .. } = read;
    let ending = estate.pods.iter().filter(|pod| pod.ending);
    let selected = ending.filter(|pod| {
        let selects = |selector| {
            let mut bindings = estate.bindings.iter();
            bindings.any(|b| matching::selects(estate, b, &pod.namespace, selector))
        };
        pod.selector().is_some_and(selects)
    });
    selected.count()
}

/// What would be removed in one cluster.
pub fn decide(read: &Surveyed, proved: &BTreeSet<String>, unassign: bool) -> Removal {
    let allowed = Allowed { workloads: Some(proved), unassign };
    removal::removal(&read.estate, &read.survey, allowed)
}

/// What a removal is carried out with.
#[derive(Debug, Clone)]
pub struct Finishing<'a> {
    /// How the cluster is read again.
    pub request: Request<'a>,
    /// The clients.
    pub connected: &'a Connected,
    /// The workloads that were proved again.
    pub proved: &'a BTreeSet<String>,
    /// Whether identities may be taken from nodes that other pods may live on.
    pub unassign: bool,
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
    let Finishing { request, connected, proved, unassign, patience } = with;
    let name = &read.survey.cluster;
    let not_reached = |message: &str| {
        RemoteFailure::new(FailureKind::NotReached, format!("connect to cluster {name}"), message)
    };
    let connection = connected.clusters.get(name);
    let connection = connection.ok_or_else(|| not_reached("no way to reach it was given"))?;
    let client = connection.client().await?;
    let cluster = request.desired.clusters.get(name);
    let cluster = cluster.ok_or_else(|| not_reached("the file does not name it"))?;
    let manager = names::field_manager(&request.desired.project);
    for batch in batches(what) {
        if patience.ends() {
            done.interrupted = true;
            return Ok(());
        }
        let now = surveyed(*request, cluster, connected).await;
        if let Some(unseen) = now.survey.unseen.first() {
            return Err(unseen.clone());
        }
        let (still, changed) = batch.still(&decide(&now, proved, *unassign));
        let there = |object: &String| is_there(&now, &batch, object);
        done.kept.extend(changed.into_iter().filter(|(object, _)| there(object)));
        if !still.add_on.is_empty() {
            let arm = (&connected.arm, &cluster.id);
            let gone =
                add_on::remove(arm, &client, request.shelf, &now, &still, &manager, patience).await;
            done.removed.extend(gone?);
        }
        let gone = remove(&client, request.shelf, &now, &still, &manager, patience).await;
        done.removed.extend(gone.removed);
        if let Some(failure) = gone.failure {
            return Err(failure);
        }
    }
    Ok(())
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

/// Removes bindings, waits for MIC, and removes identities, over a connection that is there.
pub async fn remove(
    client: &dyn Objects,
    shelf: &dyn Shelf,
    read: &Surveyed,
    what: &Removal,
    manager: &str,
    patience: &Patience,
) -> Finished {
    let mut done = Finished { kept: what.kept.clone(), ..Finished::default() };
    let gone = objects(client, shelf, read, what, manager, patience, &mut done.removed).await;
    done.failure = gone.err();
    done
}

async fn objects(
    client: &dyn Objects,
    shelf: &dyn Shelf,
    read: &Surveyed,
    what: &Removal,
    manager: &str,
    patience: &Patience,
    removed: &mut Vec<String>,
) -> Result<(), RemoteFailure> {
    write_down(client, shelf, read, what, manager).await?;
    let mic = read.estate.installs.iter().any(|i| i.component == "mic" && !i.managed);
    for batch in what.bindings.chunks(BATCH) {
        for binding in batch {
            let at = binding_name(binding);
            let gone = client.remove_binding(&binding.named()).await;
            gone.map_err(|error| error.failure(format!("remove {at}")))?;
            removed.push(at);
        }
        if mic {
            unassigned(client, batch, patience).await?;
        }
    }
    for identity in &what.identities {
        let at = identity_name(identity);
        let gone = client.remove_identity(&identity.named()).await;
        gone.map_err(|error| error.failure(format!("remove {at}")))?;
        removed.push(at);
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
    backup
}

/// Whether a workload acts as the managed identity of an `AzureIdentity`.
fn acts_as(workload: &Workload, identity: &PodIdentity) -> bool {
    let id = matching::resource_id(identity);
    id.is_some() && id.as_ref() == workload.identity.as_ref().map(|acts| &acts.id)
}

/// Every workload's backup gets the objects that answered for it, before the first one goes.
async fn write_down(
    client: &dyn Objects,
    shelf: &dyn Shelf,
    read: &Surveyed,
    what: &Removal,
    manager: &str,
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
