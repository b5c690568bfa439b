//! The sum of a run's events: what was done, what was not and because of what.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::event::{Cancelled, Event, Evidence, Outcome, StepClass, StepInfo};
use crate::plan::{Action, ObjectKind, StepId};

/// What a run came to.
#[must_use = "the report says what was not done"]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// Every step of the plan in its order, with how it ended.
    pub steps: Vec<StepReport>,
    /// How many steps ended in which way.
    pub counts: Counts,
    /// The objects of `Apply complete! Resources: 3 added, 1 changed, 0 destroyed.`
    pub objects: Objects,
    /// Token exchanges that succeeded, of those the plan asked for.
    pub proofs: Tally,
    /// Live pods that were seen to carry today's values.
    pub pods_proved: usize,
    /// Whether anything was written, or may have been.
    pub written: bool,
    /// What ended the run early, if steps were left over for it.
    pub stopped: Option<Cancelled>,
    /// The rollout, or proof of its pods, whose failure stopped the others, if there were others.
    pub breaker: Option<StepId>,
    /// The objects that `objects` has counted.
    #[serde(skip)]
    counted: BTreeSet<(ObjectKind, Result<usize, StepId>)>,
}

/// One step and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step.
    pub info: StepInfo,
    /// How it ended; none only while the run goes on.
    pub outcome: Option<Outcome>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Steps by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Done.
    pub done: usize,
    /// Already so.
    pub unchanged: usize,
    /// Tried and failed.
    pub failed: usize,
    /// Not begun because of another step.
    pub skipped: usize,
    /// Not begun or given up: interrupted, out of time, a rollout failed before.
    pub cancelled: usize,
    /// Left for a later rollout, as `--no-rollout` asks.
    pub withheld: usize,
    /// The world was neither as planned nor as wanted.
    pub stale: usize,
}

/// Objects that were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// Made.
    pub added: usize,
    /// Changed.
    pub changed: usize,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Those that succeeded.
    pub good: usize,
    /// All.
    pub of: usize,
}

