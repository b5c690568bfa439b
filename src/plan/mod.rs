//! DECIDE: desired state and snapshot in, plan and report out. Pure, synchronous: time and the
//! world are arguments.
//!
//! [`planner::plan`] walks the chain once, in the order in which it must be built: clusters,
//! identities, role assignments, then for each workload in each of its clusters the federated
//! credential, the bare account, the proof, the annotations and the pod templates. Each link has
//! its file; [`draft`] collects what they find. What must not be done never becomes a step: it is
//! in the [`PlanReport`].

mod account;
mod assignment;
pub mod change;
mod cluster;
mod credential;
mod digest;
mod draft;
mod identity;
mod leftover;
mod ownership;
pub mod planner;
pub mod pods;
pub mod report;
mod roll;
mod sidecar;
pub mod step;
mod template;

pub use change::{Action, Change, FieldChange, ObjectKind, Planned, Reason};
pub use cluster::{Shown, shown};
pub use planner::{PlanOptions, plan};
pub use report::PlanReport;
pub use step::{Lock, Operation, Step, StepId, Value};
pub use template::ROLLOUT_FAILED;

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    /// The differences, ordered by address.
    pub changes: Vec<Change>,
    /// The work: the changes plus proofs and waits. A step comes after everything it needs.
    pub steps: Vec<Step>,
    /// `wd1:` and the SHA-256 over [`Self::digests`]: what `--expect-digest` compares.
    pub digest: String,
    /// The digests of the single changes and risks, sorted: what `--approved` compares.
    pub digests: Vec<String>,
}

impl Plan {
    /// How many objects are added and changed.
    pub fn counts(&self) -> (usize, usize) {
        let count = |action| {
            let counted = self.changes.iter().filter(|change| change.kind.counted());
            counted.filter(|change| change.action == action).count()
        };
        (count(Action::Create), count(Action::Update))
    }
}
