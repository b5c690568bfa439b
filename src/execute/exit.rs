//! From what happened to the number that the process ends with. The only place that knows the
//! precedence of exit codes.

use super::{
    event::{Cancelled, Evidence, Outcome, StepClass},
    report::ApplyReport,
};
use crate::{
    model::{FailureKind, RemoteFailure},
    plan::PlanReport,
    prove,
};

/// The documented exit codes. The order of the variants is not their precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed, nothing changed; invalid configuration; blocked.
    Failed = 1,
    /// Changes are present (`plan --detailed-exitcode`, `audit --fail-on`).
    Changes = 2,
    /// Applied in part.
    Partial = 3,
    /// The plan, a digest or an object is not what it was.
    Stale = 4,
    /// Refused: policy, protection, wrong cluster, another project's object.
    Refused = 5,
    /// Authentication or authorisation.
    Denied = 6,
    /// Applied but not proved, or a broken chain.
    NotProved = 7,
    /// Interrupted, consistent.
    Interrupted = 8,
    /// `--timeout`.
    TimedOut = 9,
    /// Usage.
    Usage = 64,
    /// A defect of this program.
    Internal = 70,
}

impl ExitCode {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// The code of evidence that an API server is not the cluster of ARM's record; proofs give it too.
pub const WRONG_CLUSTER: &str = prove::CONTEXT_MISMATCH;

/// Whether nobody answered: nothing was proved, and nothing was found to be broken.
fn unreachable(failure: &RemoteFailure) -> bool {
    matches!(failure.kind, FailureKind::Unreachable | FailureKind::Unavailable)
}

/// What stood in the way of a run, each at most once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent findings")]
struct Found {
    refused: bool,
    stale: bool,
    denied: bool,
    /// A probe could not be made from here, or Entra gave no answer.
    unseen: bool,
    not_proved: bool,
    /// Anything else that failed, was blocked or not seen.
    other: bool,
}

impl Found {
    fn of_plan(plan: &PlanReport) -> Self {
        let unseen_denied = plan.unknown.iter().any(|unseen| unseen.failure.kind.is_denied());
        Self {
            refused: !plan.refused.is_empty(),
            stale: false,
            denied: unseen_denied,
            unseen: false,
            not_proved: !plan.not_proved.is_empty(),
            other: !plan.blocked.is_empty() || (!plan.unknown.is_empty() && !unseen_denied),
        }
    }

