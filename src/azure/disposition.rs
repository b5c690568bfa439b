//! What to do about an answer that is no success: one table, pure.
//!
//! Sources: Microsoft documentation on federated credentials, on troubleshooting Azure RBAC and on
//! request throttling; the recorded practice of the Terraform and Pulumi providers.

use std::time::Duration;

use super::pace::Pace;

/// What a request does, as far as the table needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asked {
    /// A read, or the poll of an operation.
    #[default]
    Read,
    /// A read of something that this run has just written: Azure's reads may lag behind.
    ReadBack,
    /// Making or tagging an identity.
    WriteIdentity,
    /// Putting a federated credential.
    WriteCredential,
    /// Putting a role assignment.
    WriteAssignment,
    /// Putting a cluster.
    WriteCluster,
    /// Patching a scale set.
    WriteScaleSet,
}

/// What is known beyond the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// What was asked.
    pub asked: Asked,
    /// The identity written to was made in this run, so that 404 may be a delay.
    pub parent_is_fresh: bool,
    /// The principal belongs to an identity made in this run, so that Entra may not know it yet.
    pub principal_is_fresh: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Ask again: all requests of this client may be repeated.
    Retry {
        /// In which rhythm.
        pace: Pace,
        /// For how long in sum.
        limit: Duration,
        /// What is waited for.
        what: &'static str,
    },
    /// It is already as wanted, under another name.
    Success,
    /// Somebody else is at work: read the resource until it is at rest, then begin anew.
    Wait {
        /// What is waited for.
        what: &'static str,
    },
    /// The world is not as it was when planned.
    Stale,
    /// The credential may not do this, and asking again will not change it.
    Denied,
    /// Nothing to be done here.
    Fatal,
}

const THROTTLED: Duration = Duration::from_mins(5);
const PROPAGATION: Duration = Duration::from_mins(5);
const READ_BACK: Duration = Duration::from_secs(30);

