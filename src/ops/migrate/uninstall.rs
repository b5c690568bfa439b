//! `migrate uninstall`: takes the installation of Pod Identity away, object by object, in the
//! order that was decided and confirmed. What was done stays done: run again, it goes on.

use std::time::Duration;

use tokio::sync::watch;

pub use super::site::{Site, confirm, sites};
use super::{super::Connected, Patience, Shelf};
pub use crate::migrate::uninstall::{AzureWishes, Class, Uninstall, Wishes};
use crate::{
    azure::Arm,
    kubernetes::{Client, Objects as _},
    migrate::uninstall::Step,
    model::{
        ArmId, ClusterName, FailureKind, RemoteFailure,
        footprint::{Part, PartKind},
        snapshot::ObservedAssignment,
    },
};

/// A definition that others write while it is deleted is tried again this often.
const TRIES: usize = 5;

/// How long what is waited for may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks.
    pub look: Duration,
    /// Until MIC has taken everything back: 40 to 60 s a scale set, in batches.
    pub unassigned: Duration,
    /// Until pods have ended, AKS has removed its NMI, or a definition is gone.
    pub gone: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(2),
            unassigned: Duration::from_mins(15),
            gone: Duration::from_mins(5),
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step has begun that may take minutes.
    Waiting(&'a Step),
    /// A step is done.
    Done(&'a Step),
}

/// How far one cluster came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How many steps were done.
    pub done: usize,
    /// The steps in Azure that failed, by their place; the others do not depend on them.
    pub failed: Vec<(usize, RemoteFailure)>,
    /// How many writes were answered well.
    pub written: usize,
    /// Why it ended.
    pub end: End,
}

impl Ran {
    /// The place of the step at which it ended.
    pub fn reached(&self) -> usize {
        self.done + self.failed.len()
    }
}

/// Why a run in one cluster ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It came to the last step.
    Complete,
    /// The next step is another tool's.
    HandedOver,
    /// It was asked to stop.
    Interrupted,
    /// A step failed.
    Failed(RemoteFailure),
}

