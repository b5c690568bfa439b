//! What a running step may use: the world behind an interruptible call, outputs of earlier steps,
//! a place to say what it waits for.

use std::{
    future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use super::{
    RunOptions,
    event::{Cancelled, Evidence, Outcome},
    lanes::cluster_of,
    outputs::{Output, Outputs},
    remote::{Notes, Remote},
};
use crate::{
    model::{ClusterName, FailureKind, RemoteFailure},
    plan::{Plan, Step, StepId, Value},
};

/// What all steps of a run share.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) remote: &'a dyn Remote,
    pub(crate) options: &'a RunOptions,
    pub(crate) outputs: Mutex<Outputs>,
    pub(crate) notes: mpsc::UnboundedSender<(StepId, String)>,
    /// Why the run ends early, once it does.
    pub(crate) stop: watch::Receiver<Option<Cancelled>>,
    pub(crate) started: Instant,
}

/// A step while it runs.
pub(crate) struct Context<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) step: &'a Step,
    /// A write was made or may have been.
    wrote: AtomicBool,
    notes: Notes,
}

/// A good end of a step.
#[derive(Debug)]
pub(crate) enum Good {
    Done { detail: Option<String>, evidence: Option<Evidence> },
    Unchanged { detail: Option<String> },
}

impl Good {
    pub(crate) fn done() -> Self {
        Self::Done { detail: None, evidence: None }
    }

    pub(crate) fn unchanged() -> Self {
        Self::Unchanged { detail: None }
    }
}

/// An end of a step that is not good.
#[derive(Debug)]
pub(crate) enum Halt {
    Stale(String),
    Failed(Box<RemoteFailure>),
    Cancelled(Cancelled),
}

impl Halt {
    pub(crate) fn failed(failure: RemoteFailure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl<'a> Context<'a> {
    pub(crate) fn new(run: &'a Run<'a>, step: &'a Step) -> Self {
        let (id, sender) = (step.id, run.notes.clone());
        let said = Mutex::new(String::new());
        let notes = Arc::new(move |what: &str| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if *said != what {
                what.clone_into(&mut said);
                // The receiver lives as long as the run.
                drop(sender.send((id, what.to_owned())));
            }
        });
        Self { run, step, wrote: AtomicBool::new(false), notes }
    }

    pub(crate) fn remote(&self) -> &'a dyn Remote {
        self.run.remote
    }

