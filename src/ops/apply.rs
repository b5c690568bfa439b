//! `apply`: what was planned and approved is done, proved and reported.

use super::{
    Connected, Planned,
    approval::{Approval, NotApproved, expect_digest},
};
use crate::{
    execute::{self, ApplyReport, BrokenPlan, Event, RunOptions},
    model::desired::DesiredState,
};

/// Who approves a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// A person at the terminal.
    Ask,
    /// `--yes`.
    Yes,
    /// `--expect-digest`: exactly this plan.
    Digest(String),
    /// A plan file or `--approved`: this plan or less.
    Approved(Approval),
}

impl Gate {
    /// Whether a person must still be asked; an error where the plan is not what was approved.
    pub fn admit(&self, planned: &Planned) -> Result<bool, NotApproved> {
        match self {
            Self::Ask => Ok(planned.has_changes()),
            Self::Yes => Ok(false),
            Self::Digest(expected) => expect_digest(expected, planned).map(|()| false),
            Self::Approved(approval) => approval.covers(planned).map(|()| false),
        }
    }
}

/// Carries a plan out. What is refused, blocked or unseen has no steps in it; everything else is
/// done, and every workload is proved even where nothing changes.
pub async fn apply(
    planned: &Planned,
    desired: &DesiredState,
    connected: &Connected,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<ApplyReport, BrokenPlan> {
    let remotes = connected.remotes(desired);
    let mut report = execute::run(&planned.plan, &remotes, options, sink).await?;
    // A workload that is blocked has no proof among the steps, and is not proved.
    report.proofs.of = report.proofs.of.max(planned.to_prove());
    Ok(report)
}
