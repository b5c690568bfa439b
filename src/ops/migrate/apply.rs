//! `migrate apply`: takes every ready workload as far as its gates allow. One roll first, then
//! five at once; the first failed one stops the others and is put back. Nothing is removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    Objects, Overview, Patience, PutBack, Request, Surveyed,
    rollback::{Putting, What, confirmed, put_back, shelved},
};
use crate::{
    execute::{
        self, ApplyReport, BrokenPlan, Event, Outcome, RunOptions, remote::Remote,
        report::StepReport,
    },
    migrate::{
        Phase, Survey, Workload, rollback,
        transition::{self, OldLabel},
    },
    model::{
        FailureKind, Project, RemoteFailure,
        desired::DesiredState,
        names,
        pod_identity::{Backup, TemplateBackup},
        snapshot::{Snapshot, Strategy},
    },
    observe::observe,
    ops::{Connected, Planned, Scope},
    plan::{self, Operation, PlanOptions, Step, StepId},
};

/// What is going to be done in one cluster.
#[derive(Debug)]
pub struct Move {
    /// The workloads as the engine sees them.
    pub desired: DesiredState,
    /// The engine's plan, whose rolls also drop the old label.
    pub planned: Planned,
    /// What is written down before anything is changed.
    pub backups: Vec<Backup>,
    /// The position of its cluster in the overview.
    at: usize,
}

/// How one cluster's workloads fared.
#[derive(Debug)]
pub struct Moved {
    /// The engine's report.
    pub report: ApplyReport,
    /// The workloads that were put back, `namespace/account`, and how that went.
    pub put_back: Vec<(String, PutBack)>,
    /// Those of them whose application is not at fault.
    pub blameless: BTreeSet<String>,
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A backup could not be written: without one nothing is changed.
    #[error("no backup could be written: {0}")]
    Backup(RemoteFailure),
    /// The API server could not be reached.
    #[error(transparent)]
    Connect(RemoteFailure),
    /// A defect of this program.
    #[error("the plan does not fit together: {0}")]
    Plan(#[from] BrokenPlan),
}

/// Reads what the engine needs and plans every due workload, cluster by cluster. A cluster with
/// anything unseen is left out: there nothing is changed.
pub async fn moves(
    base: &DesiredState,
    overview: &Overview,
    connected: &Connected,
    config: &str,
    now: Timestamp,
    old: OldLabel,
) -> Vec<Move> {
    let mut moves = Vec::new();
    for (at, read) in overview.clusters.iter().enumerate() {
        let due = due(&read.survey, old);
        if due.is_empty() {
            continue;
        }
        let desired = transition::desired(base, &read.survey.cluster, &due);
        let snapshot = observe(&desired, &connected.arm, &connected.clusters, now).await;
        let scope = Scope::of(&desired, config, overview.sandbox, now);
        let (planned, backups) = planned(read, &desired, &snapshot, scope, old);
        moves.push(Move { desired, planned, backups, at });
    }
    moves
}

/// The workloads that a run takes on; none where anything could not be seen.
pub fn due(survey: &Survey, old: OldLabel) -> Vec<&Workload> {
    let all = survey.workloads.iter().filter(|_| survey.unseen.is_empty());
    all.filter(|workload| transition::is_due(workload, old)).collect()
}

/// The plan that moves what is due in one cluster, and what is written down before. Pure.
pub fn planned(
    read: &Surveyed,
    desired: &DesiredState,
    snapshot: &Snapshot,
    scope: Scope,
    old: OldLabel,
) -> (Planned, Vec<Backup>) {
    let Surveyed { estate, survey } = read;
    let options = PlanOptions { leaves_pod_identity: true, ..PlanOptions::default() };
    let (mut plan, mut report) = plan::plan(desired, snapshot, options);
    // Only what is due was asked for: what else bears our marks is no leftover.
    report.left_over.clear();
    // By hand it would be half of what a rollback gives back.
    for finding in report.not_proved.iter_mut().filter(|f| f.code == plan::ROLLOUT_FAILED) {
        let name = finding.address.workload_name();
        finding.hint = name.map(|name| format!("widentity migrate rollback {name}"));
    }
    if old == OldLabel::Drop {
        transition::drop_old_labels(&mut plan, estate, &survey.cluster, desired);
    }
    let due = due(survey, old);
    let backups =
        due.iter().filter_map(|w| transition::backup(&plan, &desired.project, estate, w)).collect();
    (Planned { scope, plan, report }, backups)
}

/// Writes the backups, carries the plan out, and puts back what failed after its pods were
/// touched.
pub async fn apply(
    one: &Move,
    overview: &Overview,
    request: Request<'_>,
    connected: &Connected,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Moved, MoveError> {
    let read = &overview.clusters[one.at];
    let client = connected.client(&read.survey.cluster).await.map_err(MoveError::Connect)?;
    let remotes = connected.remotes(&one.desired);
    let Move { planned, backups, .. } = one;
    let shelf = request.shelf;
    // Backups are the first thing that is written. Where the plan asks a token which cluster this
    // is, it is asked before them, too; a cluster whose issuer has yet to be enabled has none.
    let asks = |what: fn(&Operation) -> bool| planned.plan.steps.iter().any(|s| what(&s.operation));
    if asks(|operation| matches!(operation, Operation::ConfirmCluster { .. }))
        && !asks(|operation| matches!(operation, Operation::EnableFeatures { .. }))
        && let Some(backup) = backups.first()
    {
        confirmed(read, backup, request, connected).await.map_err(MoveError::Connect)?;
    }
    for backup in backups {
        shelf.put(&read.survey.cluster, backup).map_err(MoveError::Backup)?;
    }
    let project = &overview.project;
    let mut moved =
        carry_out(planned, backups, read, project, (&client, &remotes), options, sink).await?;
    for (name, how) in &mut moved.put_back {
        if let Some(backup) = backup_of(name, backups, read) {
            let was = std::mem::replace(how, PutBack::Done);
            let blameless = moved.blameless.contains(name);
            *how = shelved(was, read, &rollback::noted(backup, &read.estate, blameless), shelf);
        }
    }
    Ok(moved)
}

/// What was written down of a workload, in this run or an earlier one.
fn backup_of<'a>(name: &str, backups: &'a [Backup], read: &'a Surveyed) -> Option<&'a Backup> {
    let mut all = backups.iter().chain(&read.estate.backups);
    all.find(|backup| backup.name() == name)
}

/// The workloads whose pods this run found proved. Where pods are replaced only by hand, or some of
/// them not at all, the run has not seen them all.
fn arrived<'a>(
    planned: &Planned,
    report: &ApplyReport,
    backups: &'a [Backup],
    read: &'a Surveyed,
) -> Vec<&'a Backup> {
    let by_itself = |key: &&TemplateBackup, of: &Backup| {
        let mut templates = read.estate.templates.iter().filter(|t| t.namespace == of.namespace);
        let rolls = |s: Strategy| s.rolls_by_itself() || s == Strategy::NextRun;
        templates.any(|t| t.key() == key.key && rolls(t.strategy))
    };
    let proved = report.with(Outcome::satisfies).filter(|step| {
        let operation = planned.plan.steps.get(step.info.id.0).map(|step| &step.operation);
        matches!(operation, Some(Operation::ProvePods { .. }))
    });
    let names = proved.filter_map(|step| step.info.address.workload_name());
    let of = names.filter_map(|name| backup_of(&name, backups, read));
    of.filter(|b| !b.rolled_back && b.templates.iter().all(|t| by_itself(&t, b))).collect()
}

