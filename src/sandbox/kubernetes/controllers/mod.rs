//! The controllers of a cluster, as far as rollouts, tokens and clean-up need them.
//!
//! Each looks at one object at a time, from the work queue of [`super::storage::State`]. Nothing runs
//! in the background: [`Kubernetes::reconcile`] works the queue off, and timers that are due happen at
//! the time they were due, so that looking rarely or often leads to the same world.

mod add_on;
mod daemon_set;
mod deployment;
mod disruption;
mod events;
mod garbage;
mod job;
mod mic;
mod namespace;
mod pod_identity;
mod pods;
mod refused;
mod replica_set;
mod revisions;
mod rolling;
mod rollout;
mod stateful_set;

use std::collections::BTreeMap;

pub(super) use add_on::CONFIGURATION;

use super::{
    Kubernetes,
    error::Outcome,
    storage::{Key, Tx},
};

/// More steps than any settled world needs in one go; beyond it the rest waits for the next call.
const MOST_STEPS: usize = 2_000_000;
/// More looks at one object than any rollout needs in one go. Beyond it something changes the object
/// at every look: it rests until somebody else changes it, or every request would wait for it.
const MOST_LOOKS: u32 = 2_000;

/// How often each object was looked at in one go.
#[derive(Default)]
struct Looks(BTreeMap<Key, u32>);

impl Looks {
    /// Counts a look at `key`; false where it must rest.
    fn allow(&mut self, key: &Key) -> bool {
        let count = self.0.entry(key.clone()).or_default();
        *count += 1;
        if *count == MOST_LOOKS {
            tracing::warn!(
                kind = key.stem,
                namespace = key.namespace,
                name = key.name,
                "changes at every look; left alone until somebody changes it"
            );
        }
        *count < MOST_LOOKS
    }
}

impl Kubernetes {
    /// Runs the controllers until nothing is left to do at the present time.
    pub fn reconcile(&self) {
        let now = self.now();
        let mut at = now;
        self.install_add_on();
        self.install_pod_identity();
        let mut looks = Looks::default();
        for _ in 0..MOST_STEPS {
            let key = {
                let mut state = self.lock_state();
                if let Some(key) = state.queue.pop_front() {
                    state.queued.remove(&key);
                    key
                } else {
                    match state.timers.first() {
                        Some((due, _)) if *due <= now => {}
                        _ => return,
                    }
                    let Some((due, key)) = state.timers.pop_first() else { return };
                    at = due;
                    key
                }
            };
            if !looks.allow(&key) {
                continue;
            }
            let mut tx = self.begin_at(at);
            // A refused write of a controller is retried when something changes; the reason is
            // on the object as a condition or an event.
            drop(sync(&mut tx, &key));
        }
    }
}

fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    // A refused write of MIC is no reason for others to wait.
    drop(mic::sync(tx, key));
    if garbage::collect(tx, key)? {
        return Ok(());
    }
    match key.stem.as_str() {
        "core/pods/" => pods::sync(tx, key),
        "core/namespaces/" => namespace::sync(tx, key),
        "core/serviceaccounts/" if !key.namespace.is_empty() => {
            refused::account_changed(tx, key);
            namespace::ensure_defaults(tx, key)
        }
        "core/configmaps/" if !key.namespace.is_empty() => namespace::ensure_defaults(tx, key),
        "core/nodes/" => {
            daemon_set::node_changed(tx);
            pods::node_changed(tx);
            Ok(())
        }
        "apps/deployments/" => deployment::sync(tx, key),
        "apps/replicasets/" => replica_set::sync(tx, key),
        "apps/statefulsets/" => stateful_set::sync(tx, key),
        "apps/daemonsets/" => daemon_set::sync(tx, key),
        "batch/jobs/" => job::sync(tx, key),
        "policy/poddisruptionbudgets/" => disruption::sync(tx, key),
        "argoproj.io/rollouts/" => rollout::sync(tx, key),
        "apiextensions.k8s.io/customresourcedefinitions/" => garbage::definition(tx, key),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_never_rests_is_left_alone_and_others_are_not() {
        let (restless, other) = (Key::of("a/b/", "n", "restless"), Key::of("a/b/", "n", "other"));
        let mut looks = Looks::default();
        let allowed = (0..MOST_LOOKS * 2).filter(|_| looks.allow(&restless)).count();
        assert_eq!(allowed, MOST_LOOKS as usize - 1);
        assert!(looks.allow(&other));
    }
}
