//! What a step takes up while it runs: an endpoint with a bound, locks, a place among the rollouts.

use std::collections::BTreeSet;

use crate::{
    model::{Address, ClusterName},
    plan::{Lock, Operation, Step, StepId},
};

/// A plan whose steps do not fit together. A plan file that was edited, or a defect of the planner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenPlan {
    /// A step's id is not its position.
    #[error("step {found:?} stands at position {position}")]
    Misplaced {
        /// Where it stands.
        position: usize,
        /// What it says.
        found: StepId,
    },
    /// A step needs itself, a later step or none that exists.
    #[error("step {step:?} needs step {need:?}, which does not stand before it")]
    Order {
        /// The step.
        step: StepId,
        /// What it needs.
        need: StepId,
    },
    /// A step talks to a cluster and its address names none.
    #[error("step {step:?} ({address}) names no cluster")]
    NoCluster {
        /// The step.
        step: StepId,
        /// Its address.
        address: Address,
    },
}

/// How many steps may run at once, for each limit that Azure or Kubernetes has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At Azure Resource Manager.
    pub resource_manager: usize,
    /// At each API server.
    pub api_server: usize,
    /// Proofs. Their requests are bounded where they are made; most of their time is waiting, and
    /// one must not wait for another's waiting.
    pub entra: usize,
    /// Rollouts, in all clusters together, once the first one is done.
    pub rollouts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { resource_manager: 16, api_server: 8, entra: 256, rollouts: 5 }
    }
}

/// What a step keeps busy while it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    ResourceManager,
    ApiServer(ClusterName),
    Entra,
    /// Nothing worth counting: it mostly waits, for minutes.
    Clock,
}

/// The cluster that an address lies in.
pub(crate) fn cluster_of(address: &Address) -> Option<&ClusterName> {
    match address {
        Address::Cluster(name) | Address::Workload { cluster: Some(name), .. } => Some(name),
        Address::Identity(_) | Address::Workload { cluster: None, .. } => None,
    }
}

impl Endpoint {
    fn of(step: &Step) -> Result<Self, BrokenPlan> {
        let cluster = || {
            cluster_of(&step.address).cloned().ok_or_else(|| BrokenPlan::NoCluster {
                step: step.id,
                address: step.address.clone(),
            })
        };
        Ok(match &step.operation {
            Operation::EnableFeatures { .. }
            | Operation::CreateIdentity { .. }
            | Operation::TagIdentity { .. }
            | Operation::PutCredential { .. }
            | Operation::PutAssignment { .. } => Self::ResourceManager,
            Operation::SettleRoles { .. } => Self::Clock,
            Operation::AwaitRollout { .. } => {
                cluster()?;
                Self::Clock
            }
            Operation::Prove { .. } => {
                cluster()?;
                Self::Entra
            }
            Operation::ConfirmCluster { .. }
            | Operation::CreateAccount { .. }
            | Operation::AnnotateAccount { .. }
            | Operation::CheckInjection { .. }
            | Operation::RollTemplate { .. }
            | Operation::ProvePods { .. } => Self::ApiServer(cluster()?),
        })
    }
}

/// Whether a step rolls pods, and whether it is waited for: only then its end says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Roll {
    No,
    Unwatched,
    Watched,
}

/// What the queue needs to know of a step.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) needs: Vec<usize>,
    pub(crate) locks: BTreeSet<Lock>,
    pub(crate) endpoint: Endpoint,
    pub(crate) roll: Roll,
    /// Whether it proves pods that this plan rolls: its failure says what a failed rollout says.
    pub(crate) proves_roll: bool,
}

impl Spec {
    /// What the step at this position takes up.
    pub(crate) fn of(steps: &[Step], position: usize) -> Result<Self, BrokenPlan> {
        let step = &steps[position];
        if step.id.0 != position {
            return Err(BrokenPlan::Misplaced { position, found: step.id });
        }
        if let Some(need) = step.needs.iter().find(|need| need.0 >= position) {
            return Err(BrokenPlan::Order { step: step.id, need: *need });
        }
        Ok(Self {
            needs: step.needs.iter().map(|need| need.0).collect(),
            locks: step.locks.clone(),
            endpoint: Endpoint::of(step)?,
            roll: if matches!(step.operation, Operation::RollTemplate { wait: true, .. }) {
                Roll::Watched
            } else if step.operation.rolls() {
                Roll::Unwatched
            } else {
                Roll::No
            },
            proves_roll: matches!(step.operation, Operation::ProvePods { .. })
                && step.needs.iter().any(|need| steps[need.0].operation.rolls()),
        })
    }
}
