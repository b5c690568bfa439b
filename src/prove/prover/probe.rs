//! The probe of a proof: does the role let the identity do what it should?

use super::{Attempt, World};
use crate::{
    azure::ProbeOutcome,
    model::{RemoteFailure, desired::Probe},
    prove::{
        IssuedToken, Probed,
        retry::{Outlook, outlook, pause},
    },
};

/// A service that does not answer is asked this often: it may be a passing fault.
const UNREACHABLE_TRIES: u32 = 3;

impl<W: World> Attempt<'_, W> {
    /// Asks until the service lets the identity in, says for good that it does not, or the time is
    /// over. What cannot be reached from here is not seen, which breaks nothing.
    pub(super) async fn probe(
        &mut self,
        probe: &Probe,
        issued: &IssuedToken,
    ) -> Result<Probed, RemoteFailure> {
        let scope = self.world.probe_scope(probe);
        let mut attempt = 0;
        loop {
            attempt += 1;
            // Each time with a new token: some services read memberships out of it.
            let outcome = match self.world.exchange(&issued.token, &scope).await {
                Ok(exchanged) => self.world.probe(probe, &exchanged.token).await,
                Err(error) if outlook(&error) == Outlook::Transient => {
                    ProbeOutcome::Unreachable { message: error.to_string() }
                }
                Err(error) => return Err(self.refused(&error, None)),
            };
            let pause = pause(attempt, None, self.jitter);
            match outcome {
                ProbeOutcome::Passed => return Ok(Probed::Passed),
                ProbeOutcome::Denied { status, message } => {
                    if !self.wait(pause, "the role to take effect".to_owned()).await {
                        return Err(self.denied(probe, status, &message));
                    }
                }
                ProbeOutcome::Unreachable { message } => {
                    let why = format!("{} is unreachable from here: {message}", probe.url);
                    let what = format!("{} to answer", probe.url);
                    if attempt >= UNREACHABLE_TRIES || !self.wait(pause, what).await {
                        return Ok(Probed::Unseen { why });
                    }
                }
                ProbeOutcome::Unusable { message } => {
                    return Err(self.not_proved(format!("probe of {}: {message}", probe.url)));
                }
            }
        }
    }

    fn denied(&self, probe: &Probe, status: u16, message: &str) -> RemoteFailure {
        let mut text = format!("{} refuses the identity: {message}", probe.url);
        for grant in &self.claim.grants {
            text = format!("{text}; it should hold {grant}");
        }
        let principal = self.claim.principal;
        let mut failure = self.not_proved(text).with_hint(format!(
            "az role assignment list --assignee {principal} --all -o table   # changes take up to \
             10 minutes"
        ));
        failure.status = Some(status);
        failure
    }
}