/// [`apply`] over clients that are already connected: writes the backups, runs the plan, puts back
/// what failed.
pub async fn carry_out(
    planned: &Planned,
    backups: &[Backup],
    read: &Surveyed,
    project: &Project,
    (client, remotes): (&dyn Objects, &dyn Remote),
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Moved, MoveError> {
    let manager = names::field_manager(project);
    for backup in backups {
        client.write_backup(backup, &manager).await.map_err(|error| {
            let tried = format!("write the backup of {}/{}", backup.namespace, backup.account);
            MoveError::Backup(error.failure(tried))
        })?;
    }
    let (started, clock) = (options.started_at, Instant::now());
    let patience = Patience {
        at_most: options.rollout_deadline,
        look: options.looks_apart,
        interrupt: options.interrupt.clone(),
    };
    let options = RunOptions { puts_back: true, ..options };
    let report = execute::run(&planned.plan, remotes, options, sink).await?;
    let ended = SignedDuration::try_from(clock.elapsed()).ok();
    if let Some(now) = ended.and_then(|took| started.checked_add(took).ok()) {
        let arrived = arrived(planned, &report, backups, read).into_iter();
        for backup in arrived.map(|backup| Backup { arrived: Some(now), ..backup.clone() }) {
            // Without the note the soak counts from the oldest pods, which is later.
            drop(client.write_backup(&backup, &manager).await);
        }
    }
    let failed = failed(planned, &report, backups, read);
    let back = failed.iter().filter_map(|(name, failed)| {
        Some((name, failed, backup_of(name, backups, read).filter(|b| !b.rolled_back)?))
    });
    // What is waited for is told as if the step that failed waited for it.
    let sink = Mutex::new(sink);
    let back = back.map(async |(name, failed, backup)| {
        let notes = |what: &str| {
            let Some(id) = failed.step else { return };
            // A poisoned lock means that another sink panicked; this one is as good as before.
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            sink(&Event::StepWaiting { id, what: what.to_owned() });
        };
        let patience = patience.clone();
        let blameless = failed.blameless;
        let with = Putting { project, served: false, blameless, patience, notes: &notes };
        let what =
            if failed.rolled.is_empty() { What::Everything } else { What::Rolls(&failed.rolled) };
        (name.clone(), put_back(client, read, backup, what, &with).await)
    });
    let put_back = join_all(back).await;
    let blameless = failed.iter().filter(|(_, failed)| failed.blameless);
    let blameless = blameless.map(|(name, _)| name.clone()).collect();
    Ok(Moved { report, put_back, blameless })
}

/// Whether a failed roll says nothing of the application.
fn is_blameless(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Unmade | FailureKind::Unreachable | FailureKind::Unavailable)
}

