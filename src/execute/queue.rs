//! Which step may begin next. Pure: no IO, no clock, no tasks; the executor tells it what ended.
//!
//! A step begins when everything it needs is done or unchanged, no running step shares a lock
//! with it, and its lane (an endpoint, with or without a rollout) has room.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    event::{Cancelled, Outcome},
    lanes::{BrokenPlan, Endpoint, Limits, Roll, Spec},
};
use crate::{
    model::FailureKind,
    plan::{Lock, Step, StepId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many of its needs are not done yet.
    Pending(usize),
    Running,
    Ended,
}

/// Longest chain of dependents first, then the plan's order.
type Key = (Reverse<usize>, usize);
/// Steps of one endpoint, those that roll pods apart from the others.
type Lane = (Endpoint, bool);
/// A step that ends without having begun.
type Ended = (StepId, Outcome);

/// The steps of a plan and how far they are.
#[derive(Debug)]
pub(crate) struct Queue {
    specs: Vec<Spec>,
    dependents: Vec<Vec<usize>>,
    keys: Vec<Key>,
    states: Vec<State>,
    ready: BTreeMap<Lane, BTreeSet<Key>>,
    busy: BTreeMap<Endpoint, usize>,
    held: BTreeSet<Lock>,
    rolling: usize,
    /// Rollouts that are waited for and have not ended.
    watched_left: usize,
    /// Whether a rollout that was waited for has come to a good end.
    canary_passed: bool,
    limits: Limits,
}

impl Queue {
    /// Takes the steps of a plan; says what is wrong with a plan whose steps do not fit together.
    pub(crate) fn of(steps: &[Step], limits: Limits) -> Result<Self, BrokenPlan> {
        let specs = (0..steps.len()).map(|position| Spec::of(steps, position));
        Ok(Self::new(specs.collect::<Result<_, _>>()?, limits))
    }

    /// Needs must be smaller than the position of the step.
    pub(crate) fn new(mut specs: Vec<Spec>, limits: Limits) -> Self {
        let mut dependents = vec![Vec::new(); specs.len()];
        let mut chain = vec![0_usize; specs.len()];
        for (id, spec) in specs.iter_mut().enumerate() {
            spec.needs.sort_unstable();
            spec.needs.dedup();
            for need in &spec.needs {
                dependents[*need].push(id);
            }
        }
        for id in (0..specs.len()).rev() {
            chain[id] = dependents[id].iter().map(|d| chain[*d] + 1).max().unwrap_or(0);
        }
        let keys: Vec<Key> = chain.iter().enumerate().map(|(id, n)| (Reverse(*n), id)).collect();
        let states = specs.iter().map(|spec| State::Pending(spec.needs.len())).collect();
        let watched_left = specs.iter().filter(|spec| spec.roll == Roll::Watched).count();
        let mut queue = Self {
            specs,
            dependents,
            keys,
            states,
            ready: BTreeMap::new(),
            busy: BTreeMap::new(),
            held: BTreeSet::new(),
            rolling: 0,
            watched_left,
            canary_passed: false,
            limits,
        };
        for id in 0..queue.specs.len() {
            if queue.specs[id].needs.is_empty() {
                queue.make_ready(id);
            }
        }
        queue
    }

    fn lane(&self, id: usize) -> Lane {
        let spec = &self.specs[id];
        (spec.endpoint.clone(), spec.roll != Roll::No)
    }

    fn make_ready(&mut self, id: usize) {
        let (lane, key) = (self.lane(id), self.keys[id]);
        self.ready.entry(lane).or_default().insert(key);
    }

    fn has_room(&self, (endpoint, rolls): &Lane) -> bool {
        let limit = match endpoint {
            Endpoint::ResourceManager => self.limits.resource_manager,
            Endpoint::ApiServer(_) => self.limits.api_server,
            Endpoint::Entra => self.limits.entra,
            Endpoint::Clock => usize::MAX,
        };
        // At least one, or nothing would ever begin.
        let room = self.busy.get(endpoint).copied().unwrap_or(0) < limit.max(1);
        room && (!rolls || self.rolling < self.rollouts_at_once())
    }

    /// One until a rollout that was waited for is done; where none is waited for, none can tell.
    fn rollouts_at_once(&self) -> usize {
        let wait = !self.canary_passed && self.watched_left > 0;
        if wait { 1 } else { self.limits.rollouts.max(1) }
    }

    /// The step to begin now, which counts as running from here on.
    pub(crate) fn begin(&mut self) -> Option<StepId> {
        let free = |key: &&Key| self.specs[key.1].locks.is_disjoint(&self.held);
        let lanes =
            self.ready.iter().filter(|(lane, keys)| !keys.is_empty() && self.has_room(lane));
        let first = lanes.filter_map(|(_, keys)| keys.iter().find(free)).min();
        let id = first.copied()?.1;
        let lane = self.lane(id);
        if let Some(keys) = self.ready.get_mut(&lane) {
            keys.remove(&self.keys[id]);
        }
        let (endpoint, rolls) = lane;
        *self.busy.entry(endpoint).or_default() += 1;
        self.rolling += usize::from(rolls);
        self.held.extend(self.specs[id].locks.iter().cloned());
        self.states[id] = State::Running;
        Some(StepId(id))
    }

    /// Takes how a running step ended; gives the steps that therefore end without having begun.
    /// A step that does not run is left as it is.
    pub(crate) fn end(&mut self, id: StepId, outcome: &Outcome) -> Vec<Ended> {
        let StepId(id) = id;
        if self.states.get(id) != Some(&State::Running) {
            return Vec::new();
        }
        self.mark_ended(id);
        let spec = &self.specs[id];
        let (locks, roll) = (spec.locks.clone(), spec.roll);
        if let Some(busy) = self.busy.get_mut(&spec.endpoint) {
            *busy -= 1;
        }
        self.rolling -= usize::from(roll != Roll::No);
        self.held.retain(|lock| !locks.contains(lock));

        if outcome.satisfies() {
            // An unchanged template is no evidence: nothing was rolled.
            self.canary_passed |= roll == Roll::Watched && matches!(outcome, Outcome::Done { .. });
            for dependent in self.dependents[id].clone() {
                if let State::Pending(missing) = &mut self.states[dependent] {
                    *missing -= 1;
                    if *missing == 0 {
                        self.make_ready(dependent);
                    }
                }
            }
            return Vec::new();
        }
        let mut ended = self.skip_dependents(id);
        if self.opens_breaker(StepId(id), outcome) {
            ended.extend(self.cancel(|spec| spec.roll != Roll::No, Cancelled::Breaker));
        }
        ended
    }

    /// Whether this end of a step stops all further rollouts: a template was written, or may have
    /// been, or its pods are not as wanted. A call that got no answer before that says nothing
    /// about other rollouts.
    pub(crate) fn opens_breaker(&self, id: StepId, outcome: &Outcome) -> bool {
        let (written, not_proved) = match outcome {
            Outcome::Failed { failure, written } => {
                (*written, failure.kind == FailureKind::NotProved)
            }
            Outcome::Stale { written, .. } => (*written, false),
            Outcome::Done { .. }
            | Outcome::Unchanged { .. }
            | Outcome::Skipped { .. }
            | Outcome::Cancelled { .. } => return false,
        };
        self.specs
            .get(id.0)
            .is_some_and(|spec| spec.roll != Roll::No && written || spec.proves_roll && not_proved)
    }

    /// Ends everything that has not begun.
    pub(crate) fn stop(&mut self, why: Cancelled) -> Vec<Ended> {
        self.cancel(|_| true, why)
    }

    /// Ends all rollouts, and what comes after them, before they begin.
    pub(crate) fn withhold_rollouts(&mut self) -> Vec<Ended> {
        let mut behind: BTreeSet<usize> = BTreeSet::new();
        for (id, spec) in self.specs.iter().enumerate() {
            if spec.roll != Roll::No || spec.needs.iter().any(|need| behind.contains(need)) {
                behind.insert(id);
            }
        }
        behind.into_iter().filter_map(|id| self.cancel_one(id, Cancelled::NoRollout)).collect()
    }

    fn cancel(&mut self, which: impl Fn(&Spec) -> bool, why: Cancelled) -> Vec<Ended> {
        let mut ended = Vec::new();
        for id in 0..self.specs.len() {
            if which(&self.specs[id])
                && let Some(cancelled) = self.cancel_one(id, why)
            {
                ended.push(cancelled);
            }
        }
        let cancelled: Vec<usize> = ended.iter().map(|(id, _)| id.0).collect();
        for id in cancelled {
            ended.extend(self.skip_dependents(id));
        }
        ended
    }

    fn cancel_one(&mut self, id: usize, why: Cancelled) -> Option<Ended> {
        let outcome = Outcome::Cancelled { why, written: false };
        self.leave_out(id).then_some((StepId(id), outcome))
    }

    /// Ends a step that has not begun; false where it has.
    fn leave_out(&mut self, id: usize) -> bool {
        if !matches!(self.states[id], State::Pending(_)) {
            return false;
        }
        let lane = self.lane(id);
        if let Some(keys) = self.ready.get_mut(&lane) {
            keys.remove(&self.keys[id]);
        }
        self.mark_ended(id);
        true
    }

    fn mark_ended(&mut self, id: usize) {
        self.states[id] = State::Ended;
        self.watched_left -= usize::from(self.specs[id].roll == Roll::Watched);
    }

    fn skip_dependents(&mut self, root: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        let mut next = self.dependents[root].clone();
        while let Some(id) = next.pop() {
            if self.leave_out(id) {
                ended.push((StepId(id), Outcome::Skipped { because: StepId(root) }));
                next.extend(&self.dependents[id]);
            }
        }
        ended.sort_by_key(|(id, _)| *id);
        ended
    }

    /// Whether every step has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.states.iter().all(|state| *state == State::Ended)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{ArmId, ClusterName, RemoteFailure};

    fn spec(needs: &[usize], roll: Roll) -> Spec {
        Spec {
            needs: needs.to_vec(),
            locks: BTreeSet::new(),
            endpoint: Endpoint::ApiServer(ClusterName::from("c")),
            roll,
            proves_roll: false,
        }
    }

    fn lock(n: usize) -> Lock {
        Lock::Identity(ArmId::new(format!("/i{n}")))
    }

    fn done() -> Outcome {
        Outcome::Done { detail: None, evidence: None }
    }

    fn unchanged() -> Outcome {
        Outcome::Unchanged { detail: None }
    }

    fn failed() -> Outcome {
        let failure = RemoteFailure::new(FailureKind::NotProved, "try", "no");
        Outcome::Failed { failure, written: true }
    }

    fn unanswered() -> Outcome {
        let failure = RemoteFailure::new(FailureKind::Unavailable, "read", "500");
        Outcome::Failed { failure, written: false }
    }

    fn stale() -> Outcome {
        Outcome::Stale { what: "gone".to_owned(), written: false }
    }

    fn stale_after_its_write() -> Outcome {
        Outcome::Stale { what: "gone".to_owned(), written: true }
    }

    fn cancelled() -> Outcome {
        Outcome::Cancelled { why: Cancelled::Interrupted, written: true }
    }

    fn begin_all(queue: &mut Queue) -> Vec<usize> {
        std::iter::from_fn(|| queue.begin().map(|id| id.0)).collect()
    }

    #[test]
    fn the_longest_chain_goes_first_then_the_plan_order() {
        let specs = vec![
            spec(&[], Roll::No),
            spec(&[], Roll::No),
            spec(&[1], Roll::No),
            spec(&[], Roll::No),
        ];
        let mut queue = Queue::new(specs, Limits::default());
        assert_eq!(begin_all(&mut queue), [1, 0, 3]);
    }

    #[test]
    fn one_rollout_first_then_five() {
        let mut queue = Queue::new(vec![spec(&[], Roll::Watched); 8], Limits::default());
        assert_eq!(begin_all(&mut queue), [0]);
        queue.end(StepId(0), &unchanged());
        assert_eq!(begin_all(&mut queue), [1], "an unchanged template is no canary");
        queue.end(StepId(1), &done());
        assert_eq!(begin_all(&mut queue), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_failed_rollout_stops_those_not_begun_and_what_needs_them() {
        let mut specs = vec![spec(&[], Roll::Watched); 3];
        specs.push(spec(&[2], Roll::No));
        specs.push(spec(&[], Roll::No));
        let mut queue = Queue::new(specs, Limits::default());
        assert_eq!(begin_all(&mut queue), [2, 4]);
        let ended = queue.end(StepId(2), &failed());
        let cancelled = Outcome::Cancelled { why: Cancelled::Breaker, written: false };
        assert_eq!(
            ended,
            [
                (StepId(3), Outcome::Skipped { because: StepId(2) }),
                (StepId(0), cancelled.clone()),
                (StepId(1), cancelled),
            ]
        );
        queue.end(StepId(4), &done());
        assert!(queue.is_finished());
    }

    #[test]
    fn pods_that_are_not_proved_after_their_rollout_stop_those_not_begun() {
        let proof = |needs: &[usize]| Spec { proves_roll: true, ..spec(needs, Roll::No) };
        let specs = vec![spec(&[], Roll::Watched), proof(&[0]), spec(&[0], Roll::Watched)];
        let mut queue = Queue::new(specs, Limits { api_server: 1, ..Limits::default() });
        assert_eq!(begin_all(&mut queue), [0]);
        queue.end(StepId(0), &done());
        assert_eq!(begin_all(&mut queue), [1]);
        let cancelled = Outcome::Cancelled { why: Cancelled::Breaker, written: false };
        assert_eq!(queue.end(StepId(1), &failed()), [(StepId(2), cancelled)]);
        assert!(queue.is_finished());
    }

    #[test]
    fn a_call_without_an_answer_stops_no_other_rollout() {
        let proof = |needs: &[usize]| Spec { proves_roll: true, ..spec(needs, Roll::No) };
        let specs = vec![spec(&[], Roll::Watched), spec(&[], Roll::Watched), proof(&[1])];
        let mut queue = Queue::new(specs, Limits { rollouts: 1, ..Limits::default() });
        assert_eq!(begin_all(&mut queue), [1]);
        queue.end(StepId(1), &done());
        assert_eq!(begin_all(&mut queue), [0, 2]);
        assert_eq!(queue.end(StepId(2), &unanswered()), []);
        assert_eq!(queue.end(StepId(0), &unanswered()), []);
        assert!(queue.is_finished());
    }

    #[test]
    fn withheld_rollouts_take_what_comes_after_them_along() {
        let specs = vec![spec(&[], Roll::No), spec(&[0], Roll::Watched), spec(&[1], Roll::No)];
        let mut queue = Queue::new(specs, Limits::default());
        let ended: Vec<usize> = queue.withhold_rollouts().iter().map(|(id, _)| id.0).collect();
        assert_eq!(ended, [1, 2]);
        assert_eq!(begin_all(&mut queue), [0]);
        queue.end(StepId(0), &done());
        assert!(queue.is_finished());
    }

    #[test]
    fn a_skipped_step_names_the_root() {
        let specs = vec![spec(&[], Roll::No), spec(&[0], Roll::No), spec(&[1], Roll::No)];
        let mut queue = Queue::new(specs, Limits::default());
        begin_all(&mut queue);
        let ended = queue.end(StepId(0), &stale());
        assert!(ended.iter().all(|(_, o)| *o == Outcome::Skipped { because: StepId(0) }));
        assert_eq!(ended.len(), 2);
    }

    prop_compose! {
        fn plans()(size in 1_usize..40)(
            needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), size),
            locks in prop::collection::vec(prop::collection::btree_set(0_usize..5, 0..3), size),
            kinds in prop::collection::vec(0_u8..6, size),
        ) -> Vec<Spec> {
            let steps = needs.into_iter().zip(locks).zip(kinds).enumerate();
            steps.map(|(id, ((needs, locks), kind))| Spec {
                needs: needs.iter().filter(|_| id > 0).map(|need| need.index(id)).collect(),
                locks: locks.into_iter().map(lock).collect(),
                endpoint: match kind {
                    0 => Endpoint::ResourceManager,
                    1 => Endpoint::Entra,
                    2 => Endpoint::Clock,
                    _ => Endpoint::ApiServer(ClusterName::from(if kind == 3 { "a" } else { "b" })),
                },
                roll: match kind { 4 => Roll::Watched, 5 => Roll::Unwatched, _ => Roll::No },
                proves_roll: false,
            }).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_step_ends_once_and_none_begins_too_early(
            specs in plans(),
            ends in prop::collection::vec(0_u8..9, 40),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 40),
            stop_after in prop::option::of(0_usize..40),
        ) {
            let limits = Limits { resource_manager: 2, api_server: 3, entra: 1, rollouts: 5 };
            let mut queue = Queue::new(specs.clone(), limits);
            let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
            let mut running: Vec<usize> = Vec::new();
            let (mut canary, mut broken, mut stopped) = (false, false, false);
            for turn in 0.. {
                prop_assert!(turn <= specs.len(), "the queue does not come to an end");
                while let Some(StepId(id)) = queue.begin() {
                    prop_assert!(!stopped, "begun after the stop");
                    prop_assert!(!outcomes.contains_key(&id) && !running.contains(&id));
                    let spec = &specs[id];
                    prop_assert!(spec.needs.iter().all(|n| outcomes.get(n).is_some_and(Outcome::satisfies)));
                    prop_assert!(running.iter().all(|r| specs[*r].locks.is_disjoint(&spec.locks)));
                    running.push(id);
                    let rolling: Vec<_> = running.iter().filter(|r| specs[**r].roll != Roll::No).collect();
                    if spec.roll != Roll::No {
                        prop_assert!(!broken, "a rollout was begun after one had failed");
                        let watched_left = (0..specs.len())
                            .any(|s| specs[s].roll == Roll::Watched && !outcomes.contains_key(&s));
                        let most = if canary || !watched_left { 5 } else { 1 };
                        prop_assert!(rolling.len() <= most, "{} rollouts at once", rolling.len());
                    }
                    let busy = |e: &Endpoint| running.iter().filter(|r| specs[**r].endpoint == *e).count();
                    prop_assert!(busy(&Endpoint::ResourceManager) <= 2);
                    prop_assert!(busy(&Endpoint::Entra) <= 1);
                    prop_assert!(busy(&Endpoint::ApiServer(ClusterName::from("b"))) <= 3);
                }
                if running.is_empty() {
                    break;
                }
                let id = running.swap_remove(picks[turn].index(running.len()));
                let outcome = match ends[turn] {
                    0 => failed(),
                    1 => stale(),
                    2 => cancelled(),
                    3 => unchanged(),
                    4 => stale_after_its_write(),
                    _ => done(),
                };
                let roll = specs[id].roll;
                canary |= roll == Roll::Watched && outcome == done();
                let breaks = roll != Roll::No && [failed(), stale_after_its_write()].contains(&outcome);
                broken |= breaks;
                prop_assert_eq!(queue.opens_breaker(StepId(id), &outcome), breaks);
                let mut ended = queue.end(StepId(id), &outcome);
                ended.push((StepId(id), outcome));
                if stop_after == Some(turn) {
                    stopped = true;
                    ended.extend(queue.stop(Cancelled::Interrupted));
                }
                for (StepId(id), outcome) in ended {
                    if let Outcome::Skipped { because } = &outcome {
                        prop_assert!(because.0 < id);
                    }
                    prop_assert_eq!(outcomes.insert(id, outcome), None, "step {} ended twice", id);
                }
            }
            prop_assert!(queue.is_finished());
            prop_assert_eq!(outcomes.len(), specs.len());
            for (id, outcome) in &outcomes {
                if let Outcome::Skipped { because } = outcome {
                    prop_assert!(!outcomes[&because.0].satisfies());
                    prop_assert!(!matches!(outcomes[&because.0], Outcome::Skipped { .. }), "the root is named");
                    prop_assert!(specs[*id].needs.iter().any(|n| !outcomes[n].satisfies()));
                }
            }
        }
    }
}
