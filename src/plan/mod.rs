//! DECIDE: desired state and snapshot in, plan and report out. Pure, synchronous: time and the
//! world are arguments.

pub mod change;
pub mod report;
pub mod step;

pub use change::{Action, Change, FieldChange, ObjectKind, Planned, Reason};
pub use report::PlanReport;
pub use step::{Lock, Operation, Step, StepId, Value};

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    /// The differences, ordered by address.
    pub changes: Vec<Change>,
    /// The work: the changes plus proofs and waits. A step comes after everything it needs.
    pub steps: Vec<Step>,
    /// `wd1:` and the digest of changes and risks.
    pub digest: String,
}
