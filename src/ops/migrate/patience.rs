//! Waiting until others have done their part.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::model::{FailureKind, RemoteFailure};

/// How long others may take to do their part.
#[derive(Debug, Clone)]
pub struct Patience {
    /// How long to wait in all; MIC needs about a minute for each scale set.
    pub at_most: Duration,
    /// How long to wait between two looks.
    pub look: Duration,
    /// Becomes true when somebody wants an end: then nothing new is begun.
    pub interrupt: watch::Receiver<bool>,
}

impl Patience {
    /// The usual patience.
    pub fn new(interrupt: watch::Receiver<bool>) -> Self {
        Self { at_most: Duration::from_mins(10), look: Duration::from_secs(2), interrupt }
    }

    /// Whether somebody wants an end.
    pub fn ends(&self) -> bool {
        *self.interrupt.borrow()
    }

    /// Looks until nothing is `left`, which says what still is; `false` where somebody wanted an
    /// end first. An error where it takes too long.
    pub async fn until(
        &self,
        left: impl AsyncFn() -> Result<Option<String>, RemoteFailure>,
        tried: &str,
        hint: &str,
    ) -> Result<bool, RemoteFailure> {
        let deadline = Instant::now() + self.at_most;
        loop {
            let Some(left) = left().await? else { return Ok(true) };
            if self.ends() {
                return Ok(false);
            }
            if Instant::now() >= deadline {
                let failure = RemoteFailure::new(FailureKind::TimedOut, tried, left);
                return Err(failure.with_hint(hint));
            }
            time::sleep(self.look).await;
        }
    }
}
