//! What Azure Resource Manager answers when it does not do what was asked.

use std::{fmt, time::Duration};

use serde_json::Value;

use super::{
    disposition::{self, Context, Disposition},
    hint,
};
use crate::model::{FailureKind, RemoteFailure};

/// A request to Azure Resource Manager that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// The server answered with an error.
    #[error("{0}")]
    Answer(Box<ServerError>),
    /// A long-running operation ended without success.
    #[error("the operation ended as {status}: {error}")]
    Operation {
        /// `Failed` or `Canceled`.
        status: String,
        /// The operation's error.
        error: Box<ServerError>,
    },
    /// No answer came.
    #[error("no answer: {message}")]
    Unreachable {
        /// The transport's words.
        message: String,
    },
    /// No token could be had.
    #[error("no token: {message}")]
    Credential {
        /// The credential's words.
        message: String,
        /// Whether it was refused, or nobody answered.
        why: FailureKind,
    },
    /// Azure accepted it, and what became of it could not be followed.
    #[error("it was accepted, and then: {error}")]
    Followed {
        /// What came instead of its end.
        error: Box<Self>,
    },
    /// The answer is not what the API documents, or too long.
    #[error("unusable answer: {message}")]
    Body {
        /// What is wrong with it.
        message: String,
    },
    /// The server handed out an address on another host.
    #[error("the {what} leads to {host}, which is not the endpoint")]
    ForeignLink {
        /// Which address.
        what: &'static str,
        /// Its host.
        host: String,
    },
    /// A list that does not end.
    #[error("the list has more than {pages} pages")]
    Pages {
        /// How many were read.
        pages: usize,
    },
    /// An id that cannot be a path.
    #[error("`{path}` is not a resource path")]
    BadPath {
        /// The id.
        path: String,
    },
    /// Waited for as long as allowed.
    #[error("waited {} s for {what}", waited.as_secs())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The request cannot be carried out on this resource, so it was not sent.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
    },
}

/// An error answer: either `{"error":{"code",…}}`, as Resource Manager and most providers send it,
/// or the same members at the top, as AKS does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The HTTP status; 0 for the error of a long-running operation.
    pub status: u16,
    /// The code, for example `AuthorizationFailed`.
    pub code: Option<String>,
    /// The message.
    pub message: String,
    /// Nested details, outermost first.
    pub details: Vec<Detail>,
    /// Names of the Azure policies that refused.
    pub policies: Vec<String>,
    /// `x-ms-request-id`.
    pub request_id: Option<String>,
    /// `x-ms-correlation-request-id`.
    pub correlation_id: Option<String>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// What the table says to do, given what was asked.
    pub context: Context,
}

/// One nested detail of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// The code.
    pub code: Option<String>,
    /// The message.
    pub message: String,
}

/// A server's text may be of any length; an error line may not.
const MAX_TEXT: usize = 2000;
/// Deeper nesting than any recorded answer has.
const MAX_DEPTH: usize = 8;

fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?.trim();
    (!text.is_empty()).then(|| text.chars().take(MAX_TEXT).collect())
}

