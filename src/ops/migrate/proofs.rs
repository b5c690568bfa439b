//! The proofs of `migrate finish`: before anything is removed, every workload that has soaked is
//! proved again by the engine's own steps.

use std::collections::BTreeSet;

use super::{Request, Surveyed};
use crate::{
    execute::{
        self, ApplyReport, BrokenPlan, Event, Outcome, RunOptions,
        exit::{self, ExitCode},
        remote::Remote,
    },
    migrate::{Phase, Workload, transition},
    model::{desired::DesiredState, snapshot::Snapshot},
    observe::observe,
    ops::{Connected, Planned, Scope, verify::proofs_only},
    plan::{self, PlanOptions},
};

/// What was proved in one cluster, and what was not.
#[derive(Debug)]
pub struct Proofs {
    /// The workloads with a proof that succeeded and nothing against it, `namespace/account`.
    pub passed: BTreeSet<String>,
    /// What was found before: what is not as the proofs need it, and what was not seen.
    pub planned: Planned,
    /// How the proofs went.
    pub report: ApplyReport,
}

impl Proofs {
    /// What they come to.
    pub fn exit(&self) -> ExitCode {
        exit::of_apply(&self.planned.report, &self.report)
    }
}

/// Proves the chosen workloads that have soaked again; none where there are none.
pub async fn prove(
    request: Request<'_>,
    config: &str,
    read: &Surveyed,
    chosen: &BTreeSet<String>,
    connected: &Connected,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Option<Proofs>, BrokenPlan> {
    let Some(desired) = due(request.desired, read, chosen) else { return Ok(None) };
    let now = options.started_at;
    let scope = Scope::of(&desired, config, request.sandbox, now);
    let seen = observe(&desired, &connected.arm, &connected.clusters, now).await;
    let proofs = run(&desired, &seen, &connected.remotes(&desired), scope, options, sink).await?;
    Ok(Some(proofs))
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

/// Carries out only the proofs of what was seen.
pub async fn run(
    desired: &DesiredState,
    seen: &Snapshot,
    remotes: &dyn Remote,
    scope: Scope,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Proofs, BrokenPlan> {
    let (plan, report) = plan::plan(desired, seen, PlanOptions::default());
    let planned = proofs_only(Planned { scope, plan, report });
    let report = execute::run(&planned.plan, remotes, options, sink).await?;
    let passed = passed(&planned, &report);
    Ok(Proofs { passed, planned, report })
}

fn passed(planned: &Planned, report: &ApplyReport) -> BTreeSet<String> {
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
    for name in against.chain(found).chain(unseen) {
        passed.remove(&name);
    }
    passed
}