    /// The code where nothing was written: the first present of 5, 4, 6, 7, 1.
    fn code(self) -> ExitCode {
        match self {
            Self { refused: true, .. } => ExitCode::Refused,
            Self { stale: true, .. } => ExitCode::Stale,
            Self { denied: true, .. } | Self { unseen: true, .. } => ExitCode::Denied,
            Self { not_proved: true, .. } => ExitCode::NotProved,
            Self { other: true, .. } => ExitCode::Failed,
            Self { .. } => ExitCode::Done,
        }
    }
}

/// The exit code of `apply`, from what planning found and what the run came to.
pub fn of_apply(plan: &PlanReport, run: &ApplyReport) -> ExitCode {
    match run.stopped {
        Some(Cancelled::Interrupted) => return ExitCode::Interrupted,
        Some(Cancelled::TimedOut) => return ExitCode::TimedOut,
        Some(Cancelled::Breaker | Cancelled::NoRollout) | None => {}
    }
    let mut found = Found::of_plan(plan);
    // Failures of proofs and rollouts leave what was applied whole; all others leave a part out.
    let mut part_left_out = found.refused || found.denied || found.other;
    let mut proof_failed = found.not_proved;
    for step in &run.steps {
        match &step.outcome {
            Some(Outcome::Stale { .. }) => {
                found.stale = true;
                part_left_out = true;
            }
            Some(Outcome::Failed { failure, .. }) => {
                let wrong_cluster = failure.code.as_deref() == Some(WRONG_CLUSTER);
                let proof = matches!(step.info.class, StepClass::Proof | StepClass::Rollout);
                found.refused |= wrong_cluster;
                found.denied |= failure.kind.is_denied();
                // A rollout has written or was looked at; an exchange without an answer has not.
                let nothing_said = step.info.class == StepClass::Proof && unreachable(failure);
                let entra = failure.code.as_deref() == Some(prove::ENTRA_UNREACHABLE);
                found.unseen |= entra;
                found.not_proved |= proof && !nothing_said;
                found.other |= !proof || (nothing_said && !entra);
                proof_failed |= proof;
                part_left_out |= !proof || wrong_cluster;
            }
            Some(Outcome::Done {
                evidence: Some(Evidence::Token { probe_unseen: Some(_), .. }),
                ..
            }) => {
                found.unseen = true;
                proof_failed = true;
            }
            // These follow from a step that is counted itself, or are no failure.
            Some(
                Outcome::Done { .. }
                | Outcome::Unchanged { .. }
                | Outcome::Skipped { .. }
                | Outcome::Cancelled { .. },
            )
            | None => {}
        }
    }
    if !run.written {
        return found.code();
    }
    match (part_left_out, proof_failed) {
        (true, _) => ExitCode::Partial,
        (false, true) => ExitCode::NotProved,
        (false, false) => ExitCode::Done,
    }
}

/// The exit code of `plan`. Pods that are not proved are for `apply` and `verify` to judge.
pub fn of_plan(plan: &PlanReport, changes: bool, detailed: bool) -> ExitCode {
    let found = Found { not_proved: false, ..Found::of_plan(plan) };
    let code = found.code();
    if code == ExitCode::Done && changes && detailed { ExitCode::Changes } else { code }
}

/// The exit code of one failed call that a command ends with.
pub fn of_failure(failure: &RemoteFailure) -> ExitCode {
    match failure.kind {
        _ if failure.code.as_deref() == Some(WRONG_CLUSTER) => ExitCode::Refused,
        FailureKind::Unauthenticated | FailureKind::Denied => ExitCode::Denied,
        FailureKind::NotProved | FailureKind::Unmade => ExitCode::NotProved,
        FailureKind::Conflict => ExitCode::Stale,
        FailureKind::Unreachable
        | FailureKind::Unavailable
        | FailureKind::TimedOut
        | FailureKind::Refused
        | FailureKind::Unfinished
        | FailureKind::NotReached => ExitCode::Failed,
    }
}

/// The exit code of what could not be seen.
pub fn of_unseen<'a>(unseen: impl IntoIterator<Item = &'a RemoteFailure>) -> ExitCode {
    let codes: Vec<ExitCode> = unseen
        .into_iter()
        .map(|failure| if failure.kind.is_denied() { ExitCode::Denied } else { ExitCode::Failed })
        .collect();
    of_obstacles(&codes, false)
}

/// The exit code of a command whose parts were left out for these reasons: *in part* where
/// anything was written, the worst of them where nothing was. An early end comes before both.
pub fn of_obstacles(found: &[ExitCode], written: bool) -> ExitCode {
    let order = [
        ExitCode::Interrupted,
        ExitCode::TimedOut,
        ExitCode::Internal,
        ExitCode::Refused,
        ExitCode::Stale,
        ExitCode::Denied,
        ExitCode::NotProved,
        // Also what a part was applied without.
        ExitCode::Partial,
        ExitCode::Failed,
    ];
    match order.into_iter().find(|exit| found.contains(exit)) {
        Some(early @ (ExitCode::Interrupted | ExitCode::TimedOut)) => early,
        Some(_) if written => ExitCode::Partial,
        Some(exit) => exit,
        None => ExitCode::Done,
    }
}

