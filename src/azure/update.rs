//! Changing a resource that others change, too: under the eTag that was read, until it is changed.

use std::time::Duration;

use azure_core::http::Method;
use serde_json::Value;
use url::Url;

use super::{
    arm::{Arm, Call},
    disposition::{Asked, Disposition},
    error::ArmError,
    managed_cluster::etag,
};

/// Writers that keep getting in between are not outlasted for ever.
const MAX_WRITES: usize = 5;
/// Reads, three seconds apart, that may show a resource as it was before an update that succeeded.
const LAGGING_READS: usize = 10;

/// How a resource is changed.
pub(super) struct Update<'a> {
    /// The resource in words: `cluster`.
    pub what: &'a str,
    /// PUT or PATCH.
    pub method: Method,
    /// What the table is asked about its answers.
    pub asked: Asked,
    /// The body that makes of a resource what is wanted; none where it is that already.
    pub change: &'a (dyn Fn(&Value) -> Option<Value> + Sync),
    /// What is the case if the update succeeded and `change` still wants one.
    pub otherwise: &'a str,
}

impl Arm {
    /// Reads the resource when nothing else is at work on it, sends the change under the eTag that
    /// was read, and waits until it is changed. The resource as it then is, and whether anything
    /// was sent.
    pub(super) async fn update(
        &self,
        url: &Url,
        update: &Update<'_>,
    ) -> Result<(Value, bool), ArmError> {
        let Update { what, method, asked, change, otherwise } = update;
        let mut busy = format!("another operation on the {what}");
        for write in 1.. {
            let read = self.at_rest(url, &busy).await?;
            let Some(body) = change(&read) else { return Ok((read, write > 1)) };
            let call = Call::write(*method, url.clone(), body, *asked);
            match self.send(&Call { if_match: etag(&read), ..call }).await {
                Ok(answer) => {
                    let mut updated =
                        self.finish(answer, url, &format!("the {what}'s update")).await?;
                    // Reads may lag behind the operation.
                    for _ in 0..LAGGING_READS {
                        if change(&updated).is_none() {
                            return Ok((updated, true));
                        }
                        let lag = "Azure to show what was just written";
                        self.wait(Duration::from_secs(3), lag).await;
                        updated = self.at_rest(url, lag).await?;
                    }
                    if change(&updated).is_none() {
                        return Ok((updated, true));
                    }
                    break;
                }
                Err(error) => match error.disposition() {
                    Disposition::Wait { what } if write < MAX_WRITES => {
                        what.clone_into(&mut busy);
                        self.wait(Duration::from_secs(5), what).await;
                    }
                    Disposition::Retry { .. }
                    | Disposition::Success
                    | Disposition::Wait { .. }
                    | Disposition::Stale
                    | Disposition::Denied
                    | Disposition::Fatal => return Err(error),
                },
            }
        }
        Err(ArmError::Body { message: format!("the update succeeded, and {otherwise}") })
    }
}