impl ApplyReport {
    /// The report of a whole run.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut report = Self::default();
        for event in events {
            report.add(event);
        }
        report
    }

    /// Takes one more event. Steps that are not part of the run are ignored.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::RunStarted { steps } => {
                let proofs = steps.iter().filter(|info| info.exchanges_token).count();
                let fresh = |info: &StepInfo| StepReport {
                    info: info.clone(),
                    outcome: None,
                    elapsed: Duration::ZERO,
                };
                *self = Self {
                    steps: steps.iter().map(fresh).collect(),
                    proofs: Tally { good: 0, of: proofs },
                    ..Self::default()
                };
            }
            Event::StepFinished { id, outcome, elapsed } => self.finish(*id, outcome, *elapsed),
            Event::BreakerOpen { because, .. } => self.breaker = Some(*because),
            Event::StepStarted { .. }
            | Event::StepWaiting { .. }
            | Event::Interrupted
            | Event::TimedOut => {}
        }
    }

    fn finish(&mut self, id: StepId, outcome: &Outcome, elapsed: Duration) {
        let Some(step) = self.steps.get_mut(id.0).filter(|step| step.outcome.is_none()) else {
            return;
        };
        step.outcome = Some(outcome.clone());
        step.elapsed = elapsed;
        let info = step.info.clone();
        let class = info.class;
        match outcome {
            Outcome::Done { evidence, .. } => {
                self.counts.done += 1;
                self.written |= matches!(class, StepClass::Write | StepClass::Rollout);
                match evidence {
                    Some(Evidence::Token { .. }) => self.proofs.good += 1,
                    Some(Evidence::Pods { pods }) => self.pods_proved += pods,
                    None => {}
                }
            }
            Outcome::Unchanged { .. } => self.counts.unchanged += 1,
            Outcome::Skipped { .. } => self.counts.skipped += 1,
            Outcome::Cancelled { why: Cancelled::NoRollout, .. } => self.counts.withheld += 1,
            Outcome::Cancelled { why, written } => {
                self.counts.cancelled += 1;
                self.written |= written;
                if matches!(why, Cancelled::Interrupted | Cancelled::TimedOut) {
                    self.stopped = Some(*why);
                }
            }
            Outcome::Stale { written, .. } => {
                self.counts.stale += 1;
                self.written |= written;
            }
            Outcome::Failed { written, .. } => {
                self.counts.failed += 1;
                self.written |= written;
            }
        }
        self.count_object(&info, outcome);
    }

    /// An object counts once, however many steps carry out its change. A patched template whose
    /// rollout came to no good end counts; a write that only may have taken effect does not.
    fn count_object(&mut self, info: &StepInfo, outcome: &Outcome) {
        let patched = match outcome {
            Outcome::Done { .. } => true,
            Outcome::Failed { written, .. }
            | Outcome::Cancelled { written, .. }
            | Outcome::Stale { written, .. } => *written && info.class == StepClass::Rollout,
            Outcome::Unchanged { .. } | Outcome::Skipped { .. } => false,
        };
        let Some((kind, action)) = info.object.filter(|(kind, _)| patched && kind.counted()) else {
            return;
        };
        // A step without a change stands for itself.
        let change = info.change.ok_or(info.id);
        if self.counted.insert((kind, change)) {
            match action {
                Action::Create => self.objects.added += 1,
                Action::Update => self.objects.changed += 1,
            }
        }
    }

    /// The steps that ended in a way.
    pub fn with<'a>(
        &'a self,
        which: impl Fn(&Outcome) -> bool + 'a,
    ) -> impl Iterator<Item = &'a StepReport> {
        self.steps.iter().filter(move |step| step.outcome.as_ref().is_some_and(&which))
    }

    /// The step at the root of a skipped one.
    pub fn step(&self, id: StepId) -> Option<&StepReport> {
        self.steps.get(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, FailureKind, RemoteFailure};

    fn info(id: usize, class: StepClass, change: Option<usize>) -> StepInfo {
        StepInfo {
            id: StepId(id),
            address: Address::Identity(format!("i{id}")),
            verb: "do".to_owned(),
            class,
            exchanges_token: class == StepClass::Proof,
            change,
            object: change.map(|_| (ObjectKind::KubernetesServiceAccount, Action::Create)),
            workloads: Vec::new(),
        }
    }

    fn done() -> Outcome {
        Outcome::Done { detail: None, evidence: None }
    }

    fn run(infos: Vec<StepInfo>, outcomes: Vec<Outcome>) -> ApplyReport {
        let mut events = vec![Event::RunStarted { steps: infos }];
        events.extend(outcomes.into_iter().enumerate().map(|(id, outcome)| Event::StepFinished {
            id: StepId(id),
            outcome,
            elapsed: Duration::ZERO,
        }));
        ApplyReport::fold(&events)
    }

    #[test]
    fn an_object_made_by_two_steps_is_one_object() {
        let infos = vec![info(0, StepClass::Write, Some(0)), info(1, StepClass::Write, Some(0))];
        let report = run(infos, vec![done(), done()]);
        assert_eq!(report.objects, Objects { added: 1, changed: 0 });
        assert_eq!(report.counts.done, 2);
        assert!(report.written);
    }

    #[test]
    fn a_step_ends_once_even_if_told_twice() {
        let mut report = run(vec![info(0, StepClass::Write, None)], vec![done()]);
        report.add(&Event::StepFinished {
            id: StepId(0),
            outcome: Outcome::Unchanged { detail: None },
            elapsed: Duration::ZERO,
        });
        assert_eq!((report.counts.done, report.counts.unchanged), (1, 0));
    }

    #[test]
    fn a_patched_template_counts_though_its_rollout_failed_and_a_doubtful_write_does_not() {
        let failure = RemoteFailure::new(FailureKind::TimedOut, "roll", "late");
        let failed = |written| Outcome::Failed { failure: failure.clone(), written };
        let infos = vec![info(0, StepClass::Rollout, Some(0)), info(1, StepClass::Write, Some(1))];
        let report = run(infos, vec![failed(true), failed(true)]);
        assert_eq!(report.objects.added, 1);
        assert!(report.written);
    }

    #[test]
    fn what_was_withheld_is_neither_cancelled_nor_an_early_end() {
        let withheld = Outcome::Cancelled { why: Cancelled::NoRollout, written: false };
        let report = run(vec![info(0, StepClass::Rollout, None)], vec![withheld]);
        assert_eq!((report.counts.withheld, report.counts.cancelled), (1, 0));
        assert_eq!(report.stopped, None);
        assert!(!report.written);
    }

    #[test]
    fn a_report_survives_json() {
        let report = run(vec![info(0, StepClass::Proof, None)], vec![done()]);
        let text = serde_json::to_string(&report).unwrap();
        let back: ApplyReport = serde_json::from_str(&text).unwrap();
        assert_eq!(back.steps, report.steps);
        assert_eq!(back.proofs, report.proofs);
    }
}
