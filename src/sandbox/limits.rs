//! The published throttles as token buckets.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// One limit: how many requests a full bucket holds and how fast it refills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Requests that a full bucket answers at once.
    pub burst: f64,
    /// Requests a second that refill it.
    pub per_second: f64,
}

impl Limit {
    /// A bucket of `burst` requests refilled with `per_second`.
    pub const fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second }
    }
}

/// What a bucket said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The request passes; so many are left.
    Left(u32),
    /// The bucket is empty; ask again after so many seconds.
    Wait(u32),
}

/// All buckets of a world, by name. They are not stored: a restart fills them.
#[derive(Debug, Default)]
pub struct Buckets {
    levels: Mutex<BTreeMap<String, Level>>,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    tokens: f64,
    at_ms: i64,
}

impl Buckets {
    /// Takes one request out of the bucket `name` at `now_ms`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "levels are between zero and a few thousand, waits a few minutes"
    )]
    pub fn take(&self, name: &str, limit: Limit, now_ms: i64) -> Taken {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let full = Level { tokens: limit.burst, at_ms: now_ms };
        let level = levels.entry(name.to_owned()).or_insert(full);
        let passed = (now_ms - level.at_ms).max(0) as f64 / 1000.0;
        level.tokens = (level.tokens + passed * limit.per_second).min(limit.burst);
        level.at_ms = now_ms;
        if level.tokens >= 1.0 {
            level.tokens -= 1.0;
            Taken::Left(level.tokens as u32)
        } else {
            Taken::Wait(((1.0 - level.tokens) / limit.per_second).ceil().max(1.0) as u32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let buckets = Buckets::default();
        let limit = Limit::new(2.0, 0.25);
        assert_eq!(buckets.take("a", limit, 0), Taken::Left(1));
        assert_eq!(buckets.take("a", limit, 0), Taken::Left(0));
        assert_eq!(buckets.take("a", limit, 0), Taken::Wait(4));
        assert_eq!(buckets.take("b", limit, 0), Taken::Left(1));
        assert_eq!(buckets.take("a", limit, 4_000), Taken::Left(0));
    }
}