impl ServerError {
    /// Reads an error body of either shape; any other body becomes the message.
    pub fn parse(status: u16, body: &[u8]) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let mut error = Self { status, ..Self::default() };
        if let Some(top) = json.as_ref().filter(|json| json.is_object()) {
            error.fill(&top["error"]);
            if error.code.is_none() && error.message.is_empty() {
                error.fill(top);
            }
        } else {
            let words = String::from_utf8_lossy(body);
            let words: Vec<&str> = words.split_whitespace().collect();
            error.message = words.join(" ").chars().take(300).collect();
        }
        if error.message.is_empty() {
            error.message = match status {
                0 => "without a reason".to_owned(),
                _ => format!("HTTP status {status} without a message"),
            };
        }
        error
    }

    fn fill(&mut self, object: &Value) {
        self.code = text(object.get("code"));
        self.message = text(object.get("message")).unwrap_or_default();
        self.collect(object, 0);
    }

    fn collect(&mut self, object: &Value, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        for info in object.get("additionalInfo").and_then(Value::as_array).into_iter().flatten() {
            if info.get("type").and_then(Value::as_str) == Some("PolicyViolation") {
                let names = [
                    "policyAssignmentDisplayName",
                    "policyDefinitionDisplayName",
                    "policyAssignmentName",
                    "policyDefinitionName",
                ];
                let info = info.get("info").unwrap_or(&Value::Null);
                self.policies.extend(names.iter().find_map(|name| text(info.get(name))));
            }
        }
        for detail in object.get("details").and_then(Value::as_array).into_iter().flatten() {
            let code = text(detail.get("code"));
            let message = text(detail.get("message")).unwrap_or_default();
            if code.is_some() || !message.is_empty() {
                self.details.push(Detail { code, message });
            }
            self.collect(detail, depth + 1);
        }
        if let Some(inner) = object.get("error").filter(|_| depth > 0) {
            self.collect(inner, depth + 1);
        }
    }

    /// Whether the code, here or nested, is this one; ARM's codes are compared without case.
    pub fn has_code(&self, code: &str) -> bool {
        let codes = self.code.iter().chain(self.details.iter().filter_map(|d| d.code.as_ref()));
        codes.into_iter().any(|seen| seen.eq_ignore_ascii_case(code))
    }

    /// What the table says about this answer.
    pub fn disposition(&self) -> Disposition {
        disposition::disposition(self.status, self.code.as_deref(), &self.message, self.context)
    }

    fn kind(&self) -> FailureKind {
        match self.status {
            401 => FailureKind::Unauthenticated,
            403 => FailureKind::Denied,
            408 | 429 | 500.. => FailureKind::Unavailable,
            _ => match self.disposition() {
                Disposition::Stale => FailureKind::Conflict,
                // Asked again for as long as the table says, or read until it is at rest.
                Disposition::Retry { .. } | Disposition::Wait { .. } => FailureKind::Unavailable,
                Disposition::Success | Disposition::Denied | Disposition::Fatal => {
                    FailureKind::Refused
                }
            },
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for detail in self.details.iter().filter(|d| !self.message.contains(&d.message)) {
            match &detail.code {
                Some(code) => write!(f, "; {code}: {}", detail.message)?,
                None => write!(f, "; {}", detail.message)?,
            }
        }
        if !self.policies.is_empty() {
            write!(f, "; refused by policy {}", self.policies.join(", "))?;
        }
        Ok(())
    }
}

