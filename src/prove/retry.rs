//! What a refusal of Entra means for asking again. Pure.

use std::time::Duration;

use crate::azure::{ExchangeError, Jitter};

/// Longer than any propagation that Microsoft documents for federated credentials.
pub const LIMIT: Duration = Duration::from_mins(5);

/// What a refusal says about the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// A federated credential that was just written looks like this until it is known: the list of
    /// credentials decides whether there is anything to wait for.
    MayPropagate,
    /// Entra, the network or the issuer's keys had a bad moment.
    Transient,
    /// The token was not valid at that time by Entra's clock; a new one may be, once.
    Clock,
    /// Asking again changes nothing.
    Final,
}

/// Judges a refusal by its codes.
///
/// Source: Microsoft documentation on AADSTS error codes and on workload identity federation.
pub fn outlook(error: &ExchangeError) -> Outlook {
    let refusal = match error {
        ExchangeError::Unreachable { .. } => return Outlook::Transient,
        ExchangeError::Body { status } if *status == 429 || *status >= 500 => {
            return Outlook::Transient;
        }
        ExchangeError::Body { .. } => return Outlook::Final,
        ExchangeError::Refused(refusal) => refusal,
    };
    if refusal.status == 429 || refusal.status >= 500 {
        return Outlook::Transient;
    }
    match refusal.codes.first() {
        // No matching credential, as one code or as one each for issuer, audience and subject;
        // no credential at all; a client that is not known, as a new identity's is.
        Some(70_021 | 700_211 | 700_212 | 700_213 | 70_025 | 700_016) => Outlook::MayPropagate,
        // The issuer's discovery document or keys could not be fetched.
        Some(90_061 | 50_166 | 501_661) => Outlook::Transient,
        Some(700_024) => Outlook::Clock,
        Some(_) | None => Outlook::Final,
    }
}

/// The wait after try number `attempt` (1 or more): 2 s, growing to 15 s, spread so that many
/// workloads do not ask at once. What Entra names as `Retry-After` is not undercut.
pub fn pause(attempt: u32, retry_after: Option<u64>, jitter: &Jitter) -> Duration {
    let base = Duration::from_secs(u64::from(attempt.saturating_add(1)).clamp(2, 12));
    jitter.between(base, base + base / 4).max(Duration::from_secs(retry_after.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::Refusal;

    fn refused(status: u16, code: u32) -> ExchangeError {
        ExchangeError::Refused(Box::new(Refusal {
            status,
            codes: vec![code],
            ..Refusal::default()
        }))
    }

    #[test]
    fn codes_of_a_credential_not_yet_known_may_propagate() {
        for code in [70_021, 700_211, 700_212, 700_213, 70_025, 700_016] {
            assert_eq!(outlook(&refused(401, code)), Outlook::MayPropagate, "{code}");
        }
    }

    #[test]
    fn a_case_difference_a_wrong_tenant_and_a_bad_scope_are_final() {
        for code in [7_002_138, 90_002, 70_011, 500_011] {
            assert_eq!(outlook(&refused(400, code)), Outlook::Final, "{code}");
        }
    }

    #[test]
    fn servers_and_networks_have_bad_moments() {
        let unreachable = ExchangeError::Unreachable { message: "x".into() };
        for error in [refused(503, 0), refused(429, 0), refused(400, 50_166), unreachable] {
            assert_eq!(outlook(&error), Outlook::Transient, "{error:?}");
        }
        assert_eq!(outlook(&ExchangeError::Body { status: 200 }), Outlook::Final);
    }

    #[test]
    fn pauses_are_between_2_and_15_seconds() {
        let jitter = Jitter::seeded(3);
        for attempt in 1..100 {
            let pause = pause(attempt, None, &jitter).as_secs_f32();
            assert!((2.0..=15.0).contains(&pause), "{attempt}: {pause}");
        }
        assert_eq!(pause(1, Some(40), &jitter).as_secs(), 40);
    }
}
