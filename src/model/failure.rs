//! A remote call that failed, as data: what was tried, what came back, what to type next.

use serde::{Deserialize, Serialize};

/// A failed read or write. Carries no token, assertion or secret.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
#[error("{tried}: {message}")]
pub struct RemoteFailure {
    /// The class, which decides the exit code.
    pub kind: FailureKind,
    /// What was tried, for example `list federated credentials of identity wi_p_n_a`.
    pub tried: String,
    /// What came back, in the server's words or the transport's.
    pub message: String,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The error code of the body, for example `AuthorizationFailed`.
    pub code: Option<String>,
    /// The correlation id that Azure support asks for.
    pub correlation_id: Option<String>,
    /// What to type next, where one command is likely to help.
    pub hint: Option<String>,
}

impl RemoteFailure {
    /// A failure without an HTTP answer.
    pub fn new(kind: FailureKind, tried: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            tried: tried.into(),
            message: message.into(),
            status: None,
            code: None,
            correlation_id: None,
            hint: None,
        }
    }

    /// The same failure with the next command to type.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Classes of failed reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// 401: no valid credential, or an expired token.
    Unauthenticated,
    /// 403: the credential may not do this.
    Denied,
    /// No answer: DNS, connection, TLS, time-out.
    Unreachable,
    /// 429, 5xx after all retries.
    Unavailable,
    /// 409, 412, a Kubernetes conflict: somebody else wrote in between.
    Conflict,
    /// Waited for as long as allowed.
    TimedOut,
    /// An answer that does not fit: other 4xx, a broken body.
    Refused,
    /// Azure accepted it, and it failed later: what it was to change may be changed in part.
    Unfinished,
    /// A token exchange that Entra refused, or an identity that answered as another.
    NotProved,
    /// Pods that cannot be made, or not as they should be: admission, a quota or a webhook that does
    /// not answer. It says nothing of their application.
    Unmade,
    /// Not asked, because something it needs could not be seen.
    NotReached,
}

impl FailureKind {
    /// Whether somebody must sign in, or be given a right.
    pub fn is_denied(self) -> bool {
        matches!(self, Self::Unauthenticated | Self::Denied)
    }

    /// Whether nobody answered in time: the call may be answered when it is made again, and a
    /// write that failed so may have been carried out.
    pub fn is_unanswered(self) -> bool {
        match self {
            Self::Unreachable | Self::Unavailable | Self::TimedOut => true,
            Self::Unauthenticated
            | Self::Denied
            | Self::Conflict
            | Self::Refused
            | Self::Unfinished
            | Self::NotProved
            | Self::Unmade
            | Self::NotReached => false,
        }
    }

    /// Whether a write that failed so may have changed something.
    pub fn may_have_written(self) -> bool {
        self.is_unanswered() || self == Self::Unfinished
    }
}
