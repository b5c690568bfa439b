//! `migrate finish`: proves again, then removes bindings in batches and the identities behind
//! them, by uid. What is removed is written down first, so that `rollback` can make it again.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use tokio::time::{self, Instant};

use super::{Objects, Overview, Surveyed};
use crate::{
    execute::{self, Event, Outcome, RunOptions, remote::Remote},
    migrate::{
        Phase, Workload,
        removal::{self, Allowed, BATCH, Removal},
        transition,
    },
    model::{
        Address, FailureKind, RemoteFailure,
        desired::DesiredState,
        names,
        pod_identity::{Backup, Named},
        snapshot::Snapshot,
    },
    observe::observe,
    ops::{Connected, Planned, Scope, verify::proofs_only},
    plan::{self, PlanOptions},
};

/// How long MIC may take to take a batch's identities from the nodes: a minute a scale set.
const MIC: Duration = Duration::from_mins(10);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// What was removed in one cluster.
#[derive(Debug, Default)]
pub struct Finished {
    /// Objects, as `binding namespace/name`.
    pub removed: Vec<String>,
    /// What stays, and why.
    pub kept: Vec<(String, String)>,
    /// What stopped it.
    pub failure: Option<RemoteFailure>,
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
    let name = |address: &Address| match address {
        Address::Workload { namespace, account, .. } => Some(format!("{namespace}/{account}")),
        Address::Cluster(_) | Address::Identity(_) => None,
    };
    let Ok(report) = execute::run(&planned.plan, remotes, options, sink).await else {
        return BTreeSet::new();
    };
    // Proved is who has a proof that succeeded and nothing against it.
    let mut passed: BTreeSet<String> = report
        .steps
        .iter()
        .filter(|step| step.info.exchanges_token)
        .filter(|step| step.outcome.as_ref().is_some_and(Outcome::satisfies))
        .filter_map(|step| name(&step.info.address))
        .collect();
    let failed = report.with(|outcome| !outcome.satisfies());
    let against = failed.filter_map(|step| name(&step.info.address));
    let found = planned.report.not_proved.iter().chain(&planned.report.blocked);
    let found = found.chain(&planned.report.refused).filter_map(|finding| name(&finding.address));
    let unseen = planned.report.unknown.iter().filter_map(|unseen| name(&unseen.address));
    for name in against.chain(found).chain(unseen).collect::<Vec<_>>() {
        passed.remove(&name);
    }
    passed
}

/// What would be removed in one cluster.
pub fn decide(read: &Surveyed, proved: &BTreeSet<String>, unassign: bool) -> Removal {
    let allowed = Allowed { workloads: Some(proved), unassign };
    removal::removal(&read.estate, &read.survey, allowed)
}

/// Removes what was decided and confirmed.
pub async fn finish(
    read: &Surveyed,
    what: &Removal,
    overview: &Overview,
    connected: &Connected,
) -> Finished {
    let name = &read.survey.cluster;
    let client = match connected.clusters.get(name) {
        Some(connection) => connection.client().await,
        None => Err(RemoteFailure::new(
            FailureKind::NotReached,
            format!("connect to cluster {name}"),
            "no way to reach it was given",
        )),
    };
    let client = match client {
        Ok(client) => client,
        Err(failure) => {
            let kept = what.kept.clone();
            return Finished { kept, failure: Some(failure), ..Finished::default() };
        }
    };
    remove(&client, read, what, &names::field_manager(&overview.project)).await
}

/// The same over a connection that is there.
pub async fn remove(
    client: &dyn Objects,
    read: &Surveyed,
    what: &Removal,
    manager: &str,
) -> Finished {
    let mut done = Finished { kept: what.kept.clone(), ..Finished::default() };
    done.failure = attempt(client, read, what, manager, &mut done.removed).await.err();
    done
}

async fn attempt(
    client: &dyn Objects,
    read: &Surveyed,
    what: &Removal,
    manager: &str,
    removed: &mut Vec<String>,
) -> Result<(), RemoteFailure> {
    write_down(client, read, what, manager).await?;
    let mic = read.estate.installs.iter().any(|i| i.component == "mic" && !i.managed);
    for batch in what.bindings.chunks(BATCH) {
        for binding in batch {
            let at = format!("binding {}/{}", binding.namespace, binding.name);
            let object = Named {
                namespace: binding.namespace.clone(),
                name: binding.name.clone(),
                uid: binding.uid.clone(),
            };
            let gone = client.remove_binding(&object).await;
            gone.map_err(|error| error.failure(format!("remove {at}")))?;
            removed.push(at);
        }
        if mic {
            let names: Vec<&str> = batch.iter().map(|b| b.identity.as_str()).collect();
            unassigned(client, &names).await?;
        }
    }
    for identity in &what.identities {
        let at = format!("identity {}/{}", identity.namespace, identity.name);
        let object = Named {
            namespace: identity.namespace.clone(),
            name: identity.name.clone(),
            uid: identity.uid.clone(),
        };
        let gone = client.remove_identity(&object).await;
        gone.map_err(|error| error.failure(format!("remove {at}")))?;
        removed.push(at);
    }
    Ok(())
}

/// Every workload's backup gets the objects that answered for it, before the first one goes.
async fn write_down(
    client: &dyn Objects,
    read: &Surveyed,
    what: &Removal,
    manager: &str,
) -> Result<(), RemoteFailure> {
    for workload in read.survey.workloads.iter().filter(|w| what.workloads.contains(&w.name())) {
        let tried = format!("write down what is removed for {}", workload.name());
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
        let mut objects = Vec::new();
        for binding in &what.bindings {
            if !workload.bindings.contains(&format!("{}/{}", binding.namespace, binding.name)) {
                continue;
            }
            let object = client.pod_identity_binding(&binding.namespace, &binding.name).await;
            objects.extend(object.map_err(|error| error.failure(tried.clone()))?);
            for identity in &what.identities {
                if identity.namespace == binding.namespace && identity.name == binding.identity {
                    let object = client.pod_identity(&identity.namespace, &identity.name).await;
                    objects.extend(object.map_err(|error| error.failure(tried.clone()))?);
                }
            }
        }
        let new = |object: &serde_json::Value| !backup.removed.contains(object);
        let new: Vec<_> = objects.into_iter().filter(new).collect();
        backup.removed.extend(new);
        let written = client.write_backup(&backup, manager).await;
        written.map_err(|error| error.failure(tried.clone()))?;
    }
    Ok(())
}

/// Waits until MIC has taken back what it assigned for these identities.
async fn unassigned(client: &dyn Objects, identities: &[&str]) -> Result<(), RemoteFailure> {
    let deadline = Instant::now() + MIC;
    loop {
        let tried = "wait for MIC to un-assign identities";
        let left = client.assigned().await.map_err(|error| error.failure(tried))?;
        let of = |named: &&Named| identities.iter().any(|i| named.name.ends_with(&format!("-{i}")));
        let Some(one) = left.iter().find(of) else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(RemoteFailure::new(
                FailureKind::TimedOut,
                tried,
                format!("AzureAssignedIdentity {}/{} is still there", one.namespace, one.name),
            )
            .with_hint("look at MIC's log, then run migrate finish again"));
        }
        time::sleep(LOOK).await;
    }
}
