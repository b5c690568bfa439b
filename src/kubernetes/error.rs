//! What can go wrong while talking to an API server, and what to type next.

use std::path::PathBuf;

use serde::Deserialize;

use crate::model::{FailureKind, RemoteFailure};

/// A kubeconfig that cannot be used, a server that cannot be reached, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig cannot be read.
    #[error("kubeconfig {} cannot be read: {message}", .path.display())]
    KubeconfigUnreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        message: String,
    },
    /// The kubeconfig is not one.
    #[error("kubeconfig {path} is invalid: {message}")]
    KubeconfigInvalid {
        /// The file, or how it was looked for.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// The kubeconfig has no such context.
    #[error("context `{context}` is not in kubeconfig {path}")]
    NoSuchContext {
        /// The file, or how it was looked for.
        path: String,
        /// The context asked for.
        context: String,
        /// The contexts it has.
        known: Vec<String>,
    },
    /// No context was named and the kubeconfig has no current one.
    #[error("kubeconfig {path} has no current context")]
    NoCurrentContext {
        /// The file, or how it was looked for.
        path: String,
    },
    /// Plain http to a host that is not loopback.
    #[error("plain http to {server} is refused: tokens would be readable on the way")]
    PlainHttp {
        /// The server.
        server: String,
    },
    /// A server address, CA or client certificate that cannot be used.
    #[error("server {server} cannot be used: {message}")]
    BadServer {
        /// The server.
        server: String,
        /// What is wrong.
        message: String,
    },
    /// The credential of the kubeconfig's user could not be had.
    #[error("the credential of {who} failed: {message}")]
    Credential {
        /// The exec plugin's command, or the kind of credential.
        who: String,
        /// What it says, without anything it printed to standard output.
        message: String,
        /// How to install the plugin, as the kubeconfig says.
        install: Option<String>,
    },
    /// Our own token could not be had.
    #[error("no token for the API server: {}", .0.message)]
    NoToken(Box<RemoteFailure>),
    /// No answer: DNS, connection, TLS.
    #[error("{server} does not answer: {message}")]
    Unreachable {
        /// The server's host.
        server: String,
        /// The transport's words, causes included.
        message: String,
    },
    /// An answer did not come in time.
    #[error("{server} did not answer within {seconds} s")]
    TimedOut {
        /// The server's host.
        server: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The server refused.
    #[error("{message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The machine-readable reason, for example `Forbidden`.
        reason: String,
        /// The server's words.
        message: String,
        /// For a server-side apply conflict: each field and who manages it.
        causes: Vec<Cause>,
        /// `Audit-Id`: finds the request in the server's audit log.
        audit_id: Option<String>,
    },
    /// The answer is not what the API says.
    #[error("unexpected answer: {message}")]
    Body {
        /// What did not fit.
        message: String,
    },
    /// The object of this name is another one than was planned for.
    #[error("{object} was recreated: its uid is {found}, not {expected}")]
    Recreated {
        /// The object.
        object: String,
        /// The UID planned for.
        expected: String,
        /// The UID found.
        found: String,
    },
    /// The object is not what was read a moment ago.
    #[error("{object} was changed meanwhile: {what}")]
    Changed {
        /// The object.
        object: String,
        /// What is otherwise.
        what: String,
    },
}

/// One cause of a refusal; for a conflict, a field and its manager.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cause {
    /// The reason, for example `FieldManagerConflict`.
    #[serde(default)]
    pub reason: String,
    /// The server's words, for example `conflict with "helm" using apps/v1`.
    #[serde(default)]
    pub message: String,
    /// The field, for example `.metadata.annotations.azure.workload.identity/client-id`.
    #[serde(default)]
    pub field: String,
}

impl Cause {
    /// The manager of a `FieldManagerConflict`: the quoted word of its message.
    pub fn manager(&self) -> Option<&str> {
        self.message.split('"').nth(1)
    }
}

