//! What a run came to, as JSON: the same shape for `apply` and `verify`.

use schemars::JsonSchema;
use serde::Serialize;

use super::json::{self, FailureDocument, FindingDocument, OriginDocument, PendingDocument};
use crate::{
    execute::{
        event::{Cancelled, Evidence, Outcome},
        exit::ExitCode,
        report::{ApplyReport, StepReport},
    },
    model::Address,
    ops::Planned,
};

/// The version of the report document.
pub const FORMAT_VERSION: &str = "1.0";

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReportDocument {
    /// The version of this format.
    pub format_version: String,
    /// `apply` or `verify`.
    pub command: String,
    /// The project.
    pub project: String,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// The exit code, and with it the verdict.
    pub exit_code: u8,
    /// Whether anything was written, or may have been.
    pub written: bool,
    /// The digest of the plan that was carried out.
    pub digest: String,
    /// Objects that were written.
    pub resources: Resources,
    /// Token exchanges.
    pub proofs: Proofs,
    /// Why the run ended early: `interrupted` or `timed-out`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Every step, in the order of the plan.
    pub steps: Vec<StepDocument>,
    /// What was refused.
    pub refused: Vec<FindingDocument>,
    /// What could not go on.
    pub blocked: Vec<FindingDocument>,
    /// What could not be read.
    pub unknown: Vec<json::UnseenDocument>,
    /// What Git must change.
    pub pending_git: Vec<PendingDocument>,
    /// What a later rollout must replace.
    pub pending_rollout: Vec<PendingDocument>,
    /// What its owner must recreate.
    pub recreate: Vec<PendingDocument>,
    /// Objects with our marks that the file no longer explains.
    pub left_over: Vec<json::LeftOverDocument>,
    /// Workloads whose pods do not carry today's values although nothing was planned for them.
    pub not_proved: Vec<FindingDocument>,
    /// Workloads on clusters with `access = "none"`.
    pub unmanaged: Vec<String>,
}

/// Objects by what was done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Resources {
    /// Made.
    pub added: usize,
    /// Changed.
    pub changed: usize,
    /// Removed. Nothing is removed yet.
    pub destroyed: usize,
}

/// Proofs by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Proofs {
    /// Those that succeeded.
    pub proved: usize,
    /// All that were wanted.
    pub total: usize,
    /// Live pods seen to carry today's values.
    pub pods: usize,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StepDocument {
    /// What it works on.
    pub address: String,
    /// What it does.
    pub verb: String,
    /// `done`, `unchanged`, `skipped`, `cancelled`, `withheld`, `stale`, `failed`.
    pub outcome: String,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// The id of the object it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What came of it, or what was found instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// For a skipped step: the address of the step at the root of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// For a failed step: what was tried and what came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureDocument>,
    /// For a failed, stale or cancelled step: whether it may have been written all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<bool>,
    /// For a proof: what was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceDocument>,
    /// The configuration line behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginDocument>,
}

/// What a proof saw.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EvidenceDocument {
    /// Entra exchanged the account's token.
    Token {
        /// The issuer of the account's token.
        issuer: String,
        /// Its subject.
        subject: String,
        /// Its audience.
        audience: String,
        /// The principal that Entra's token is for.
        principal: String,
        /// How often was asked.
        attempts: u32,
        /// How many answers in a row came at the end.
        answers: u32,
        /// What made the exchange: `token`, a token that was requested for the account; `job`, a
        /// pod that ran as the account.
        method: String,
        /// Whether the probe succeeded as well.
        probed: bool,
        /// Why the probe could not be made from here, where it could not. That breaks nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        probe_unseen: Option<String>,
    },
    /// Live pods carry today's values.
    Pods {
        /// How many.
        pods: usize,
    },
}

