//! Latency: bytes arrive later, and no fewer of them per second.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Rule, Shaper};
use crate::clock::{Moment, nanoseconds};

/// Delays what passes, without making a rate limit of it: every chunk has a deadline of its own, so any number of them
/// are under way at once.
///
/// The end of the stream is delayed like its bytes; the TCP handshake is not, because the kernel answers it before the
/// proxy hears of the connection. Per direction: a request and its answer under [`Direction::Both`](super::Direction::Both)
/// take twice the delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    delay: Duration,
    jitter: Duration,
}

impl Latency {
    /// A constant delay.
    pub fn new(delay: Duration) -> Latency {
        Latency { delay, jitter: Duration::ZERO }
    }

    /// Draws the delay of each chunk uniformly from `delay - jitter` (at least zero) to `delay + jitter`.
    ///
    /// A stream keeps its order, so a chunk waits for the one in front of it: where chunks follow each other more
    /// closely than the jitter, delays lean towards the longer ones.
    #[must_use]
    pub fn jitter(self, jitter: Duration) -> Latency {
        Latency { jitter, ..self }
    }
}

impl Rule for Latency {
    fn shaper(&self, _: Moment, random: ChaCha8Rng) -> Option<Box<dyn Shaper>> {
        // A generator is some 300 bytes for each flow: kept only where it is drawn from.
        Some(if self.jitter.is_zero() { Box::new(Constant(self.delay)) } else { Box::new(Varying(*self, random)) })
    }
}

struct Constant(Duration);

impl Shaper for Constant {
    fn leaves(&mut self, at: Moment, _: usize) -> Moment {
        at.after(self.0)
    }

    fn holds(&self) -> Duration {
        self.0
    }
}

struct Varying(Latency, ChaCha8Rng);

impl Shaper for Varying {
    fn leaves(&mut self, at: Moment, _: usize) -> Moment {
        let Varying(Latency { delay, jitter }, random) = self;
        let drawn = random.random_range(0..=nanoseconds(jitter.saturating_mul(2)));
        at.after(delay.saturating_add(Duration::from_nanos(drawn)).saturating_sub(*jitter))
    }

    fn holds(&self) -> Duration {
        self.0.delay.saturating_add(self.0.jitter)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn delays(latency: Latency, seed: u64) -> Vec<u64> {
        let now = Moment::now();
        let mut shaper = latency.shaper(now, ChaCha8Rng::seed_from_u64(seed)).expect("latency shapes");
        (0..20_000).map(|_| nanoseconds(shaper.leaves(now, 10).since(now)) / 1_000).collect()
    }

    #[test]
    fn jitter_is_uniform_and_replays() {
        let latency = Latency::new(Duration::from_millis(50)).jitter(Duration::from_millis(10));
        let drawn = delays(latency, 1);
        assert!(drawn.iter().all(|micros| (40_000..=60_000).contains(micros)));
        for tenth in 0..10 {
            let (from, to) = (40_000 + tenth * 2_000, 42_000 + tenth * 2_000);
            let share = drawn.iter().filter(|micros| (from..to).contains(*micros)).count();
            // 2,000 expected, standard deviation 42.
            assert!((1_750..2_250).contains(&share), "{share} of 20,000 in {from}..{to} us");
        }
        assert_eq!(drawn, delays(latency, 1));
        assert_ne!(drawn, delays(latency, 2));
    }

    #[test]
    fn a_delay_is_never_negative_and_never_overflows() {
        let drawn = delays(Latency::new(Duration::from_millis(1)).jitter(Duration::from_millis(4)), 1);
        assert!(drawn.contains(&0) && drawn.iter().all(|micros| *micros <= 5_000));
        assert_eq!(delays(Latency::new(Duration::from_millis(3)), 1)[7], 3_000);
        let forever = Latency::new(Duration::MAX).jitter(Duration::MAX);
        let mut shaper = forever.shaper(Moment::now(), ChaCha8Rng::seed_from_u64(1)).expect("latency shapes");
        shaper.leaves(Moment::now(), 1);
        assert_eq!(shaper.holds(), Duration::MAX);
    }
}
