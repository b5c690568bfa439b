//! Time and invented identifiers of the sandbox, both injectable so that tests are deterministic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The clock that propagation, token lifetimes and time stamps follow.
#[derive(Clone)]
pub enum Clock {
    /// The machine's clock.
    Real,
    /// A clock that moves only when [`Clock::advance`] is called; milliseconds since the epoch.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A manual clock that stands at `start`.
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.as_millisecond())))
    }

    /// The present.
    #[expect(clippy::disallowed_methods, reason = "this is where the sandbox reads the time")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Real => Timestamp::now(),
            Self::Manual(at) => {
                Timestamp::from_millisecond(at.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Moves a manual clock forward; a real one moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(at) = self {
            let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::ZERO);
            at.fetch_add(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
        }
    }
}

/// Identifiers that Azure and Kubernetes would invent, derived from a seed and a counter.
pub struct Ids {
    seed: u64,
    next: AtomicU64,
}

impl Ids {
    /// Identifiers that differ for each seed and continue after `used` earlier ones.
    pub fn new(seed: u64, used: u64) -> Self {
        Self { seed, next: AtomicU64::new(used) }
    }

    /// The next identifier, formed like a random (version 4) GUID.
    pub fn guid(&self) -> Uuid {
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        let digest = Sha256::digest([self.seed.to_be_bytes(), n.to_be_bytes()].concat());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// How many identifiers were given out; stored so that a restart does not repeat them.
    pub fn used(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }
}
