//! What happens during a run, as data. This module does not know the executor.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Address, RemoteFailure},
    plan::{Action, ObjectKind, StepId},
};

/// Something that happened. The first event lists all steps; every started step ends in exactly
/// one [`Event::StepFinished`], and so does every step that never started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The run begins.
    RunStarted {
        /// Every step of the plan.
        steps: Vec<StepInfo>,
    },
    /// A step begins.
    StepStarted {
        /// Which.
        id: StepId,
    },
    /// A step waits: for propagation, a retry, a cluster update, pods.
    StepWaiting {
        /// Which.
        id: StepId,
        /// For what, as a fragment after "waiting for".
        what: String,
    },
    /// A step has ended, or will not be begun.
    StepFinished {
        /// Which.
        id: StepId,
        /// How.
        outcome: Outcome,
        /// How long it took.
        elapsed: Duration,
    },
    /// An interrupt was seen: nothing new is begun.
    Interrupted,
    /// A rollout failed or too many steps did: no more of this class are begun.
    BreakerOpen {
        /// What stopped, for example `rollouts`.
        class: String,
        /// The step that opened it.
        because: StepId,
    },
}

/// What a reader needs to know of a step to make sense of later events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepInfo {
    /// Its position.
    pub id: StepId,
    /// What it works on.
    pub address: Address,
    /// What it does, as a verb phrase.
    pub verb: String,
    /// The object and action it is counted as, if any.
    pub object: Option<(ObjectKind, Action)>,
    /// The workloads (in their clusters) that wait for it.
    pub workloads: Vec<Address>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Done.
    Done {
        /// What came of it, in words, where that is worth saying.
        detail: Option<String>,
    },
    /// It was already so.
    Unchanged,
    /// Not begun, because of another step.
    Skipped {
        /// The step that failed, was stale or was skipped itself.
        because: StepId,
    },
    /// Not begun, because the run was interrupted, ran out of time or the breaker opened.
    Cancelled {
        /// Why.
        why: Cancelled,
    },
    /// The world is neither as planned nor as wanted: plan again.
    Stale {
        /// What was found instead.
        what: String,
    },
    /// Tried and failed.
    Failed {
        /// What was tried and what came back.
        failure: RemoteFailure,
        /// Whether the write may have taken effect although it failed, or did in part: a template
        /// was patched and its rollout failed.
        written: bool,
    },
}

/// Why a step was not begun although nothing it needs failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cancelled {
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// `--timeout`.
    TimedOut,
    /// A rollout failed before.
    Breaker,
}