impl KubeError {
    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        if let Self::Status { status, .. } = self { Some(*status) } else { None }
    }

    /// The machine-readable reason, where there was an answer.
    pub fn reason(&self) -> Option<&str> {
        if let Self::Status { reason, .. } = self { Some(reason) } else { None }
    }

    /// The causes of a refusal.
    pub fn causes(&self) -> &[Cause] {
        if let Self::Status { causes, .. } = self { causes } else { &[] }
    }

    /// Whether the server says that the object does not exist. A 404 without the reason may be of
    /// something before the server.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404) && self.reason() == Some("NotFound")
    }

    /// Whether the server knows nothing at this path: it answers plain text where a group or a kind
    /// is not served.
    pub fn is_not_served(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether somebody else owns a field, or the object changed or was recreated.
    pub fn is_conflict(&self) -> bool {
        // Servers say of another uid in the body either that or that the field is immutable.
        let immutable = || self.causes().iter().any(|cause| cause.field == "metadata.uid");
        matches!(self, Self::Recreated { .. } | Self::Changed { .. })
            || self.status() == Some(409) && !self.is_already_exists()
            || self.status() == Some(422) && immutable()
    }

    /// Whether the only owner that a server-side apply met is `manager` itself, by what it wrote with
    /// a JSON patch: the server keeps the two operations of a manager apart.
    pub(super) fn is_with_itself(&self, manager: &str) -> bool {
        let itself = format!("conflict with \"{manager}\"");
        let own = |cause: &Cause| cause.message.starts_with(&itself);
        self.status() == Some(409) && !self.causes().is_empty() && self.causes().iter().all(own)
    }

    /// Whether the object is not the version any more that a request was about.
    pub(super) fn is_modified(&self) -> bool {
        self.status() == Some(409) && self.reason() == Some("Conflict") && self.causes().is_empty()
    }

    /// Whether a JSON patch did not apply, because a test in it failed or a member was missing: the
    /// object was written since it was read. The server answers 422 and does not say why.
    pub fn is_overtaken(&self) -> bool {
        self.status() == Some(422) && self.causes().is_empty()
    }

    /// Whether the object to be made exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Some("AlreadyExists")
    }

    /// Whether the caller may not do this, or admission refuses the object.
    pub fn is_denied(&self) -> bool {
        self.status() == Some(403)
    }

    /// Whether admission refused the object with the status that a lack of rights has: a webhook
    /// (`admission webhook "…" denied the request`), Pod Security, a quota, a missing account. No
    /// role of the caller changes that.
    ///
    /// Source: Kubernetes, `apiserver/pkg/endpoints/handlers/responsewriters` (`forbiddenMessage`:
    /// authorization always names the user who `cannot` do it).
    pub fn is_refused_by_admission(&self) -> bool {
        let Self::Status { status: 403, message, .. } = self else { return false };
        let of_rights = message.contains(" is forbidden: User ") && message.contains(" cannot ");
        let of_object = message.contains("\" is forbidden: ");
        !of_rights && (of_object || message.contains("admission webhook \""))
    }

    /// Whether a resource quota leaves no room.
    ///
    /// Source: Kubernetes documentation, "Resource Quotas".
    pub(super) fn is_over_quota(&self) -> bool {
        self.is_refused_by_admission() && self.to_string().contains("exceeded quota")
    }

    /// Whether an admission webhook could not be called: the server answers 500 `failed calling
    /// webhook "…"` where the webhook's failure policy is `Fail`.
    ///
    /// Source: Kubernetes documentation, "Dynamic Admission Control", failure policy.
    pub fn is_webhook_down(&self) -> bool {
        matches!(self, Self::Status { message, .. } if message.contains("failed calling webhook"))
    }

    /// Whether a continue token expired or the server compacted what was asked for.
    pub(super) fn is_gone(&self) -> bool {
        self.status() == Some(410)
    }

    /// The failure as data.
    pub fn failure(&self, tried: impl Into<String>) -> RemoteFailure {
        if let Self::NoToken(failure) = self {
            return RemoteFailure { tried: tried.into(), ..(**failure).clone() };
        }
        let mut failure = RemoteFailure::new(self.kind(), tried, self.to_string());
        failure.status = self.status();
        failure.code = self.reason().filter(|reason| !reason.is_empty()).map(str::to_owned);
        if let Self::Status { audit_id, .. } = self {
            failure.correlation_id.clone_from(audit_id);
        }
        failure.hint = self.hint();
        failure
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::KubeconfigUnreadable { .. }
            | Self::KubeconfigInvalid { .. }
            | Self::NoSuchContext { .. }
            | Self::NoCurrentContext { .. }
            | Self::PlainHttp { .. }
            | Self::BadServer { .. }
            | Self::Body { .. } => FailureKind::Refused,
            Self::Credential { .. } => FailureKind::Unauthenticated,
            Self::NoToken(failure) => failure.kind,
            Self::Unreachable { .. } | Self::TimedOut { .. } => FailureKind::Unreachable,
            Self::Recreated { .. } | Self::Changed { .. } => FailureKind::Conflict,
            Self::Status { .. } if self.is_conflict() => FailureKind::Conflict,
            Self::Status { .. } if self.is_refused_by_admission() => FailureKind::Refused,
            Self::Status { status, .. } => match status {
                401 => FailureKind::Unauthenticated,
                403 => FailureKind::Denied,
                409 => FailureKind::Conflict,
                408 | 429 | 500..=599 => FailureKind::Unavailable,
                _ => FailureKind::Refused,
            },
        }
    }

    /// The next command to type.
    fn hint(&self) -> Option<String> {
        match self {
            Self::KubeconfigUnreadable { path, .. } => Some(format!("ls -l {}", path.display())),
            Self::KubeconfigInvalid { .. } | Self::NoCurrentContext { .. } => {
                Some("kubectl config get-contexts".to_owned())
            }
            Self::NoSuchContext { known, .. } if known.is_empty() => {
                Some("az aks get-credentials --resource-group GROUP --name CLUSTER".to_owned())
            }
            Self::NoSuchContext { known, .. } => {
                Some(format!("choose one of: {}", known.join(", ")))
            }
            Self::PlainHttp { .. } => Some("use an https server in the kubeconfig".to_owned()),
            Self::Credential { who, install, .. } => Some(match install {
                Some(install) => install.clone(),
                None if who.contains("kubelogin") => {
                    "az login, then kubelogin --version".to_owned()
                }
                None => "kubectl auth whoami".to_owned(),
            }),
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                Some("kubectl cluster-info".to_owned())
            }
            _ if self.is_webhook_down() => {
                Some("kubectl get pods -A -l azure-workload-identity.io/system=true".to_owned())
            }
            _ if self.is_over_quota() => Some("kubectl describe resourcequotas -A".to_owned()),
            _ if self.is_refused_by_admission() => Some(
                "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
                    .to_owned(),
            ),
            Self::Status { status: 401, .. } => Some("kubectl auth whoami".to_owned()),
            Self::Status { status: 403, .. } => Some("kubectl auth can-i --list".to_owned()),
            Self::NoToken(_)
            | Self::BadServer { .. }
            | Self::Status { .. }
            | Self::Body { .. }
            | Self::Recreated { .. }
            | Self::Changed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, reason: &str, message: &str) -> KubeError {
        KubeError::Status {
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            causes: Vec::new(),
            audit_id: Some("a".to_owned()),
        }
    }

    #[test]
    fn a_refusal_is_classed_by_its_status() {
        for (code, kind) in [
            (401, FailureKind::Unauthenticated),
            (403, FailureKind::Denied),
            (404, FailureKind::Refused),
            (409, FailureKind::Conflict),
            (422, FailureKind::Refused),
            (429, FailureKind::Unavailable),
            (503, FailureKind::Unavailable),
        ] {
            assert_eq!(status(code, "R", "m").failure("t").kind, kind, "{code}");
        }
        let failure = status(403, "Forbidden", "no").failure("list pods");
        assert_eq!(failure.code.as_deref(), Some("Forbidden"));
        assert_eq!(failure.correlation_id.as_deref(), Some("a"));
        assert!(failure.hint.is_some());
    }

    #[test]
    fn a_refusal_by_admission_is_no_lack_of_rights() {
        for (message, admission) in [
            ("admission webhook \"validation.gatekeeper.sh\" denied the request: image", true),
            ("pods \"a-b\" is forbidden: exceeded quota: q, requested: pods=1", true),
            ("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"", true),
            ("pods \"a\" is forbidden: error looking up service account n/a: not found", true),
            ("pods is forbidden: User \"u\" cannot create resource \"pods\" in API group", false),
            ("pods \"a\" is forbidden: User \"u\" cannot get resource \"pods\"", false),
            ("Forbidden", false),
        ] {
            let failure = status(403, "Forbidden", message).failure("t");
            let kind = if admission { FailureKind::Refused } else { FailureKind::Denied };
            assert_eq!(failure.kind, kind, "{message}");
            let hint = failure.hint.unwrap();
            assert_eq!(hint == "kubectl auth can-i --list", !admission, "{message}: {hint}");
        }
    }

    #[test]
    fn existing_and_conflicting_are_told_apart() {
        assert!(status(409, "AlreadyExists", "").is_already_exists());
        assert!(!status(409, "AlreadyExists", "").is_conflict());
        assert!(status(409, "Conflict", "").is_conflict());
    }

    #[test]
    fn the_manager_of_a_conflict_is_quoted_in_its_message() {
        let cause = Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: "conflict with \"helm\" using v1".to_owned(),
            field: ".metadata.annotations.x".to_owned(),
        };
        assert_eq!(cause.manager(), Some("helm"));
    }
}
