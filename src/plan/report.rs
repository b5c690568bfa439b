//! What planning found beside the changes: risks, what waits and on whom, what could not be seen.

use serde::{Deserialize, Serialize};

use crate::model::{Address, ArmId, Origin, RemoteFailure};

/// The second output of planning. An unread report is not actionable: every list of it is shown.
#[must_use = "the report says what the plan cannot do"]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// What a reviewer should look at first.
    pub risks: Vec<Finding>,
    /// What must not be done: another project's object, a foreign manager's field, the wrong
    /// cluster. Exit code 5.
    pub refused: Vec<Finding>,
    /// Workloads that cannot go on until somebody does something: namespace missing, issuer off.
    pub blocked: Vec<Finding>,
    /// What could not be read.
    pub unknown: Vec<Unseen>,
    /// Objects that Git must change.
    pub pending_git: Vec<Pending>,
    /// Pods that a later rollout must replace.
    pub pending_rollout: Vec<Pending>,
    /// Jobs, bare pods and `ReplicaSets` that their owner must recreate.
    pub recreate: Vec<Pending>,
    /// Objects with our marks that the file no longer explains.
    pub left_over: Vec<LeftOver>,
    /// Workloads whose live pods do not carry today's values although nothing is planned for
    /// them; such a run is not proved.
    pub not_proved: Vec<Finding>,
    /// Workloads on clusters with `access = "none"`: not managed, not proved.
    pub unmanaged: Vec<Address>,
}

/// Something found about an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The object or workload.
    pub address: Address,
    /// A stable kebab-case code, for example `cluster-context-mismatch`.
    pub code: String,
    /// What is the case, one sentence without a full stop.
    pub message: String,
    /// What to type or write next.
    pub hint: Option<String>,
    /// The configuration line behind it.
    pub origin: Origin,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unseen {
    /// The object or workload.
    pub address: Address,
    /// What was tried and what came back.
    pub failure: RemoteFailure,
    /// The configuration line behind it.
    pub origin: Origin,
}

/// Something that waits for somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pending {
    /// The workload, in its cluster.
    pub workload: Address,
    /// The object, for example `deployment payments/payments-api`.
    pub object: String,
    /// Why it waits.
    pub why: String,
    /// What Git must hold, or what to type, a line each.
    pub wanted: Vec<String>,
}

/// An object with our marks that the file does not explain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOver {
    /// What it is, for example `federated credential`.
    pub kind: String,
    /// Its ARM id, or none for a Kubernetes object.
    pub id: Option<ArmId>,
    /// Its name as a person would say it.
    pub name: String,
}

impl PlanReport {
    /// Whether every part of the world that matters was seen and nothing stands in the way.
    pub fn is_clear(&self) -> bool {
        self.refused.is_empty() && self.blocked.is_empty() && self.unknown.is_empty()
    }
}
