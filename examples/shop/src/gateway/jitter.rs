//! Randomness that needs no generator: enough to keep retries apart and to name orders.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// 64 bits that differ between processes, threads and calls: a fresh `RandomState` has keys of its own.
pub(super) fn bits() -> u64 {
    RandomState::new().hash_one(())
}

/// A duration from `least` to `most`.
pub(super) fn between(least: Duration, most: Duration) -> Duration {
    let share = (bits() >> 11) as f64 / (1u64 << 53) as f64;
    least + most.saturating_sub(least).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_spread_over_the_range() {
        let (least, most) = (Duration::from_millis(50), Duration::from_millis(150));
        let drawn: Vec<_> = (0..1000).map(|_| between(least, most)).collect();
        assert!(drawn.iter().all(|d| (least..=most).contains(d)));
        assert!(drawn.iter().any(|d| *d < Duration::from_millis(75)));
        assert!(drawn.iter().any(|d| *d > Duration::from_millis(125)));
    }
}
