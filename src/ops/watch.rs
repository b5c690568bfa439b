//! How each chain stands after a round of proofs, and what changed since the round before. Pure.

use std::collections::BTreeMap;

use super::Planned;
use crate::{
    execute::{
        ApplyReport,
        event::{Evidence, Outcome, StepInfo},
    },
    model::{Address, FailureKind, RemoteFailure},
    plan::{PlanReport, report::Finding},
};

/// How a chain stands, the worst that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Proved, its pods included.
    Proved,
    /// Not all of it could be seen.
    NotSeen,
    /// Something stands in the way of asking.
    Blocked,
    /// Refused, differs from the file, or its pods carry old values.
    NotProved,
}

impl State {
    /// The word in lines and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::NotSeen => "not seen",
            Self::Blocked => "blocked",
            Self::NotProved => "not proved",
        }
    }
}

/// How a chain stands and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How.
    pub state: State,
    /// The code of the worst finding.
    pub code: Option<String>,
    /// Its words.
    pub why: Option<String>,
}

impl Standing {
    fn proved() -> Self {
        Self { state: State::Proved, code: None, why: None }
    }

    /// Whether a reader would call it the same: words carry counts and times.
    fn same(&self, other: &Self) -> bool {
        let words = self.code.is_some() || self.why == other.why;
        self.state == other.state && self.code == other.code && words
    }
}

/// A chain that stands otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The workload in its cluster, or a shared object.
    pub address: Address,
    /// How it stood; none in the first round that saw it.
    pub from: Option<Standing>,
    /// How it stands; none where it is no longer looked at.
    pub to: Option<Standing>,
}

/// How every chain stands.
pub fn standings(planned: &Planned, report: &ApplyReport) -> BTreeMap<Address, Standing> {
    let mut found: BTreeMap<Address, Standing> = BTreeMap::new();
    let mut add = |address: Address, standing: Standing| {
        let known = found.entry(address).or_insert_with(Standing::proved);
        if standing.state > known.state {
            *known = standing;
        }
    };
    let PlanReport {
        risks: _,
        refused,
        blocked,
        unknown,
        pending_git: _,
        pending_rollout: _,
        recreate: _,
        left_over: _,
        not_proved,
        unmanaged: _,
    } = &planned.report;
    for (state, findings) in
        [(State::Blocked, refused), (State::Blocked, blocked), (State::NotProved, not_proved)]
    {
        for Finding { address, code, message, .. } in findings {
            let (code, why) = (Some(code.clone()), Some(message.clone()));
            add(address.whole(), Standing { state, code, why });
        }
    }
    for unseen in unknown {
        add(unseen.address.whole(), of_failure(State::NotSeen, &unseen.failure));
    }
    for step in &report.steps {
        let (StepInfo { address, .. }, Some(outcome)) = (&step.info, &step.outcome) else {
            continue;
        };
        add(address.whole(), of_outcome(outcome));
    }
    found
}

fn of_failure(state: State, failure: &RemoteFailure) -> Standing {
    Standing { state, code: failure.code.clone(), why: Some(failure.message.clone()) }
}

fn of_outcome(outcome: &Outcome) -> Standing {
    match outcome {
        Outcome::Done {
            evidence: Some(Evidence::Token { probe_unseen: Some(why), .. }),
            detail: _,
        } => Standing { state: State::NotSeen, code: None, why: Some(why.clone()) },
        Outcome::Done { .. } | Outcome::Unchanged { .. } => Standing::proved(),
        Outcome::Failed { failure, written: _ } => {
            let state = match failure.kind {
                FailureKind::Unauthenticated
                | FailureKind::Denied
                | FailureKind::Unreachable
                | FailureKind::Unavailable
                | FailureKind::NotReached => State::NotSeen,
                FailureKind::Conflict
                | FailureKind::TimedOut
                | FailureKind::Refused
                | FailureKind::Unfinished
                | FailureKind::Unmade
                | FailureKind::NotProved => State::NotProved,
            };
            of_failure(state, failure)
        }
        Outcome::Stale { what, written: _ } => {
            Standing { state: State::NotProved, code: None, why: Some(what.clone()) }
        }
        Outcome::Skipped { .. } | Outcome::Cancelled { .. } => {
            let why = Some("not tried".to_owned());
            Standing { state: State::NotSeen, code: None, why }
        }
    }
}

/// What differs between two rounds, by address.
pub fn changes(
    before: &BTreeMap<Address, Standing>,
    after: &BTreeMap<Address, Standing>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for (address, to) in after {
        let from = before.get(address);
        if from.is_none_or(|from| !from.same(to)) {
            let (from, to) = (from.cloned(), Some(to.clone()));
            changes.push(Change { address: address.clone(), from, to });
        }
    }
    let gone = before.iter().filter(|(address, _)| !after.contains_key(*address));
    changes.extend(gone.map(|(address, from)| Change {
        address: address.clone(),
        from: Some(from.clone()),
        to: None,
    }));
    changes.sort_by(|a, b| a.address.cmp(&b.address));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccountName, Namespace};

    fn address(account: &str) -> Address {
        Address::workload(&Namespace::from("shop"), &AccountName::from(account))
    }

    fn standing(state: State, code: Option<&str>, why: &str) -> Standing {
        Standing { state, code: code.map(str::to_owned), why: Some(why.to_owned()) }
    }

    #[test]
    fn only_what_a_reader_would_call_a_change_is_one() {
        let refused = |why| standing(State::NotProved, Some("AADSTS700213"), why);
        let before = BTreeMap::from([
            (address("api"), Standing::proved()),
            (address("job"), refused("after 2 tries in 3 s")),
            (address("old"), Standing::proved()),
            (address("web"), standing(State::NotSeen, None, "no answer")),
        ]);
        let after = BTreeMap::from([
            (address("api"), refused("no match")),
            (address("job"), refused("after 3 tries in 7 s")),
            (address("new"), Standing::proved()),
            (address("web"), standing(State::NotSeen, None, "another answer")),
        ]);
        let changes = changes(&before, &after);
        let seen: Vec<String> = changes.iter().map(|change| change.address.to_string()).collect();
        assert_eq!(seen, ["shop/api", "shop/new", "shop/old", "shop/web"]);
        assert_eq!(changes[0].from, Some(Standing::proved()));
        assert_eq!(changes[1].from, None);
        assert_eq!(changes[2].to, None);
        assert!(super::changes(&after, &after).is_empty());
    }
}