/// A workload that must be put back.
#[derive(Debug)]
struct Failed {
    /// The step that failed; of a rollout that was found failed, one of the same workload.
    step: Option<StepId>,
    /// The templates that go back, `kind/name`; none: all of them.
    rolled: BTreeSet<String>,
    /// Whether its pods could not be made, or not as they should be, or somebody else wrote its
    /// templates, and nothing else failed.
    blameless: bool,
}

/// The workloads whose roll failed, or whose pods did: those that this run rolled, and those whose
/// switch an earlier run began and did not see to its end. What has arrived stays where it is.
fn failed(
    planned: &Planned,
    report: &ApplyReport,
    backups: &[Backup],
    read: &Surveyed,
) -> BTreeMap<String, Failed> {
    let operation =
        |step: &StepReport| planned.plan.steps.get(step.info.id.0).map(|s| &s.operation);
    let mut rolled: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for step in report.with(|outcome| {
        matches!(
            outcome,
            Outcome::Done { .. }
                | Outcome::Failed { written: true, .. }
                | Outcome::Stale { written: true, .. }
        )
    }) {
        if let Some(Operation::RollTemplate { target, .. }) = operation(step)
            && let Some(name) = step.info.address.workload_name()
        {
            let key = format!("{}/{}", target.kind.as_str(), target.name);
            rolled.entry(name).or_default().insert(key);
        }
    }
    let under_way = |name: &str, gave_up: bool| {
        let workload = read.survey.workloads.iter().find(|w| w.name() == name);
        let backup = backup_of(name, backups, read);
        workload.is_some_and(|w| w.phase == Phase::Switched)
            && backup.is_some_and(|b| rollback::is_under_way(&read.estate, b, gave_up))
    };
    // What arrived before keeps its place: only what this run rolled goes back. A switch that never
    // came to its end goes back whole, whichever run began it.
    let rolled = |name: &str| {
        let backup = backup_of(name, backups, read);
        let stays =
            |b: &Backup| b.arrived.is_some() || !b.removed.is_empty() || !b.add_on.is_empty();
        let own = rolled.get(name).cloned().unwrap_or_default();
        let any = !own.is_empty();
        (any, if backup.is_some_and(stays) { own } else { BTreeSet::new() })
    };
    let mut found = BTreeMap::new();
    for step in report.with(|outcome| {
        matches!(outcome, Outcome::Failed { .. } | Outcome::Stale { written: true, .. })
    }) {
        let pods = matches!(
            operation(step),
            Some(
                Operation::RollTemplate { .. }
                    | Operation::AwaitRollout { .. }
                    | Operation::ProvePods { .. }
            )
        );
        let Some(name) = step.info.address.workload_name().filter(|_| pods) else { continue };
        let (any, rolled) = rolled(&name);
        if any || under_way(&name, false) {
            // That somebody else wrote, or nobody answered, says nothing of the application either.
            let blameless = !matches!(&step.outcome,
                Some(Outcome::Failed { failure, .. }) if !is_blameless(failure.kind));
            let failed = Failed { step: Some(step.info.id), rolled, blameless };
            found
                .entry(name)
                .and_modify(|earlier: &mut Failed| earlier.blameless &= blameless)
                .or_insert(failed);
        }
    }
    for finding in &planned.report.not_proved {
        if finding.code == plan::ROLLOUT_FAILED
            && let Some(name) = finding.address.workload_name().filter(|name| under_way(name, true))
        {
            let (_, rolled) = rolled(&name);
            let of = |step: &&Step| step.address.workload_name().as_deref() == Some(&*name);
            let step = planned.plan.steps.iter().find(of).map(|step| step.id);
            found.entry(name).or_insert(Failed { step, rolled, blameless: false });
        }
    }
    found
}