    /// The cluster that the step's address names. The queue has refused plans where it is missing.
    pub(crate) fn cluster(&self) -> Result<&'a ClusterName, Halt> {
        cluster_of(&self.step.address).ok_or_else(|| {
            let tried = format!("find the cluster of {}", self.step.address);
            let message = "the address names no cluster";
            Halt::failed(RemoteFailure::new(FailureKind::NotReached, tried, message))
        })
    }

    fn stopped_now(&self) -> Option<Cancelled> {
        *self.run.stop.borrow()
    }

    async fn stopped(&self) -> Cancelled {
        let mut stop = self.run.stop.clone();
        let why = stop.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        match why {
            Some(why) => why,
            None => future::pending().await,
        }
    }

    /// A read, a proof or another call that may be given up at any time.
    pub(crate) async fn read<T>(
        &self,
        call: impl Future<Output = Result<T, RemoteFailure>>,
    ) -> Result<T, Halt> {
        if let Some(why) = self.stopped_now() {
            return Err(Halt::Cancelled(why));
        }
        tokio::select! {
            biased;
            result = call => result.map_err(Halt::failed),
            why = self.stopped() => Err(Halt::Cancelled(why)),
        }
    }

    /// A call that makes something and removes it again: not begun after an interrupt; told of one,
    /// it ends by itself.
    pub(crate) async fn tidying<'b, T, C>(
        &'b self,
        call: impl FnOnce(BoxFuture<'b, ()>) -> C,
    ) -> Result<T, Halt>
    where
        C: Future<Output = Result<T, RemoteFailure>>,
    {
        if let Some(why) = self.stopped_now() {
            return Err(Halt::Cancelled(why));
        }
        let stop = Box::pin(async {
            self.stopped().await;
        });
        match (call(stop).await, self.stopped_now()) {
            (Ok(value), _) => Ok(value),
            // What could not be removed is told, whatever ended the run.
            (Err(failure), Some(why)) if failure.kind == FailureKind::NotProved => {
                Err(Halt::Cancelled(why))
            }
            (Err(failure), _) => Err(Halt::failed(failure)),
        }
    }

    /// A write: not begun after an interrupt, finished within the time of grace where it has begun.
    pub(crate) async fn write<T>(
        &self,
        call: impl Future<Output = Result<T, RemoteFailure>>,
    ) -> Result<T, Halt> {
        if let Some(why) = self.stopped_now() {
            return Err(Halt::Cancelled(why));
        }
        let given_up = async {
            let why = self.stopped().await;
            time::sleep(self.run.options.grace).await;
            why
        };
        let result = tokio::select! {
            biased;
            result = call => result,
            why = given_up => {
                self.wrote.store(true, Ordering::Relaxed);
                return Err(Halt::Cancelled(why));
            }
        };
        match result {
            Ok(value) => {
                self.wrote.store(true, Ordering::Relaxed);
                Ok(value)
            }
            Err(failure) if failure.kind == FailureKind::Conflict => {
                Err(Halt::Stale(stale(&failure)))
            }
            Err(failure) => {
                self.wrote.fetch_or(failure.kind.may_have_written(), Ordering::Relaxed);
                Err(Halt::failed(failure))
            }
        }
    }

    /// Waits; an interrupt ends it.
    pub(crate) async fn pause(&self, wait: Duration) -> Result<(), Halt> {
        self.read(async {
            time::sleep(wait).await;
            Ok(())
        })
        .await
    }

    /// A value that an earlier step may have given.
    pub(crate) fn resolve<T: Output>(&self, value: &Value<T>) -> Result<T, Halt> {
        self.outputs(|outputs| outputs.resolve(value)).map_err(|at| {
            let tried = format!("take the {} of {at}", T::NAME);
            let message = "no step before this one gave it";
            Halt::failed(RemoteFailure::new(FailureKind::NotReached, tried, message))
        })
    }

    /// Says what the step waits for, as a fragment after "waiting for".
    pub(crate) fn waiting(&self, what: &str) {
        (self.notes)(what);
    }

    /// The same, for a call that waits by itself.
    pub(crate) fn notes(&self) -> Notes {
        Arc::clone(&self.notes)
    }

    /// Reads or adds outputs.
    pub(crate) fn outputs<T>(&self, f: impl FnOnce(&mut Outputs) -> T) -> T {
        // Nothing panics while it holds the lock; if something did, the map is still whole.
        f(&mut self.run.outputs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The wall clock, counted from the time the run was told it began.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.run.started.elapsed()).unwrap_or_default();
        let started_at = self.run.options.started_at;
        started_at.checked_add(passed).unwrap_or(started_at)
    }

    /// The outcome of the step, with whether it wrote.
    pub(crate) fn outcome(&self, end: Result<Good, Halt>) -> Outcome {
        let written = self.wrote.load(Ordering::Relaxed);
        match end {
            Ok(Good::Done { detail, evidence }) => Outcome::Done { detail, evidence },
            Ok(Good::Unchanged { detail }) => Outcome::Unchanged { detail },
            Err(Halt::Stale(what)) => Outcome::Stale { what, written },
            Err(Halt::Failed(failure)) => Outcome::Failed { failure: *failure, written },
            Err(Halt::Cancelled(why)) => Outcome::Cancelled { why, written },
        }
    }
}

fn stale(failure: &RemoteFailure) -> String {
    match &failure.code {
        Some(code) => format!("{}: {} ({code})", failure.tried, failure.message),
        None => format!("{}: {}", failure.tried, failure.message),
    }
}