/// The exit code of several runs of [`crate::execute::run`] by theirs. What was applied everywhere
/// and not proved somewhere is *not proved*: nothing of it was left out.
pub fn of_runs(found: &[ExitCode], written: bool) -> ExitCode {
    let whole = |exit: &ExitCode| matches!(exit, ExitCode::Done | ExitCode::NotProved);
    let exit = of_obstacles(found, written);
    if exit == ExitCode::Partial && found.iter().all(whole) { ExitCode::NotProved } else { exit }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        execute::event::{Event, StepInfo},
        model::{Address, Origin},
        plan::{
            StepId,
            report::{Finding, Unseen},
        },
    };

    fn run(steps: &[(StepClass, Outcome)]) -> ApplyReport {
        let infos = steps.iter().enumerate().map(|(id, (class, _))| StepInfo {
            id: StepId(id),
            address: Address::Identity("i".to_owned()),
            verb: "do".to_owned(),
            class: *class,
            exchanges_token: false,
            change: None,
            object: None,
            workloads: Vec::new(),
        });
        let mut events = vec![Event::RunStarted { steps: infos.collect() }];
        events.extend(steps.iter().enumerate().map(|(id, (_, outcome))| Event::StepFinished {
            id: StepId(id),
            outcome: outcome.clone(),
            elapsed: Duration::ZERO,
        }));
        ApplyReport::fold(&events)
    }

    fn origin() -> Origin {
        Origin { file: "workloads.toml".to_owned(), line: 1, column: 1 }
    }

    fn finding() -> Vec<Finding> {
        vec![Finding {
            address: Address::Identity("i".to_owned()),
            code: "c".to_owned(),
            message: "m".to_owned(),
            hint: None,
            origin: origin(),
        }]
    }

    fn unseen(kind: FailureKind) -> Vec<Unseen> {
        vec![Unseen {
            address: Address::Identity("i".to_owned()),
            failure: RemoteFailure::new(kind, "read", "no"),
            origin: origin(),
        }]
    }

    fn failed(kind: FailureKind, written: bool) -> Outcome {
        Outcome::Failed { failure: RemoteFailure::new(kind, "try", "no"), written }
    }

    fn done() -> Outcome {
        Outcome::Done { detail: None, evidence: None }
    }

    fn no_entra() -> Outcome {
        let mut failure = RemoteFailure::new(FailureKind::Unreachable, "prove", "no answer");
        failure.code = Some(prove::ENTRA_UNREACHABLE.to_owned());
        Outcome::Failed { failure, written: false }
    }

    fn probe_unseen() -> Outcome {
        let evidence = Evidence::Token {
            issuer: "https://issuer/".into(),
            subject: "system:serviceaccount:n:a".into(),
            audience: "api://AzureADTokenExchange".into(),
            principal: "33333333-3333-3333-3333-333333333333".parse().unwrap(),
            attempts: 1,
            answers: 1,
            method: "token".to_owned(),
            probed: false,
            probe_unseen: Some("a firewall".to_owned()),
        };
        Outcome::Done { detail: None, evidence: Some(evidence) }
    }

    fn stale() -> Outcome {
        Outcome::Stale { what: "gone".to_owned(), written: false }
    }

    fn stale_after_its_write() -> Outcome {
        Outcome::Stale { what: "gone".to_owned(), written: true }
    }

    fn cancelled(why: Cancelled) -> Outcome {
        Outcome::Cancelled { why, written: false }
    }

    fn wrong_cluster() -> Outcome {
        let mut failure = RemoteFailure::new(FailureKind::Refused, "confirm", "differs");
        failure.code = Some(WRONG_CLUSTER.to_owned());
        Outcome::Failed { failure, written: false }
    }

    /// What it is, what planning found, how the steps ended, the exit code.
    type Case<'a> = (&'a str, &'a PlanReport, Vec<(StepClass, Outcome)>, u8);

    #[test]
    fn precedence_of_apply() {
        use FailureKind::{Denied, NotProved, Refused, TimedOut, Unauthenticated, Unreachable};
        use StepClass::{Guard, Proof, Rollout, Write};

        let clear = PlanReport::default();
        let refused = PlanReport { refused: finding(), ..PlanReport::default() };
        let blocked = PlanReport { blocked: finding(), ..PlanReport::default() };
        let not_proved = PlanReport { not_proved: finding(), ..PlanReport::default() };
        let denied = PlanReport { unknown: unseen(Denied), ..PlanReport::default() };
        let unreachable = PlanReport { unknown: unseen(Unreachable), ..PlanReport::default() };

        let table: Vec<Case<'_>> = vec![
            ("nothing to do", &clear, vec![], 0),
            ("all done", &clear, vec![(Write, done()), (Proof, done())], 0),
            ("interrupted", &clear, vec![(Write, cancelled(Cancelled::Interrupted))], 8),
            ("timed out", &refused, vec![(Write, cancelled(Cancelled::TimedOut))], 9),
            ("--no-rollout", &clear, vec![(Rollout, cancelled(Cancelled::NoRollout))], 0),
            // Something was written.
            ("a write failed", &clear, vec![(Write, done()), (Write, failed(Refused, false))], 3),
            (
                "a write was denied",
                &clear,
                vec![(Write, done()), (Write, failed(Denied, false))],
                3,
            ),
            ("a doubtful write", &clear, vec![(Write, failed(Unreachable, true))], 3),
            ("stale", &clear, vec![(Write, done()), (Write, stale())], 3),
            ("stale after its own write", &clear, vec![(Rollout, stale_after_its_write())], 3),
            ("blocked", &blocked, vec![(Write, done())], 3),
            ("not seen", &unreachable, vec![(Write, done())], 3),
            ("refused", &refused, vec![(Write, done())], 3),
            (
                "roles did not settle",
                &clear,
                vec![(Write, done()), (Guard, failed(TimedOut, false))],
                3,
            ),
            ("not proved", &clear, vec![(Write, done()), (Proof, failed(NotProved, false))], 7),
            ("proof denied", &clear, vec![(Write, done()), (Proof, failed(Denied, false))], 7),
            ("rollout failed", &clear, vec![(Rollout, failed(TimedOut, true))], 7),
            ("pods not proved", &not_proved, vec![(Write, done())], 7),
            (
                "proof and write",
                &clear,
                vec![
                    (Write, done()),
                    (Proof, failed(NotProved, false)),
                    (Write, failed(Refused, false)),
                ],
                3,
            ),
            (
                "another cluster elsewhere",
                &clear,
                vec![(Write, done()), (Guard, wrong_cluster())],
                3,
            ),
            // Nothing was written: 5, 4, 6, 7, 1.
            ("another cluster", &clear, vec![(Guard, wrong_cluster()), (Write, stale())], 5),
            (
                "refused before all",
                &refused,
                vec![(Write, stale()), (Proof, failed(NotProved, false))],
                5,
            ),
            ("stale, nothing written", &denied, vec![(Write, stale())], 4),
            ("denied", &denied, vec![(Proof, failed(NotProved, false))], 6),
            ("API server unreachable", &clear, vec![(Proof, failed(Unreachable, false))], 1),
            ("Entra unreachable", &clear, vec![(Proof, no_entra())], 6),
            (
                "Entra unreachable after a write",
                &clear,
                vec![(Write, done()), (Proof, no_entra())],
                7,
            ),
            ("no sign-in", &clear, vec![(Proof, failed(Unauthenticated, false))], 6),
            ("probe not seen", &clear, vec![(Proof, probe_unseen())], 6),
            (
                "probe not seen, another not proved",
                &clear,
                vec![(Proof, probe_unseen()), (Proof, failed(NotProved, false))],
                6,
            ),
            (
                "probe not seen after a write",
                &clear,
                vec![(Write, done()), (Proof, probe_unseen())],
                7,
            ),
            ("a proof denied", &clear, vec![(Proof, failed(Denied, false))], 6),
            ("not proved, nothing written", &blocked, vec![(Proof, failed(NotProved, false))], 7),
            ("pods not proved, nothing written", &not_proved, vec![], 7),
            ("unchanged rollout failed", &clear, vec![(Rollout, failed(TimedOut, false))], 7),
            ("blocked, nothing written", &blocked, vec![], 1),
            ("not seen, nothing written", &unreachable, vec![], 1),
            ("failed, nothing written", &clear, vec![(Write, failed(Refused, false))], 1),
        ];
        for (name, plan, steps, code) in table {
            assert_eq!(of_apply(plan, &run(&steps)).code(), code, "{name}");
        }
    }

    #[test]
    fn precedence_of_several() {
        use ExitCode::{
            Denied, Done, Failed, Internal, Interrupted, NotProved, Partial, Refused, Stale,
            TimedOut,
        };
        // The codes, then as obstacles and as runs; first where nothing was written.
        for (found, unwritten, obstacles, runs) in [
            (vec![], Done, Done, Done),
            (vec![Done, Done], Done, Done, Done),
            (vec![Done, Refused], Refused, Partial, Partial),
            (vec![Failed, Denied, Stale, Refused], Refused, Partial, Partial),
            (vec![NotProved, Failed], NotProved, Partial, Partial),
            (vec![Done, NotProved], NotProved, Partial, NotProved),
            (vec![Partial, NotProved], NotProved, Partial, Partial),
            (vec![Internal, Failed], Internal, Partial, Partial),
            (vec![Refused, TimedOut], TimedOut, TimedOut, TimedOut),
            (vec![TimedOut, Interrupted], Interrupted, Interrupted, Interrupted),
        ] {
            assert_eq!(of_obstacles(&found, false), unwritten, "{found:?}");
            assert_eq!(of_obstacles(&found, true), obstacles, "{found:?}");
            assert_eq!(of_runs(&found, true), runs, "{found:?}");
        }
    }

    #[test]
    fn precedence_of_plan() {
        let clear = PlanReport::default();
        let unseen_and_refused = PlanReport {
            unknown: unseen(FailureKind::Denied),
            refused: finding(),
            ..PlanReport::default()
        };
        let blocked = PlanReport { blocked: finding(), ..PlanReport::default() };
        let not_proved = PlanReport { not_proved: finding(), ..PlanReport::default() };
        for (plan, changes, detailed, code) in [
            (&clear, false, true, 0),
            (&clear, true, false, 0),
            (&clear, true, true, 2),
            (&blocked, true, true, 1),
            (&not_proved, false, true, 0),
            (&unseen_and_refused, true, true, 5),
        ] {
            assert_eq!(of_plan(plan, changes, detailed).code(), code);
        }
    }
}
