//! What happens during a run, as data. This module does not know the executor.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Address, Audience, Issuer, PrincipalId, RemoteFailure, Subject},
    plan::{Action, Change, ObjectKind, Operation, Step, StepId},
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
    /// An interrupt was seen: nothing new is begun, writes in flight finish.
    Interrupted,
    /// The time given for the whole run is over: as after an interrupt.
    TimedOut,
    /// A rollout failed, or its pods were not proved: no more of this class are begun.
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
    /// What its failure means for the run.
    pub class: StepClass,
    /// Whether it is a token exchange, which `Proof: 8 of 8 proved` counts.
    pub exchanges_token: bool,
    /// The change it carries out, as an index into the plan's changes. Several steps may carry
    /// out one change: it is one object.
    pub change: Option<usize>,
    /// The object and action of that change.
    pub object: Option<(ObjectKind, Action)>,
    /// The workloads (in their clusters) that wait for it.
    pub workloads: Vec<Address>,
}

impl StepInfo {
    /// What the report needs of a step of a plan.
    pub fn of(step: &Step, changes: &[Change]) -> Self {
        let change = step.change.and_then(|index| changes.get(index));
        Self {
            id: step.id,
            address: step.address.clone(),
            verb: step.operation.verb().to_owned(),
            class: StepClass::of(&step.operation),
            exchanges_token: matches!(step.operation, Operation::Prove { .. }),
            change: step.change,
            object: change.map(|change| (change.kind, change.action)),
            workloads: step.workloads.clone(),
        }
    }
}

/// What a step's failure means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepClass {
    /// It writes: its failure leaves the change undone.
    Write,
    /// It writes a template and waits for the pods: a failure may leave both.
    Rollout,
    /// It proves, or watches a rollout that is under way, and writes nothing: a failure leaves
    /// what was applied not proved.
    Proof,
    /// It guards or waits and writes nothing: a failure leaves the changes behind it undone.
    Guard,
}

impl StepClass {
    /// The class of an operation.
    pub fn of(operation: &Operation) -> Self {
        match operation {
            Operation::EnableFeatures { .. }
            | Operation::CreateIdentity { .. }
            | Operation::TagIdentity { .. }
            | Operation::PutCredential { .. }
            | Operation::PutAssignment { .. }
            | Operation::CreateAccount { .. }
            | Operation::AnnotateAccount { .. } => Self::Write,
            Operation::RollTemplate { .. } => Self::Rollout,
            Operation::Prove { .. }
            | Operation::CheckInjection { .. }
            | Operation::AwaitRollout { .. }
            | Operation::ProvePods { .. } => Self::Proof,
            Operation::SettleRoles { .. } | Operation::ConfirmCluster { .. } => Self::Guard,
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Done.
    Done {
        /// What came of it, in words, where that is worth saying.
        detail: Option<String>,
        /// What was proved, for a proof.
        evidence: Option<Evidence>,
    },
    /// It was already so.
    Unchanged {
        /// What was found, where that is worth saying: a role assignment under another name.
        detail: Option<String>,
    },
    /// Not begun, because of another step.
    Skipped {
        /// The step at the root of it: one that failed, was stale or was cancelled.
        because: StepId,
    },
    /// Not begun, or given up while it waited, although nothing it needs failed.
    Cancelled {
        /// Why.
        why: Cancelled,
        /// Whether its write was made, or may have been, before it was given up.
        written: bool,
    },
    /// The world is neither as planned nor as wanted: plan again.
    Stale {
        /// What was found instead.
        what: String,
        /// Whether its write was made, or may have been, before that was found.
        #[serde(default)]
        written: bool,
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

impl Outcome {
    /// Whether steps that need this one may begin.
    pub fn satisfies(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Unchanged { .. } => true,
            Self::Skipped { .. }
            | Self::Cancelled { .. }
            | Self::Stale { .. }
            | Self::Failed { .. } => false,
        }
    }
}

/// What a proof saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Evidence {
    /// Entra exchanged the account's token for one of the identity.
    Token {
        /// The issuer of the account's token.
        issuer: Issuer,
        /// Its subject.
        subject: Subject,
        /// Its audience.
        audience: Audience,
        /// Whom Entra's token is for.
        principal: PrincipalId,
        /// How often was asked.
        attempts: u32,
        /// How many answers in a row came at the end.
        answers: u32,
        /// How the account's token was got, for example `token`.
        method: String,
        /// Whether a data-plane request succeeded as well.
        probed: bool,
        /// Why the data-plane request could not be made from here, where it could not.
        probe_unseen: Option<String>,
    },
    /// Live pods carry today's values.
    Pods {
        /// How many.
        pods: usize,
    },
}

/// Why a step was not begun, or was given up, although nothing it needs failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cancelled {
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// `--timeout`.
    TimedOut,
    /// A rollout failed before, or its pods were not proved.
    Breaker,
    /// `--no-rollout`: it waits for a later rollout, which is no failure.
    NoRollout,
}