impl ArmError {
    /// The server's error, if it answered with one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Answer(error) | Self::Operation { error, .. } => Some(error),
            Self::Followed { error } => error.server(),
            Self::Unreachable { .. }
            | Self::Credential { .. }
            | Self::Body { .. }
            | Self::ForeignLink { .. }
            | Self::Pages { .. }
            | Self::BadPath { .. }
            | Self::TimedOut { .. }
            | Self::Refused { .. } => None,
        }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> Option<u16> {
        self.server().map(|error| error.status).filter(|status| *status != 0)
    }

    /// The error code of the answer.
    pub fn code(&self) -> Option<&str> {
        self.server()?.code.as_deref()
    }

    /// What the table says: whether waiting, planning again or another credential would help.
    pub fn disposition(&self) -> Disposition {
        self.server().map_or(Disposition::Fatal, ServerError::disposition)
    }

    /// Whether this proves that the thing is not there. Any other 404 proves nothing: a missing
    /// subscription or a proxy's page would otherwise look like an empty world.
    pub fn is_not_found(&self) -> bool {
        const PROOF: [&str; 3] =
            ["ResourceNotFound", "ResourceGroupNotFound", "ParentResourceNotFound"];
        let Self::Answer(error) = self else {
            return false;
        };
        let code = error.code.as_deref().unwrap_or_default();
        error.status == 404 && PROOF.iter().any(|proof| proof.eq_ignore_ascii_case(code))
    }

    /// The same of something that Azure had accepted before: it may have been carried out.
    pub(super) fn after_acceptance(self) -> Self {
        if self.kind().may_have_written() { self } else { Self::Followed { error: Box::new(self) } }
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::Answer(error) => error.kind(),
            Self::Unreachable { .. } => FailureKind::Unreachable,
            // Nothing was sent: no write was begun.
            Self::Credential { why, .. } if why.is_unanswered() => FailureKind::NotReached,
            Self::Credential { .. } => FailureKind::Unauthenticated,
            Self::TimedOut { .. } => FailureKind::TimedOut,
            Self::Operation { .. } | Self::Followed { .. } => FailureKind::Unfinished,
            Self::Body { .. }
            | Self::ForeignLink { .. }
            | Self::Pages { .. }
            | Self::BadPath { .. }
            | Self::Refused { .. } => FailureKind::Refused,
        }
    }

    /// The same as data: what was tried, what came back, what to type next.
    pub fn failure(&self, tried: impl Into<String>) -> RemoteFailure {
        let server = self.server();
        RemoteFailure {
            kind: self.kind(),
            tried: tried.into(),
            message: self.to_string(),
            status: self.status(),
            code: self.code().map(str::to_owned),
            correlation_id: server.and_then(|e| e.correlation_id.clone().or(e.request_id.clone())),
            hint: hint::hint(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_error_shapes_are_read() {
        let wrapped = ServerError::parse(
            404,
            br#"{"error":{"code":"ResourceNotFound","message":"The Resource 'x' was not found."}}"#,
        );
        assert_eq!(wrapped.code.as_deref(), Some("ResourceNotFound"));
        let flat = ServerError::parse(
            409,
            br#"{"code":"OperationNotAllowed","details":null,"message":"Operation is not allowed","subcode":"","target":"x"}"#,
        );
        assert_eq!(flat.code.as_deref(), Some("OperationNotAllowed"));
        assert_eq!(flat.message, "Operation is not allowed");
    }

    #[test]
    fn nested_details_and_policy_names_reach_the_message() {
        let body = br#"{"error":{"code":"RequestDisallowedByPolicy","message":"Disallowed.",
            "details":[{"code":"Inner","message":"tags are missing","details":[{"code":"Deep","message":"CostCenter"}]}],
            "additionalInfo":[{"type":"PolicyViolation","info":{"policyAssignmentDisplayName":"Require tags"}}]}}"#;
        let error = ServerError::parse(403, body);
        assert_eq!(
            error.to_string(),
            "Disallowed.; Inner: tags are missing; Deep: CostCenter; refused by policy Require tags"
        );
        assert!(error.has_code("deep"));
    }

    #[test]
    fn a_body_that_is_no_json_is_shown_shortened() {
        let page = "<html>\n".to_owned() + &"x ".repeat(1000);
        let error = ServerError::parse(502, page.as_bytes());
        assert!(error.message.starts_with("<html> x x"));
        assert!(error.message.len() <= 300);
        assert_eq!(ServerError::parse(503, b"").message, "HTTP status 503 without a message");
    }

    #[test]
    fn only_resource_and_group_404_prove_absence() {
        let answer = |status, code: &str| {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
            ArmError::Answer(Box::new(ServerError::parse(status, body.as_bytes())))
        };
        assert!(answer(404, "ResourceNotFound").is_not_found());
        assert!(answer(404, "ResourceGroupNotFound").is_not_found());
        assert!(answer(404, "ParentResourceNotFound").is_not_found());
        for (status, code) in [
            (404, "SubscriptionNotFound"),
            (404, "NotFound"),
            (403, "ResourceNotFound"),
            (404, "InvalidResourceType"),
        ] {
            assert!(!answer(status, code).is_not_found(), "{status} {code}");
        }
    }
}