/// Does what was decided and confirmed, until the end, another tool's step, a failure or an
/// interruption between two steps.
pub async fn run(
    site: &Site<'_>,
    what: &Uninstall,
    (connected, shelf): (&Connected, &dyn Shelf),
    pace: Pace,
    interrupt: &watch::Receiver<bool>,
    sink: &mut (dyn FnMut(Event<'_>) + Send),
) -> Ran {
    let mut ran = Ran { done: 0, failed: Vec::new(), written: 0, end: End::Complete };
    let client = match connected.client(&site.read.survey.cluster).await {
        Ok(client) => client,
        Err(failure) => return Ran { end: End::Failed(failure), ..ran },
    };
    let arm = &connected.arm;
    let cluster = &site.read.survey.cluster;
    let id = &site.id;
    let mut doing = Doing { client: &client, arm, shelf, cluster, id, pace, interrupt, written: 0 };
    for (at, step) in what.steps.iter().enumerate() {
        if *interrupt.borrow() {
            return Ran { end: End::Interrupted, ..ran };
        }
        if matches!(step, Step::HandOver { .. }) {
            return Ran { end: End::HandedOver, ..ran };
        }
        if may_take(step) {
            sink(Event::Waiting(step));
        }
        // Once, before anything in Azure goes.
        let first = step.is_clean_up() && !what.steps[..at].iter().any(Step::is_clean_up);
        if first && let Err(failure) = doing.nobody_assigns().await {
            return Ran { end: End::Failed(failure), ..ran };
        }
        let stepped = doing.step(step).await;
        ran.written = doing.written;
        match stepped {
            Ok(true) => {}
            Ok(false) => return Ran { end: End::Interrupted, ..ran },
            Err(mut failure) if step.is_clean_up() => {
                // The next run may know less: what told of it may be gone by then.
                failure.hint = failure.hint.or_else(|| step.command());
                ran.failed.push((at, failure));
                continue;
            }
            Err(failure) => return Ran { end: End::Failed(failure), ..ran },
        }
        ran.done += 1;
        sink(Event::Done(step));
    }
    ran
}

/// Whether a step may take longer than a person waits without a word.
fn may_take(step: &Step) -> bool {
    match step {
        Step::AwaitUnassigned
        | Step::DropAddOnIdentities { .. }
        | Step::DisableAddOn { .. }
        | Step::Unassign { .. } => true,
        Step::Remove { part } => part.kind.component().is_some(),
        Step::HandOver { .. } | Step::RemoveRole { .. } => false,
    }
}

struct Doing<'a> {
    client: &'a Client,
    arm: &'a Arm,
    /// Where what is removed is kept.
    shelf: &'a dyn Shelf,
    cluster: &'a ClusterName,
    id: &'a ArmId,
    pace: Pace,
    interrupt: &'a watch::Receiver<bool>,
    /// How many writes were answered well.
    written: usize,
}

impl Doing<'_> {
    /// One step; `false` where it was interrupted while it waited.
    async fn step(&mut self, step: &Step) -> Result<bool, RemoteFailure> {
        match step {
            Step::AwaitUnassigned => self.unassigned().await,
            Step::Remove { part } => self.remove(part).await,
            Step::DropAddOnIdentities { identities } => {
                self.nobody_came().await?;
                let pairs = identities.iter().filter_map(|at| at.split_once('/'));
                let pairs = pairs.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
                let pairs: Vec<_> = pairs.collect();
                let done = self.arm.remove_pod_identities(self.id, &pairs).await;
                done.map_err(|e| e.failure("take the identities out of the Pod Identity add-on"))?;
                self.written += 1;
                Ok(true)
            }
            Step::DisableAddOn { nmi } => {
                self.nobody_came().await?;
                self.nothing_new().await?;
                let done = self.arm.disable_pod_identity(self.id).await;
                done.map_err(|e| e.failure("switch the Pod Identity add-on off"))?;
                self.written += 1;
                match nmi {
                    Some(nmi) => self.gone(nmi).await,
                    None => Ok(true),
                }
            }
            Step::HandOver { .. } => Ok(true),
            Step::Unassign { set, identities } => {
                let taken = self.arm.take_identities(set, identities).await;
                let taken = taken.map_err(|error| {
                    let names: Vec<&str> = identities.iter().map(ArmId::name).collect();
                    error.failure(format!("take {} from {}", names.join(", "), set.name()))
                })?;
                self.written += usize::from(taken);
                Ok(true)
            }
            Step::RemoveRole { assignment, what } => self.role(assignment, what).await,
        }
    }

    /// Deletes a role assignment that still is what was read and confirmed. One that is gone is
    /// done; under its id another one may have been made.
    async fn role(&mut self, read: &ObservedAssignment, what: &str) -> Result<bool, RemoteFailure> {
        let tried = format!("remove {what}");
        let now = self.arm.assignment(&read.id).await;
        let Some(now) = now.map_err(|error| error.failure(tried.clone()))? else {
            return Ok(true);
        };
        let of =
            |a: &ObservedAssignment| (a.principal_id, a.role, a.scope.clone(), a.condition.clone());
        if of(&now) != of(read) {
            let message = "it is another one since it was read, so that it stays";
            let failure = RemoteFailure::new(FailureKind::Conflict, tried, message);
            return Err(failure.with_hint("run migrate uninstall again: it reads anew"));
        }
        let deleted = self.arm.delete_assignment(&read.id).await;
        deleted.map_err(|error| error.failure(tried))?;
        self.written += 1;
        Ok(true)
    }

    /// MIC takes identities from the nodes by the roles that go. What has come since everything
    /// was read would be left without them, and its `AzureAssignedIdentity` objects for ever.
    async fn nobody_assigns(&self) -> Result<(), RemoteFailure> {
        let tried = "look whether Pod Identity is gone";
        let footprint = self.client.footprint().await;
        if let Some(failure) = footprint.unseen.first() {
            return Err(failure.clone());
        }
        let objects = footprint.definitions.iter().flat_map(|definition| &definition.objects);
        let assigned = objects.filter(|part| part.kind == PartKind::Assigned);
        let running = footprint.components.iter().map(|component| &component.part);
        match running.chain(assigned).next() {
            None => Ok(()),
            Some(part) => Err(RemoteFailure::new(
                FailureKind::Conflict,
                tried,
                format!("{} {} is there", part.kind.as_str(), part.at()),
            )
            .with_hint("widentity migrate status")),
        }
    }

    async fn remove(&mut self, part: &Part) -> Result<bool, RemoteFailure> {
        let tried = || format!("remove {} {}", part.kind.as_str(), part.at());
        if part.kind == PartKind::Definition {
            return self.definition(part).await;
        }
        if part.kind.component().is_some() {
            self.nobody_came().await?;
        }
        let object = self.client.whole_part(part).await.map_err(|error| error.failure(tried()))?;
        if let Some(object) = object {
            // A cluster role's name may hold a colon.
            let name = format!("{}_{}", part.kind.as_str(), part.at()).replace(['/', ':'], "_");
            self.shelf.keep(self.cluster, &name, &object)?;
        }
        self.client.remove_part(part).await.map_err(|error| error.failure(tried()))?;
        self.written += 1;
        if part.kind.component().is_some() { self.ended(part).await } else { Ok(true) }
    }

    /// A pod that came with the label after everything was read would lose its identity.
    async fn nobody_came(&self) -> Result<(), RemoteFailure> {
        let tried = "look for pods with the label aadpodidbinding";
        let users = self.client.label_users().await.map_err(|error| error.failure(tried))?;
        match users.first() {
            None => Ok(()),
            Some(pod) => Err(RemoteFailure::new(
                FailureKind::Conflict,
                "take Pod Identity away",
                format!("pod {pod} has come with the label aadpodidbinding since it was read"),
            )
            .with_hint("widentity migrate status")),
        }
    }

    /// What the add-on was told after everything was read would go with it.
    async fn nothing_new(&self) -> Result<(), RemoteFailure> {
        let record = self.arm.cluster(self.id).await;
        let record = record.map_err(|error| error.failure("read the Pod Identity add-on"))?;
        let left = record.and_then(|record| record.pod_identity);
        match left.as_ref().and_then(|profile| profile.identities.first()) {
            None => Ok(()),
            Some(identity) => Err(RemoteFailure::new(
                FailureKind::Conflict,
                "switch the Pod Identity add-on off",
                format!("identity {identity} has come into it since it was read"),
            )
            .with_hint("widentity migrate status")),
        }
    }

    /// Looks until nothing is `left`, within `limit`; `false` after an interruption.
    async fn until(
        &self,
        limit: Duration,
        left: impl AsyncFn() -> Result<Option<String>, RemoteFailure>,
        tried: &str,
        hint: &str,
    ) -> Result<bool, RemoteFailure> {
        let (look, interrupt) = (self.pace.look, self.interrupt.clone());
        let left = async || {
            let left = left().await?;
            Ok(left.map(|left| format!("{left} after {} s", limit.as_secs())))
        };
        Patience { at_most: limit, look, interrupt }.until(left, tried, hint).await
    }

    async fn unassigned(&self) -> Result<bool, RemoteFailure> {
        let tried = "wait for MIC to take back what it assigned";
        let left = async || {
            let left = self.client.assigned().await.map_err(|error| error.failure(tried))?;
            let one = left.first().map(|one| format!("{}/{}", one.namespace, one.name));
            Ok(one.map(|one| format!("AzureAssignedIdentity {one} is still there")))
        };
        let hint = "look at MIC's log, then run migrate uninstall again";
        self.until(self.pace.unassigned, left, tried, hint).await
    }

    /// NMI takes its iptables rules away when it is ended in order, and needs time for it.
    async fn ended(&self, part: &Part) -> Result<bool, RemoteFailure> {
        let tried = format!("wait for the pods of {} {} to end", part.kind.as_str(), part.at());
        let left = async || {
            let left = self.client.pods_of(part).await.map_err(|error| error.failure(&tried))?;
            Ok(left.first().map(|pod| format!("pod {pod} is still there")))
        };
        self.until(self.pace.gone, left, &tried, "kubectl get pods --all-namespaces").await
    }

    async fn gone(&self, part: &Part) -> Result<bool, RemoteFailure> {
        let tried = format!("wait for AKS to remove {} {}", part.kind.as_str(), part.at());
        let left = async || {
            let there =
                self.client.part_exists(part).await.map_err(|error| error.failure(&tried))?;
            Ok(there.then(|| "it is still there".to_owned()))
        };
        self.until(self.pace.gone, left, &tried, "run migrate uninstall again later").await
    }

    /// A definition goes only while it holds nothing: that is looked at right before, and the
    /// delete demands the version that was looked at. An object made in the moment between cannot
    /// be told from one made before by any means of the API.
    async fn definition(&mut self, part: &Part) -> Result<bool, RemoteFailure> {
        let tried = format!("remove {} {}", part.kind.as_str(), part.at());
        let fail = |error: crate::kubernetes::KubeError| error.failure(tried.clone());
        let conflict =
            |message: String| RemoteFailure::new(FailureKind::Conflict, tried.clone(), message);
        for attempt in 1.. {
            let Some(now) = self.client.definition(part).await.map_err(fail)? else {
                return Ok(true);
            };
            if now.uid != part.uid {
                return Err(conflict("it was made again since it was read".to_owned()));
            }
            if let Some(first) = now.objects.first().filter(|_| !now.deleting) {
                let count = now.objects.len();
                return Err(conflict(format!("it holds {first}, {count} in all")));
            }
            match self.client.remove_definition(part, &now).await {
                Ok(()) => {
                    self.written += 1;
                    break;
                }
                // Only its status may have been written meanwhile: look again.
                Err(error) if error.is_conflict() && attempt < TRIES => {}
                Err(error) => return Err(fail(error)),
            }
        }
        let left = async || {
            let there = self.client.part_exists(part).await.map_err(fail)?;
            Ok(there.then(|| "it is still being deleted".to_owned()))
        };
        let hint = "kubectl get customresourcedefinitions";
        self.until(self.pace.gone, left, &tried, hint).await
    }
}
