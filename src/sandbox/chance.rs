//! Faults at random, the same for the same seed.

use std::{
    collections::BTreeMap,
    hash::{Hash as _, Hasher},
};

use super::faults::Action;

/// How often requests are met, and by which sequence.
///
/// Whether a request is met follows from the seed, what it asks for and how often that was asked
/// before, so that requests which run side by side do not change each other's faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Chance {
    rate: f64,
    seed: u64,
    asked: BTreeMap<u64, u64>,
}

impl Chance {
    /// Meets about `rate` of all requests, from 0 for none to 1 for all.
    pub fn new(rate: f64, seed: u64) -> Self {
        Self { rate: rate.clamp(0.0, 1.0), seed, asked: BTreeMap::new() }
    }

    /// What happens to a request, if anything.
    pub(super) fn meet(&mut self, service: &str, method: &str, path: &str) -> Option<Action> {
        let mut hash = Fnv(FNV_BASIS);
        (self.seed, service, method, path).hash(&mut hash);
        let what = hash.finish();
        let times = self.asked.entry(what).or_insert(0);
        *times += 1;
        let drawn = mixed(what ^ mixed(*times));
        // The upper 32 bits decide whether, the lower ones what.
        let drawn_rate =
            f64::from(u32::try_from(drawn >> 32).unwrap_or(u32::MAX)) / 4_294_967_296.0;
        (drawn_rate < self.rate).then(|| action(drawn & 0xffff_ffff))
    }
}

/// The faults that a client must get over by asking again.
fn action(drawn: u64) -> Action {
    let answer = |status, code: &str, retry_after| Action::Answer {
        status,
        code: code.to_owned(),
        message: "The sandbox plays a fault at random.".to_owned(),
        retry_after,
    };
    match drawn % 8 {
        0 => answer(429, "TooManyRequests", Some(1)),
        1 => answer(503, "ServiceUnavailable", Some(1)),
        2 => answer(500, "InternalServerError", None),
        3 => answer(504, "GatewayTimeout", None),
        4 => Action::Reset,
        5 => Action::ReplyLost,
        6 => Action::Cut,
        _ => Action::Delay(100 + drawn % 400),
    }
}

/// The finaliser of `SplitMix64`.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: the standard library's hasher may change between releases, a seed's faults may not.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults_at_about_its_rate() {
        let draw = |seed| {
            let mut chance = Chance::new(0.1, seed);
            let mut met = Vec::new();
            for number in 0..2_000 {
                met.push(chance.meet("arm", "GET", &format!("/subscriptions/{}", number % 500)));
            }
            met
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let met = draw(7).into_iter().flatten().count();
        assert!((140..=260).contains(&met), "{met}");
    }

    #[test]
    fn the_ends_of_the_scale_are_none_and_all() {
        assert_eq!(Chance::new(0.0, 1).meet("arm", "GET", "/"), None);
        assert!(Chance::new(1.0, 1).meet("arm", "GET", "/").is_some());
    }
}
