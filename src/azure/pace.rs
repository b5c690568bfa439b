//! How long to wait before asking again. Pure, but for the spread that keeps two callers from
//! asking at the same moment.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;

/// Spreads waits. Clones share one sequence.
#[derive(Debug, Clone)]
pub struct Jitter(Arc<AtomicU64>);

impl Jitter {
    /// A spread that differs between processes.
    pub fn random() -> Self {
        Self::seeded(RandomState::new().hash_one(0_u8))
    }

    /// The same spread every time.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// The next number: for a name that nobody else has.
    pub fn number(&self) -> u64 {
        // SplitMix64, Steele, Lea and Flood 2014: enough for spreading, not for secrets.
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next duration between `low` and `high`.
    pub fn between(&self, low: Duration, high: Duration) -> Duration {
        let thousandth = u32::try_from(self.number() % 1000).unwrap_or_default();
        low + high.saturating_sub(low) * thousandth / 1000
    }
}

/// How time passes between two tries: tests put a clock of their own here.
pub type Sleep = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// Real time.
pub(super) fn real_sleep() -> Sleep {
    Arc::new(|how_long| Box::pin(tokio::time::sleep(how_long)))
}

/// The rhythm of asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once, one time.
    Once,
    /// As the server's `Retry-After` says, but never within a second, else a growing spread between
    /// 1 and 30 s.
    Backoff,
    /// A spread between 1 and 10 s, never earlier than `Retry-After`.
    Spread,
    /// This many seconds, never earlier than `Retry-After`.
    Every(u64),
}

impl Pace {
    /// The wait before the next try, after `attempt` tries (1 or more).
    pub fn wait(self, attempt: u32, retry_after: Option<Duration>, jitter: &Jitter) -> Duration {
        let second = Duration::from_secs(1);
        match self {
            Self::Once => Duration::ZERO,
            Self::Backoff => retry_after.map_or_else(
                || {
                    let high = second * 2_u32.saturating_pow(attempt.min(5)).min(30);
                    jitter.between(second, high)
                },
                |asked| asked.max(second),
            ),
            Self::Spread => {
                jitter.between(second, second * 10).max(retry_after.unwrap_or_default())
            }
            Self::Every(seconds) => {
                Duration::from_secs(seconds).max(retry_after.unwrap_or_default())
            }
        }
    }
}

/// The wait before poll number `poll` (0 or more) of a long-running operation: what `Retry-After`
/// says, else 1, 2, 4 … 30 s. A server that says 0 is asked after a second.
pub(super) fn poll_wait(poll: u32, retry_after: Option<Duration>) -> Duration {
    let grown = Duration::from_secs(2_u64.saturating_pow(poll.min(5)).min(30));
    retry_after.map_or(grown, |asked| asked.clamp(Duration::from_secs(1), Duration::from_mins(5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_come_after_1_2_4_up_to_30_seconds_unless_the_server_says() {
        let waits: Vec<u64> = (0..8).map(|poll| poll_wait(poll, None).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(poll_wait(0, Some(Duration::from_secs(10))).as_secs(), 10);
        assert_eq!(poll_wait(0, Some(Duration::ZERO)).as_secs(), 1);
    }

    #[test]
    fn a_server_that_says_0_is_asked_after_a_second() {
        let jitter = Jitter::seeded(7);
        let zero = Some(Duration::ZERO);
        assert_eq!(Pace::Backoff.wait(1, zero, &jitter), Duration::from_secs(1));
    }

    #[test]
    fn a_server_that_names_a_wait_is_obeyed() {
        let jitter = Jitter::seeded(7);
        let asked = Some(Duration::from_secs(17));
        assert_eq!(Pace::Backoff.wait(1, asked, &jitter).as_secs(), 17);
        assert_eq!(Pace::Every(10).wait(1, asked, &jitter).as_secs(), 17);
        assert_eq!(Pace::Spread.wait(1, asked, &jitter).as_secs(), 17);
    }

    #[test]
    fn a_spread_stays_in_its_bounds_and_repeats_for_a_seed() {
        let draw = |jitter: &Jitter| -> Vec<Duration> {
            (1..50).map(|attempt| Pace::Backoff.wait(attempt, None, jitter)).collect()
        };
        let first = draw(&Jitter::seeded(1));
        assert_eq!(first, draw(&Jitter::seeded(1)));
        assert!(first.iter().all(|wait| (1..=30).contains(&wait.as_secs())));
        assert!(first.iter().collect::<std::collections::BTreeSet<_>>().len() > 20);
    }
}
