//! What an answer of Entra means for asking again: which refusals may pass, and how often an answer
//! must come before it counts. Pure.

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

/// Answers in a row that a proof takes where one is not enough.
pub const ANSWERS: u32 = 3;
/// The shortest stretch over which they lie once a refusal was seen.
const SHORTEST: Duration = Duration::from_secs(2);
/// The longest, whatever was observed: the deadline of five minutes holds the refusals, too.
const LONGEST: Duration = Duration::from_secs(30);

/// How long Entra has had to learn what is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// This run wrote it a moment ago.
    Written,
    /// It was there before, for at least this long. Azure keeps no time of a federated credential,
    /// so this is zero but for what a run has seen itself.
    AtLeast(Duration),
}

/// Over how long the answers of a proof must lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Window {
    /// As long as Entra was seen to refuse, between 2 and 30 s; see [`Steady`].
    #[default]
    Observed,
    /// This long, whatever was observed; zero takes the first answer.
    Fixed(Duration),
}

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is proved.
    Proved,
    /// Ask again after this long, with a new token.
    Again(Duration),
}

/// Whether Entra's answers are steady enough to count.
///
/// Entra is many servers, and each remembers what it found: Microsoft documents that a federated
/// credential takes time to spread after it was written, that a request which fails meanwhile may
/// be remembered, and that retries belong "for every request even after a token was successfully
/// obtained" (Entra documentation, considerations for workload identity federation). How long is
/// not published: "a few seconds" in one place, "minutes" in another. So the run measures it:
///
/// - After a refusal, [`ANSWERS`] answers in a row are wanted over as long as the refusals were
///   seen to last: servers that lag behind the first no longer than that one lagged behind the
///   write are met. At least 2 s, at most 30 s. A refusal in between begins the row anew, and the
///   measure grows.
/// - What this run wrote and was never refused takes the same number of answers without a wait:
///   each is a new request with a new token, and nobody has asked before who could have left a
///   refusal behind. Waiting would be a constant sleep against nothing that was seen.
/// - What was there before and is answered at the first try takes one answer, and so does what is
///   known to be older than the window.
#[derive(Debug, Clone)]
pub struct Steady {
    age: Age,
    window: Window,
    refused: Option<Duration>,
    first: Option<Duration>,
    answers: u32,
}

impl Steady {
    /// Nothing was asked yet.
    pub fn new(age: Age, window: Window) -> Self {
        Self { age, window, refused: None, first: None, answers: 0 }
    }

    /// Entra refused what may be on its way, at `now` on the caller's clock.
    pub fn refused(&mut self, now: Duration) {
        self.refused.get_or_insert(now);
        self.first = None;
        self.answers = 0;
    }

    /// Entra answered at `now`.
    pub fn answered(&mut self, now: Duration) -> After {
        let first = *self.first.get_or_insert(now);
        self.answers += 1;
        let Some(over) = self.over(first) else { return After::Proved };
        let passed = now.saturating_sub(first);
        if self.answers >= ANSWERS && passed >= over {
            return After::Proved;
        }
        let left = over.saturating_sub(passed);
        // Rounded up, or the last answer would come a nanosecond early and not count.
        let rests = ANSWERS - 1;
        let rest = (over + Duration::from_nanos(u64::from(rests - 1))) / rests;
        After::Again(rest.min(left))
    }

    /// How many answers in a row there were.
    pub fn answers(&self) -> u32 {
        self.answers
    }

