//! Waiting for long-running operations.
//!
//! Source: Azure Resource Manager RPC, "Asynchronous operations": an `Azure-AsyncOperation`
//! address answers 200 with a `status`; a `Location` address answers 202 until it is done; without
//! either, the resource's own `provisioningState` tells.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    arm::{ASYNC_OPERATION, Answer, Arm, Call, LOCATION},
    error::{ArmError, ServerError},
    pace::poll_wait,
};

/// Longer than any cluster update on record.
pub(super) const OPERATION_LIMIT: Duration = Duration::from_mins(40);

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    error: Option<Value>,
}

enum Poll {
    Status(Url),
    Location(Url),
    Resource,
}

/// Whether a state of an operation or resource will not change by itself.
pub fn is_terminal(state: &str) -> bool {
    ["Succeeded", "Failed", "Canceled"].iter().any(|end| end.eq_ignore_ascii_case(state))
}

fn succeeded(state: &str) -> bool {
    state.eq_ignore_ascii_case("Succeeded")
}

fn ended(status: String, error: Option<&Value>) -> ArmError {
    let body = error.map(Value::to_string).unwrap_or_default();
    ArmError::Operation { status, error: Box::new(ServerError::parse(0, body.as_bytes())) }
}

pub(super) fn provisioning_state(resource: &Value) -> &str {
    let state = resource.pointer("/properties/provisioningState").and_then(Value::as_str);
    state.unwrap_or("Succeeded")
}

impl Arm {
    /// Waits until the operation that `answer` began has ended, and reads the resource.
    pub(super) async fn finish(
        &self,
        answer: Answer,
        resource: &Url,
        what: &str,
    ) -> Result<Value, ArmError> {
        let ended = self.until_ended(answer, resource, what).await;
        ended.map_err(ArmError::after_acceptance)
    }

    async fn until_ended(
        &self,
        answer: Answer,
        resource: &Url,
        what: &str,
    ) -> Result<Value, ArmError> {
        let poll = if let Some(link) = answer.header(&ASYNC_OPERATION) {
            Poll::Status(self.link(&link, "operation address")?)
        } else if let Some(link) = answer.header(&LOCATION).filter(|_| answer.status == 202) {
            Poll::Location(self.link(&link, "operation address")?)
        } else {
            Poll::Resource
        };
        let mut retry_after = answer.retry_after();
        let mut waited = Duration::ZERO;
        for poll_number in 0.. {
            if let Poll::Resource = poll {
                let read: Value = self.send(&Call::get(resource.clone())).await?.json()?;
                let state = provisioning_state(&read);
                if succeeded(state) {
                    return Ok(read);
                }
                if is_terminal(state) {
                    return Err(ended(state.to_owned(), None));
                }
            }
            let pause = poll_wait(poll_number, retry_after);
            if waited + pause > OPERATION_LIMIT {
                return Err(ArmError::TimedOut { what: what.to_owned(), waited });
            }
            self.wait(pause, what).await;
            waited += pause;
            match &poll {
                Poll::Status(url) => {
                    let answer = self.send(&Call::get(url.clone())).await?;
                    retry_after = answer.retry_after();
                    let status: Status = answer.json()?;
                    if succeeded(&status.status) {
                        break;
                    }
                    if is_terminal(&status.status) {
                        return Err(ended(status.status, status.error.as_ref()));
                    }
                }
                Poll::Location(url) => {
                    let answer = self.send(&Call::get(url.clone())).await?;
                    retry_after = answer.retry_after();
                    if answer.status != 202 {
                        break;
                    }
                }
                Poll::Resource => {}
            }
        }
        self.at_rest(resource, what).await
    }

    /// Reads the resource until no operation is at work on it, and returns it as it then is,
    /// succeeded or failed.
    pub(super) async fn at_rest(&self, resource: &Url, what: &str) -> Result<Value, ArmError> {
        let mut waited = Duration::ZERO;
        for poll_number in 0.. {
            let answer = self.send(&Call::get(resource.clone())).await?;
            let read: Value = answer.json()?;
            if is_terminal(provisioning_state(&read)) {
                return Ok(read);
            }
            let pause = poll_wait(poll_number, answer.retry_after());
            if waited + pause > OPERATION_LIMIT {
                break;
            }
            self.wait(pause, what).await;
            waited += pause;
        }
        Err(ArmError::TimedOut { what: what.to_owned(), waited })
    }
}