/// Decides about an answer by its status, code and message. A code of several is the outermost.
pub fn disposition(
    status: u16,
    code: Option<&str>,
    message: &str,
    context: Context,
) -> Disposition {
    use Disposition::{Denied, Fatal, Retry, Stale, Success, Wait};
    let code = code.unwrap_or_default().to_ascii_lowercase();
    let message = message.to_ascii_lowercase();
    let says = |text: &str| message.contains(text);
    let propagation = |what| Retry { pace: Pace::Every(10), limit: PROPAGATION, what };

    match (context.asked, status) {
        // Whatever was asked: the server had no time for it.
        (_, 429) => Retry { pace: Pace::Backoff, limit: THROTTLED, what: "Azure's request limits" },
        (_, 408 | 500 | 502 | 503 | 504) => {
            Retry { pace: Pace::Backoff, limit: THROTTLED, what: "Azure to answer" }
        }
        // The pipeline drops its token on 401, so that one more try brings a fresh one.
        (_, 401) if code == "expiredauthenticationtoken" => {
            Retry { pace: Pace::Once, limit: Duration::ZERO, what: "a fresh token" }
        }
        (_, 401 | 403) => Denied,

        (Asked::ReadBack, 404) => Retry {
            pace: Pace::Every(3),
            limit: READ_BACK,
            what: "Azure to show what was just written",
        },
        (Asked::WriteCredential, 404) if context.parent_is_fresh => {
            propagation("the new identity to be known everywhere")
        }
        (Asked::WriteCredential, _) if says("ms graph resource not found") => {
            if context.parent_is_fresh {
                propagation("the new identity to be known everywhere")
            } else {
                Fatal
            }
        }
        // Documented as 400, seen as 409.
        (Asked::WriteCredential, 400 | 409)
            if says("issuer and subject combination already exists") =>
        {
            Stale
        }
        (Asked::WriteCredential, 409)
            if code == "concurrentfederatedidentitycredentialswritesforsinglemanagedidentity" =>
        {
            Retry {
                pace: Pace::Spread,
                limit: PROPAGATION,
                what: "another write of a federated credential on this identity",
            }
        }

        // 409 from the role assignment API, 400 from an activation of the same role.
        (Asked::WriteAssignment, 400 | 409) if code == "roleassignmentexists" => Success,
        (Asked::WriteAssignment, 400) if code == "roleassignmentupdatenotpermitted" => Stale,
        (Asked::WriteAssignment, 400)
            if code == "principalnotfound" || says("does not exist in the directory") =>
        {
            if context.principal_is_fresh {
                propagation("Entra to know the new identity")
            } else {
                Fatal
            }
        }

        (Asked::WriteCluster, 412) => Wait { what: "the cluster's record to settle" },
        (Asked::WriteCluster, 409) if code == "etagmismatch" => {
            Wait { what: "the cluster's record to settle" }
        }
        // The same code also says that a quota is exceeded, which no waiting changes.
        (Asked::WriteCluster, 409)
            if code == "operationnotallowed"
                && (says("in progress") || says("aks-pending-operation")) =>
        {
            Wait { what: "another operation on the cluster" }
        }

        (Asked::WriteScaleSet, 412) => Wait { what: "the scale set's record to settle" },
        // `Conflict` is what the provider calls a concurrent request; a lock has its own code.
        (Asked::WriteScaleSet, 409)
            if code == "conflict"
                || code == "anotheroperationinprogress"
                || (code == "operationnotallowed" && says("in progress")) =>
        {
            Wait { what: "another operation on the scale set" }
        }

        // The target does not exist; a principal that does not is a 400.
        (Asked::WriteAssignment, 404) => Fatal,
        (Asked::WriteIdentity | Asked::WriteCredential, 404)
        | (Asked::WriteIdentity | Asked::WriteCredential | Asked::WriteAssignment, 412) => Stale,
        (Asked::WriteIdentity, 409)
            if code == "conflict" || code == "anotheroperationinprogress" =>
        {
            Retry { pace: Pace::Backoff, limit: THROTTLED, what: "another write of this identity" }
        }

        (
            Asked::Read
            | Asked::ReadBack
            | Asked::WriteIdentity
            | Asked::WriteCredential
            | Asked::WriteAssignment
            | Asked::WriteCluster
            | Asked::WriteScaleSet,
            _,
        ) => Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(asked: Asked, status: u16, code: &str, message: &str) -> Disposition {
        disposition(status, Some(code), message, Context { asked, ..Context::default() })
    }

    fn fresh(asked: Asked, status: u16, code: &str, message: &str) -> Disposition {
        let context = Context { asked, parent_is_fresh: true, principal_is_fresh: true };
        disposition(status, Some(code), message, context)
    }

    const ALL: [Asked; 7] = [
        Asked::Read,
        Asked::ReadBack,
        Asked::WriteIdentity,
        Asked::WriteCredential,
        Asked::WriteAssignment,
        Asked::WriteCluster,
        Asked::WriteScaleSet,
    ];

    fn retries(disposition: Disposition) -> bool {
        matches!(disposition, Disposition::Retry { .. })
    }

    #[test]
    fn throttling_and_server_errors_are_asked_again_whatever_was_asked() {
        for asked in ALL {
            for status in [408, 429, 500, 502, 503, 504] {
                assert!(retries(of(asked, status, "Throttled", "")), "{asked:?} {status}");
            }
        }
    }

    #[test]
    fn a_403_is_never_asked_again() {
        for asked in ALL {
            assert_eq!(fresh(asked, 403, "AuthorizationFailed", ""), Disposition::Denied);
        }
    }

    #[test]
    fn only_an_expired_token_is_worth_another_try() {
        assert!(retries(of(Asked::Read, 401, "ExpiredAuthenticationToken", "")));
        assert_eq!(of(Asked::Read, 401, "InvalidAuthenticationToken", ""), Disposition::Denied);
    }

    #[test]
    fn a_missing_parent_is_waited_for_only_if_this_run_made_it() {
        for (status, code, message) in [
            (404, "ParentResourceNotFound", "could not be found"),
            (404, "ResourceNotFound", ""),
            (400, "BadRequest", "MS Graph resource not found"),
        ] {
            assert!(retries(fresh(Asked::WriteCredential, status, code, message)), "{code}");
            assert!(!retries(of(Asked::WriteCredential, status, code, message)), "{code}");
        }
        assert_eq!(of(Asked::WriteCredential, 404, "ResourceNotFound", ""), Disposition::Stale);
    }

    #[test]
    fn an_unknown_principal_is_waited_for_only_if_this_run_made_it() {
        let asked = Asked::WriteAssignment;
        let message = "Principal 0 does not exist in the directory 1.";
        assert!(retries(fresh(asked, 400, "PrincipalNotFound", message)));
        assert!(retries(fresh(asked, 400, "BadRequest", message)));
        assert_eq!(of(asked, 400, "PrincipalNotFound", message), Disposition::Fatal);
    }

    #[test]
    fn concurrent_credential_writes_are_spread_for_five_minutes() {
        let code = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";
        let Disposition::Retry { pace, limit, .. } = of(Asked::WriteCredential, 409, code, "")
        else {
            panic!("not asked again");
        };
        assert_eq!((pace, limit), (Pace::Spread, Duration::from_mins(5)));
    }

    #[test]
    fn a_taken_issuer_and_subject_is_stale_under_either_status() {
        let message = "Issuer and subject combination already exists for this Managed Identity.";
        for (status, code) in [(400, "BadRequest"), (409, "Conflict")] {
            assert_eq!(of(Asked::WriteCredential, status, code, message), Disposition::Stale);
        }
        assert_eq!(of(Asked::WriteCredential, 400, "BadRequest", "unexpected"), Disposition::Fatal);
    }

    #[test]
    fn an_existing_role_assignment_is_success_and_a_changed_one_is_stale() {
        let asked = Asked::WriteAssignment;
        for status in [400, 409] {
            assert_eq!(of(asked, status, "RoleAssignmentExists", ""), Disposition::Success);
        }
        assert_eq!(of(asked, 400, "RoleAssignmentUpdateNotPermitted", ""), Disposition::Stale);
        assert_eq!(of(asked, 400, "RoleAssignmentLimitExceeded", ""), Disposition::Fatal);
    }

    #[test]
    fn a_busy_cluster_is_waited_for_and_a_full_quota_is_not() {
        let asked = Asked::WriteCluster;
        let waits = |status, code, message| {
            matches!(of(asked, status, code, message), Disposition::Wait { .. })
        };
        for message in [
            "Operation is not allowed: Another operation (Updating) is in progress, please wait \
             for it to finish. See https://aka.ms/aks-pending-operation for more details",
            "Operation is not allowed because there's an in progress update managed cluster \
             operation (operation ID: e375d315) on the managed cluster",
        ] {
            assert!(waits(409, "OperationNotAllowed", message), "{message}");
        }
        assert!(waits(409, "EtagMismatch", ""));
        assert!(waits(412, "PreconditionFailed", ""));
        assert!(!waits(
            409,
            "OperationNotAllowed",
            "exceeding approved Total Regional Cores quota"
        ));
        assert!(!waits(400, "BadRequest", "in progress"));
    }

    #[test]
    fn a_busy_scale_set_is_waited_for_and_a_locked_one_is_not() {
        let asked = Asked::WriteScaleSet;
        let waits = |status, code| {
            matches!(of(asked, status, code, "in progress"), Disposition::Wait { .. })
        };
        assert!(waits(409, "Conflict") && waits(412, "PreconditionFailed"));
        assert!(waits(409, "OperationNotAllowed"));
        assert!(!waits(409, "ScopeLocked") && !waits(404, "ResourceNotFound"));
    }

    #[test]
    fn a_404_is_read_again_only_after_a_write() {
        assert!(retries(of(Asked::ReadBack, 404, "ResourceNotFound", "")));
        assert_eq!(of(Asked::Read, 404, "ResourceNotFound", ""), Disposition::Fatal);
    }
}