/// The document of a run.
pub fn report(
    command: &str,
    planned: &Planned,
    report: &ApplyReport,
    exit: ExitCode,
) -> ReportDocument {
    let standing = &planned.report;
    ReportDocument {
        format_version: FORMAT_VERSION.to_owned(),
        command: command.to_owned(),
        project: planned.scope.project.to_string(),
        sandbox: planned.scope.sandbox,
        exit_code: exit.code(),
        written: report.written,
        digest: planned.plan.digest.clone(),
        resources: Resources {
            added: report.objects.added,
            changed: report.objects.changed,
            destroyed: 0,
        },
        proofs: Proofs {
            proved: report.proofs.good,
            total: report.proofs.of,
            pods: report.pods_proved,
        },
        stopped: report.stopped.map(|why| cancelled(why).to_owned()),
        steps: report.steps.iter().map(|done| step(planned, report, done)).collect(),
        refused: standing.refused.iter().map(json::finding).collect(),
        blocked: standing.blocked.iter().map(json::finding).collect(),
        unknown: standing.unknown.iter().map(json::unseen).collect(),
        pending_git: standing.pending_git.iter().map(json::pending).collect(),
        pending_rollout: standing.pending_rollout.iter().map(json::pending).collect(),
        recreate: standing.recreate.iter().map(json::pending).collect(),
        left_over: standing.left_over.iter().map(json::left).collect(),
        not_proved: standing.not_proved.iter().map(json::finding).collect(),
        unmanaged: standing.unmanaged.iter().map(Address::to_string).collect(),
    }
}

fn cancelled(why: Cancelled) -> &'static str {
    match why {
        Cancelled::Interrupted => "interrupted",
        Cancelled::TimedOut => "timed-out",
        Cancelled::Breaker => "breaker",
        Cancelled::NoRollout => "no-rollout",
    }
}

fn step(planned: &Planned, report: &ApplyReport, done: &StepReport) -> StepDocument {
    let StepReport { info, outcome, elapsed } = done;
    let change = info.change.and_then(|index| planned.plan.changes.get(index));
    let planned_step = planned.plan.steps.get(info.id.0);
    let mut document = StepDocument {
        address: info.address.to_string(),
        verb: info.verb.clone(),
        outcome: String::new(),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        id: change.map(|change| change.id.clone()),
        detail: None,
        because: None,
        failure: None,
        written: None,
        evidence: None,
        origin: planned_step.map(|step| json::origin(&step.origin)),
    };
    let word = match outcome {
        Some(Outcome::Done { detail, evidence: seen }) => {
            document.detail.clone_from(detail);
            document.evidence = seen.as_ref().map(evidence);
            "done"
        }
        Some(Outcome::Unchanged { detail }) => {
            document.detail.clone_from(detail);
            "unchanged"
        }
        Some(Outcome::Skipped { because }) => {
            document.because = report.step(*because).map(|root| root.info.address.to_string());
            "skipped"
        }
        Some(Outcome::Cancelled { why: Cancelled::NoRollout, .. }) => "withheld",
        Some(Outcome::Cancelled { why, written }) => {
            document.detail = Some(cancelled(*why).to_owned());
            document.written = Some(*written);
            "cancelled"
        }
        Some(Outcome::Stale { what, written }) => {
            document.detail = Some(what.clone());
            document.written = Some(*written);
            "stale"
        }
        Some(Outcome::Failed { failure, written }) => {
            document.failure = Some(json::failure(failure));
            document.written = Some(*written);
            "failed"
        }
        None => "cancelled",
    };
    word.clone_into(&mut document.outcome);
    document
}

fn evidence(seen: &Evidence) -> EvidenceDocument {
    match seen {
        Evidence::Token {
            issuer,
            subject,
            audience,
            principal,
            attempts,
            answers,
            method,
            probed,
            probe_unseen,
        } => EvidenceDocument::Token {
            issuer: issuer.to_string(),
            subject: subject.to_string(),
            audience: audience.to_string(),
            principal: principal.to_string(),
            attempts: *attempts,
            answers: *answers,
            method: method.clone(),
            probed: *probed,
            probe_unseen: probe_unseen.clone(),
        },
        Evidence::Pods { pods } => EvidenceDocument::Pods { pods: *pods },
    }
}
