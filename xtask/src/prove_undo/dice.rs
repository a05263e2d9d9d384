//! What is left to chance in a round, from its seed alone.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Chance that can be repeated.
#[derive(Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// The chance of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A time below a limit.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.0.random_range(0.0..1.0))
    }

    /// One of several.
    pub(crate) fn one_of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.0.random_range(0..all.len())]
    }

    /// Yes in one of so many cases.
    pub(crate) fn once_in(&mut self, cases: u32) -> bool {
        self.0.random_range(0..cases) == 0
    }

    /// A seed.
    pub(crate) fn seed(&mut self) -> u64 {
        self.0.random_range(0..1 << 52)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_what_chance_did() {
        let play = |seed| {
            let mut dice = Dice::of(seed);
            (dice.below(Duration::from_secs(1)), *dice.one_of(&[1, 2, 3, 4, 5]), dice.once_in(2), dice.seed())
        };
        assert_eq!(play(7), play(7));
        assert_ne!(play(7), play(8));
    }
}