    /// The stretch that answers must cover; none where one answer is enough.
    fn over(&self, first: Duration) -> Option<Duration> {
        let over = match (self.window, self.refused, self.age) {
            (Window::Fixed(Duration::ZERO), ..) | (Window::Observed, None, Age::AtLeast(_)) => {
                return None;
            }
            (Window::Fixed(window), ..) => window,
            (Window::Observed, Some(refused), _) => {
                first.saturating_sub(refused).clamp(SHORTEST, LONGEST)
            }
            (Window::Observed, None, Age::Written) => Duration::ZERO,
        };
        match self.age {
            Age::AtLeast(age) if age >= over && !age.is_zero() => None,
            Age::AtLeast(_) | Age::Written => Some(over),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::azure::Refusal;

    const NOTHING_KNOWN: Age = Age::AtLeast(Duration::ZERO);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_there_and_is_answered_takes_one_answer() {
        assert_eq!(Steady::new(NOTHING_KNOWN, Window::Observed).answered(at(0)), After::Proved);
    }

    #[test]
    fn what_was_written_and_never_refused_takes_three_without_a_wait() {
        let mut steady = Steady::new(Age::Written, Window::Observed);
        assert_eq!(steady.answered(at(0)), After::Again(Duration::ZERO));
        assert_eq!(steady.answered(at(0)), After::Again(Duration::ZERO));
        assert_eq!(steady.answered(at(0)), After::Proved);
    }

    #[test]
    fn answers_must_last_as_long_as_the_refusals_did() {
        let mut steady = Steady::new(NOTHING_KNOWN, Window::Observed);
        steady.refused(at(0));
        steady.refused(at(4));
        assert_eq!(steady.answered(at(10)), After::Again(at(5)));
        assert_eq!(steady.answered(at(15)), After::Again(at(5)));
        assert_eq!(steady.answered(at(20)), After::Proved);
        assert_eq!(steady.answers(), 3);
    }

    #[test]
    fn a_refusal_in_between_begins_the_row_anew() {
        let mut steady = Steady::new(Age::Written, Window::Observed);
        steady.refused(at(0));
        assert_eq!(steady.answered(at(2)), After::Again(at(1)));
        steady.refused(at(4));
        // Refusals lasted 6 s by now.
        assert_eq!(steady.answered(at(6)), After::Again(at(3)));
        assert_eq!(steady.answered(at(9)), After::Again(at(3)));
        assert_eq!(steady.answered(at(12)), After::Proved);
    }

    #[test]
    fn the_stretch_is_bounded() {
        let mut steady = Steady::new(NOTHING_KNOWN, Window::Observed);
        steady.refused(at(0));
        assert_eq!(steady.answered(at(200)), After::Again(at(15)));
        let mut steady = Steady::new(NOTHING_KNOWN, Window::Observed);
        steady.refused(at(0));
        assert_eq!(steady.answered(at(1)), After::Again(at(1)));
    }

    #[test]
    fn a_window_that_was_asked_for_holds_whatever_was_seen() {
        let window = Window::Fixed(at(30));
        let mut steady = Steady::new(NOTHING_KNOWN, window);
        assert_eq!(steady.answered(at(0)), After::Again(at(15)));
        assert_eq!(steady.answered(at(29)), After::Again(at(1)));
        assert_eq!(steady.answered(at(30)), After::Proved);
        let none = Window::Fixed(Duration::ZERO);
        let mut steady = Steady::new(Age::Written, none);
        steady.refused(at(0));
        assert_eq!(steady.answered(at(2)), After::Proved);
    }

    #[test]
    fn what_is_older_than_the_window_takes_one_answer() {
        let mut steady = Steady::new(Age::AtLeast(at(60)), Window::Fixed(at(30)));
        assert_eq!(steady.answered(at(0)), After::Proved);
        let mut steady = Steady::new(Age::AtLeast(at(60)), Window::Observed);
        steady.refused(at(0));
        assert_eq!(steady.answered(at(2)), After::Proved);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whoever waits as told gets to an end, and never before the row is long enough.
        #[test]
        fn waiting_as_told_ends(refusals in prop::collection::vec(0_u64..20_000_000_000, 0..6), written: bool) {
            let age = if written { Age::Written } else { NOTHING_KNOWN };
            let mut steady = Steady::new(age, Window::Observed);
            let mut now = Duration::ZERO;
            for wait in &refusals {
                steady.refused(now);
                now += Duration::from_nanos(*wait);
            }
            let began = now;
            let mut asked = 1;
            while let After::Again(wait) = steady.answered(now) {
                asked += 1;
                prop_assert!(asked <= ANSWERS, "asked {asked} times");
                now += wait;
            }
            let repeated = written || !refusals.is_empty();
            prop_assert_eq!(steady.answers() >= ANSWERS, repeated);
            prop_assert!(refusals.is_empty() || now >= began + SHORTEST);
            prop_assert!(now <= began + LONGEST);
        }
    }

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
