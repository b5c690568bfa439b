//! The plan under construction: changes, steps and findings as the links of the chain add them.

use std::collections::BTreeSet;

use super::{
    Action, Change, FieldChange, Lock, ObjectKind, Operation, Plan, PlanReport, Planned, Reason,
    Step, StepId, Value, digest,
    report::{Finding, Unseen},
};
use crate::model::{Address, Origin, RemoteFailure};

/// Changes, steps and findings so far. Steps are added after everything they need.
#[derive(Default)]
pub(super) struct Draft {
    changes: Vec<Change>,
    steps: Vec<Step>,
    pub(super) report: PlanReport,
}

/// A change before it has a digest.
pub(super) struct NewChange {
    pub(super) address: Address,
    pub(super) kind: ObjectKind,
    pub(super) action: Action,
    pub(super) id: String,
    pub(super) fields: Vec<FieldChange>,
    pub(super) reasons: Vec<Reason>,
    pub(super) workloads: Vec<Address>,
    pub(super) origin: Origin,
}

/// A step before it has a position.
pub(super) struct NewStep {
    pub(super) address: Address,
    pub(super) operation: Operation,
    pub(super) needs: Vec<StepId>,
    pub(super) locks: BTreeSet<Lock>,
    pub(super) workloads: Vec<Address>,
    pub(super) origin: Origin,
    pub(super) change: Option<usize>,
}

impl Draft {
    pub(super) fn change(&mut self, new: NewChange) -> usize {
        let NewChange { address, kind, action, id, fields, reasons, workloads, origin } = new;
        let mut change = Change {
            address,
            kind,
            action,
            id,
            fields,
            reasons,
            workloads,
            origin,
            digest: String::new(),
        };
        change.digest = digest::of_change(&change);
        self.changes.push(change);
        self.changes.len() - 1
    }

    pub(super) fn step(&mut self, new: NewStep) -> StepId {
        let NewStep { address, operation, mut needs, locks, workloads, origin, change } = new;
        let id = StepId(self.steps.len());
        needs.sort_unstable();
        needs.dedup();
        self.steps.push(Step { id, address, operation, needs, locks, workloads, origin, change });
        id
    }

    pub(super) fn unseen(&mut self, address: Address, failure: &RemoteFailure, origin: &Origin) {
        self.report.unknown.push(Unseen {
            address,
            failure: failure.clone(),
            origin: origin.clone(),
        });
    }

    /// Blocks each of these workloads for one reason.
    pub(super) fn block(
        &mut self,
        workloads: &[Address],
        code: &'static str,
        message: &str,
        hint: &str,
        origin: &Origin,
    ) {
        let each = workloads.iter().cloned();
        let each = each.map(|w| finding(w, code, message.to_owned(), hint.to_owned(), origin));
        self.report.blocked.extend(each);
    }

    /// Sorts changes by address, fixes the steps' references to them and computes the digest.
    pub(super) fn finish(mut self) -> (Plan, PlanReport) {
        let mut order: Vec<usize> = (0..self.changes.len()).collect();
        order.sort_by(|a, b| {
            let key = |i: usize| (&self.changes[i].address, self.changes[i].kind);
            key(*a).cmp(&key(*b))
        });
        let mut position = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            position[*old] = new;
        }
        let mut sorted: Vec<Option<Change>> = self.changes.into_iter().map(Some).collect();
        let changes: Vec<Change> = order.iter().filter_map(|old| sorted[*old].take()).collect();
        for step in &mut self.steps {
            step.change = step.change.map(|old| position[old]);
        }
        let report = &mut self.report;
        for findings in
            [&mut report.risks, &mut report.refused, &mut report.blocked, &mut report.not_proved]
        {
            findings.sort();
            findings.dedup();
        }
        report.unknown.sort();
        report.unknown.dedup();
        report.left_over.sort();
        for pending in [&mut report.pending_git, &mut report.pending_rollout, &mut report.recreate]
        {
            pending.sort();
            pending.dedup();
        }
        let risks = report.risks.iter().map(digest::of_risk);
        let mut digests: Vec<String> =
            changes.iter().map(|change| change.digest.clone()).chain(risks).collect();
        digests.retain(|digest| !digest.is_empty());
        digests.sort();
        digests.dedup();
        let plan = Plan { changes, steps: self.steps, digest: digest::of_plan(&digests), digests };
        (plan, self.report)
    }
}

/// A finding with all its parts.
pub(super) fn finding(
    address: Address,
    code: &str,
    message: impl Into<String>,
    hint: impl Into<Option<String>>,
    origin: &Origin,
) -> Finding {
    Finding {
        address,
        code: code.to_owned(),
        message: message.into(),
        hint: hint.into(),
        origin: origin.clone(),
    }
}

/// A field whose new value is known and no formula.
pub(super) fn known(
    field: impl Into<String>,
    before: Option<&str>,
    after: impl Into<serde_json::Value>,
) -> FieldChange {
    FieldChange {
        field: field.into(),
        before: before.map(serde_json::Value::from),
        after: Planned::Known(after.into()),
        formula: None,
    }
}

/// A field whose value Azure invents; `formula` says what it is made of.
pub(super) fn invented<T: ToString>(
    field: impl Into<String>,
    before: Option<&str>,
    value: &Value<T>,
    formula: String,
) -> FieldChange {
    let after = match value {
        Value::Known(value) => Planned::Known(value.to_string().into()),
        Value::AfterApply(_) => Planned::AfterApply(formula.clone()),
    };
    FieldChange {
        field: field.into(),
        before: before.map(serde_json::Value::from),
        after,
        formula: Some(formula),
    }
}

/// A reason that names the difference, with what makes it easy to overlook.
pub(super) fn differs(field: &str, have: Option<&str>, want: impl Into<String>) -> Reason {
    let want = want.into();
    let near = have.and_then(|have| near(have, &want)).map(str::to_owned);
    Reason::Differs { field: field.to_owned(), have: have.map(str::to_owned), want, near }
}

/// What a small difference comes down to; none where it is no small difference.
pub(super) fn near(have: &str, want: &str) -> Option<&'static str> {
    if have == want {
        None
    } else if have.trim_end_matches('/') == want.trim_end_matches('/') {
        Some("only the trailing slash differs")
    } else if have.trim() == want.trim() {
        Some("only white space differs")
    } else if have.eq_ignore_ascii_case(want) {
        Some("only upper and lower case differ")
    } else {
        None
    }
}
