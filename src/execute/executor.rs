//! Runs the steps of a plan: asks the queue what may begin, lets it run, tells what happened.

use std::{future, sync::Mutex, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use super::{
    context::{Context, Run},
    event::{Cancelled, Event, Outcome, StepInfo},
    lanes::{BrokenPlan, Limits},
    operations,
    outputs::Outputs,
    queue::Queue,
    remote::Remote,
    report::ApplyReport,
};
use crate::{
    plan::{Plan, StepId},
    prove::{How, retry::Window},
};

/// How a run is carried out.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Ends the run early: as an interrupt, with another exit code.
    pub timeout: Option<Duration>,
    /// Leaves rollouts, and what comes after them, to a later run.
    pub no_rollout: bool,
    /// The caller puts back what a failed rollout changed: nobody is told how to undo it, which
    /// would then bring the failed template again.
    pub puts_back: bool,
    /// How much may run at once.
    pub limits: Limits,
    /// Becomes true when the run is to end: nothing new begins, writes in flight finish.
    pub interrupt: watch::Receiver<bool>,
    /// How old role assignments must be before pods rely on them. Azure documents up to 10
    /// minutes until they take effect.
    pub settle: Duration,
    /// How long one rollout may take.
    pub rollout_deadline: Duration,
    /// How long one proof may be tried again.
    pub proof_deadline: Duration,
    /// How proofs are made.
    pub how: How,
    /// Over how long the answers of a proof must lie.
    pub window: Window,
    /// How long what is proved was seen to be there before this run.
    pub seen_for: Duration,
    /// How long live pods may take to carry today's values after their rollout.
    pub pods_deadline: Duration,
    /// How far apart the looks at something that is waited for are.
    pub looks_apart: Duration,
    /// After an interrupt a write in flight may take this long to finish.
    pub grace: Duration,
    /// The wall clock at the beginning.
    pub started_at: Timestamp,
}

impl RunOptions {
    /// The defaults, for a run that begins at `now` and ends early when `interrupt` becomes true.
    pub fn new(now: Timestamp, interrupt: watch::Receiver<bool>) -> Self {
        Self {
            timeout: None,
            no_rollout: false,
            puts_back: false,
            limits: Limits::default(),
            interrupt,
            settle: Duration::from_mins(10),
            rollout_deadline: Duration::from_mins(10),
            proof_deadline: Duration::from_mins(5),
            how: How::default(),
            window: Window::default(),
            seen_for: Duration::ZERO,
            pods_deadline: Duration::from_secs(30),
            looks_apart: Duration::from_secs(2),
            grace: Duration::from_secs(5),
            started_at: now,
        }
    }
}

/// Carries out a plan. A step that fails is part of the report; an error means that nothing was
/// begun because the plan's steps do not fit together.
pub async fn run(
    plan: &Plan,
    remote: &dyn Remote,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<ApplyReport, BrokenPlan> {
    let mut queue = Queue::of(&plan.steps, options.limits)?;
    let mut interrupt = options.interrupt.clone();
    let (notes, mut said) = mpsc::unbounded_channel();
    let (ender, end) = watch::channel(None);
    let run = Run {
        plan,
        remote,
        options: &options,
        outputs: Mutex::new(Outputs::default()),
        notes,
        stop: end,
        started: Instant::now(),
    };
    let mut teller = Teller { report: ApplyReport::default(), sink };

    let infos = plan.steps.iter().map(|step| StepInfo::of(step, &plan.changes));
    teller.tell(&Event::RunStarted { steps: infos.collect() });
    if options.no_rollout {
        teller.ended(queue.withhold_rollouts());
    }
    let mut running = FuturesUnordered::new();
    let mut stopping = false;
    loop {
        while let Some(id) = queue.begin() {
            teller.tell(&Event::StepStarted { id });
            let step = &plan.steps[id.0];
            let run = &run;
            running.push(async move {
                let started = Instant::now();
                let context = Context::new(run, step);
                let outcome = context.outcome(operations::run(&context).await);
                (id, outcome, started.elapsed())
            });
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            why = early_end(&mut interrupt, run.started, options.timeout), if !stopping => {
                stopping = true;
                teller.tell(&match why {
                    Cancelled::TimedOut => Event::TimedOut,
                    Cancelled::Interrupted | Cancelled::Breaker | Cancelled::NoRollout => {
                        Event::Interrupted
                    }
                });
                teller.ended(queue.stop(why));
                // Running steps hold a receiver, so this cannot fail.
                ender.send_replace(Some(why));
            }
            // What was said before a step ended is told before its end.
            Some((id, what)) = said.recv() => teller.tell(&Event::StepWaiting { id, what }),
            Some((id, outcome, elapsed)) = running.next() => {
                while let Ok((id, what)) = said.try_recv() {
                    teller.tell(&Event::StepWaiting { id, what });
                }
                let breaks = queue.opens_breaker(id, &outcome);
                let others = queue.end(id, &outcome);
                teller.tell(&Event::StepFinished { id, outcome, elapsed });
                if breaks && others.iter().any(|(_, outcome)| is_broken_off(outcome)) {
                    teller.tell(&Event::BreakerOpen { class: "rollouts".to_owned(), because: id });
                }
                teller.ended(others);
            }
        }
    }
    drop(running);
    debug_assert!(queue.is_finished(), "a step neither ran nor ended");
    Ok(teller.report)
}

fn is_broken_off(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Cancelled { why: Cancelled::Breaker, .. })
}

/// Waits until the run has to end early.
async fn early_end(
    interrupt: &mut watch::Receiver<bool>,
    started: Instant,
    timeout: Option<Duration>,
) -> Cancelled {
    let interrupted = async {
        // Whoever could interrupt is gone: nobody does.
        if interrupt.wait_for(|now| *now).await.is_err() {
            future::pending::<()>().await;
        }
    };
    let timed_out = async {
        match timeout {
            Some(timeout) => time::sleep_until(started + timeout).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = interrupted => Cancelled::Interrupted,
        () = timed_out => Cancelled::TimedOut,
    }
}

/// Gives every event to the report and to the caller.
struct Teller<'a> {
    report: ApplyReport,
    sink: &'a mut (dyn FnMut(&Event) + Send),
}

impl Teller<'_> {
    fn tell(&mut self, event: &Event) {
        self.report.add(event);
        (self.sink)(event);
    }

    /// Steps that end without having begun.
    fn ended(&mut self, ended: Vec<(StepId, Outcome)>) {
        for (id, outcome) in ended {
            self.tell(&Event::StepFinished { id, outcome, elapsed: Duration::ZERO });
        }
    }
}
