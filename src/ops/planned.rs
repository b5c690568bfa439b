//! What planning gives: the plan, its report, and the words that say what it is about.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    model::{
        Address, ClusterName, Project, TenantId,
        desired::{DesiredState, DesiredWorkload},
    },
    plan::{Action, Change, Plan, PlanReport},
};

/// A plan and everything a reader needs to judge it.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What was looked at.
    pub scope: Scope,
    /// What is to be done.
    pub plan: Plan,
    /// What stands beside it.
    pub report: PlanReport,
}

/// What a run was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The configuration file as the user named it.
    pub config: String,
    /// The project.
    pub project: Project,
    /// The tenant that is acted in.
    pub tenant: TenantId,
    /// The clusters of the selected workloads, ordered.
    pub clusters: Vec<ClusterName>,
    /// The selected workloads.
    pub workloads: Vec<Address>,
    /// How many workloads of the file were not selected.
    pub not_selected: usize,
    /// The selected workloads, each in each of its clusters.
    pub placements: usize,
    /// When the world was read.
    pub taken_at: Timestamp,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
}

impl Scope {
    /// What a run over this file is about.
    pub fn of(desired: &DesiredState, config: &str, sandbox: bool, now: Timestamp) -> Self {
        let selected = desired.workloads.iter().filter(|workload| workload.is_selected());
        let workloads: Vec<Address> = selected.map(DesiredWorkload::address).collect();
        let clusters: BTreeSet<ClusterName> =
            desired.placements().map(|(_, cluster)| cluster.name.clone()).collect();
        Self {
            config: config.to_owned(),
            project: desired.project.clone(),
            tenant: desired.tenant,
            clusters: clusters.into_iter().collect(),
            not_selected: desired.workloads.len() - workloads.len(),
            workloads,
            placements: desired.placements().count(),
            taken_at: now,
            sandbox,
        }
    }
}

/// Objects counted by what is done to them, as the last line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Objects made.
    pub add: usize,
    /// Objects changed.
    pub change: usize,
    /// Objects removed. Nothing is removed yet.
    pub destroy: usize,
}

impl Tally {
    /// Adds one object.
    pub fn count(&mut self, action: Action) {
        match action {
            Action::Create => self.add += 1,
            Action::Update => self.change += 1,
        }
    }
}

impl Planned {
    /// The objects of the plan, counted.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for change in self.plan.changes.iter().filter(|change| change.kind.counted()) {
            tally.count(change.action);
        }
        tally
    }

    /// How many proofs there are to be had: every selected workload in every cluster whose API
    /// server may be asked.
    pub fn to_prove(&self) -> usize {
        self.scope.placements.saturating_sub(self.report.unmanaged.len())
    }

    /// Whether an apply would write anything, rollouts included.
    pub fn has_changes(&self) -> bool {
        !self.plan.changes.is_empty()
    }

    /// Whether the world is seen, explained and as the file wants it. Only then may a plan say
    /// "No changes".
    pub fn matches(&self) -> bool {
        let PlanReport {
            risks: _,
            refused,
            blocked,
            unknown,
            // Waiting for somebody else's commit or rollout is neither change nor failure.
            pending_git: _,
            pending_rollout: _,
            recreate: _,
            left_over,
            not_proved,
            unmanaged: _,
        } = &self.report;
        !self.has_changes()
            && refused.is_empty()
            && blocked.is_empty()
            && unknown.is_empty()
            && left_over.is_empty()
            && not_proved.is_empty()
    }
}

/// The workload that an address belongs to, without cluster and part; none for shared objects.
pub fn workload_of(address: &Address) -> Option<Address> {
    match address {
        Address::Workload { namespace, account, cluster: _, part: _ } => {
            Some(Address::workload(namespace, account))
        }
        Address::Cluster(_) | Address::Identity(_) => None,
    }
}

/// The workload under which a change is shown: its own, or the only one that needs it; none for
/// what several share.
pub fn home_of(change: &Change) -> Option<Address> {
    workload_of(&change.address).or_else(|| {
        if matches!(change.address, Address::Cluster(_)) {
            return None;
        }
        let needing: BTreeSet<Address> = change.workloads.iter().filter_map(workload_of).collect();
        let mut needing = needing.into_iter();
        needing.next().filter(|_| needing.next().is_none())
    })
}
