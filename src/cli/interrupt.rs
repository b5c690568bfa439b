//! Ctrl-C and SIGTERM: the first asks, the second leaves. A time-out asks, too.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::output::Output;
use crate::execute::exit::ExitCode;

/// From here on somebody who pressed Ctrl-C wonders whether it was heard.
const SOON: Duration = Duration::from_secs(3);

/// Whether the run was asked to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Interrupt {
    asked: watch::Receiver<bool>,
    /// When whoever waits here has waited for long enough.
    deadline: Option<Instant>,
}

impl Interrupt {
    /// Begins to listen. Must be called inside the runtime.
    pub(super) fn listen(output: Output) -> Self {
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            let Some(mut signals) = Signals::listen() else {
                // Without handlers Ctrl-C ends the process as the system does.
                return std::future::pending().await;
            };
            signals.next().await;
            ask.send_replace(true);
            // Most runs have ended by then; who waits for Azure or MIC has not.
            if tokio::time::timeout(SOON, signals.next()).await.is_err() {
                output.message("still finishing what was begun; a second signal leaves at once");
                signals.next().await;
            }
            output.message(
                "left at once: what was begun may or may not be written; run the same command \
                 again to see",
            );
            leave(ExitCode::Interrupted)
        });
        Self { asked, deadline: None }
    }

    /// One that also asks when this time is over: what is read before a run is part of its time.
    pub(super) fn within(&self, limit: Option<Duration>) -> Self {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { deadline, ..self.clone() }
    }

    /// What is left of that time.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// What somebody who was asked to stop ends with.
    pub(super) fn exit(&self) -> ExitCode {
        let over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over && !*self.asked.borrow() { ExitCode::TimedOut } else { ExitCode::Interrupted }
    }

    /// Why, in a word.
    pub(super) fn word(&self) -> &'static str {
        if self.exit() == ExitCode::TimedOut { "timed out" } else { "interrupted" }
    }

    /// The flag itself, for the executor.
    pub(super) fn receiver(&self) -> watch::Receiver<bool> {
        self.asked.clone()
    }

    /// Returns when the first signal comes, or when its time is over.
    pub(super) async fn asked(&self) {
        let mut asked = self.asked.clone();
        let signal = async {
            if asked.wait_for(|asked| *asked).await.is_err() {
                // The listener ended without a signal: there will be none.
                std::future::pending::<()>().await;
            }
        };
        match self.deadline {
            Some(deadline) => drop(tokio::time::timeout_at(deadline, signal).await),
            None => signal.await,
        }
    }
}

/// Ends the process at once.
#[expect(clippy::exit, reason = "the second Ctrl-C does not wait for anything")]
fn leave(exit: ExitCode) -> ! {
    std::process::exit(i32::from(exit.code()))
}

/// The signals that ask a run to stop. The streams are kept: a signal between two waits counts.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> Option<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Some(Self {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Option<Self> {
        Some(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
