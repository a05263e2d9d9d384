//! Bandwidth: a narrow link.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::{Rule, Shaper};
use crate::clock::Moment;

/// Lets so many bytes per second pass, in each direction that it covers and for each connection by itself.
///
/// A piece leaves when a link of this rate would have carried its last bit, so there is no burst at the start nor after
/// a pause. Pieces are half a millisecond of the rate long: 50 ms of a busy stream are within 1 % of the rate
/// from 2,000 bytes per second upwards, as far as the machine wakes the proxy in time; a late wake-up is made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    rate: u64,
}

impl Bandwidth {
    /// A link of this many bytes per second; zero lets nothing through.
    pub fn bytes_per_second(rate: u64) -> Bandwidth {
        Bandwidth { rate }
    }
}

impl Rule for Bandwidth {
    fn shaper(&self, now: Moment, _: ChaCha8Rng) -> Option<Box<dyn Shaper>> {
        Some(Box::new(Link { rate: self.rate, free: now }))
    }
}

struct Link {
    rate: u64,
    /// When the link has carried all that was given to it.
    free: Moment,
}

impl Shaper for Link {
    fn leaves(&mut self, at: Moment, len: usize) -> Moment {
        if self.rate == 0 {
            return Moment::NEVER;
        }
        // A moment before `free` was set, too, begins there: a new rule gives no credit for the past.
        let begins = self.free.max(at);
        let nanoseconds = (len as u128 * 1_000_000_000).div_ceil(u128::from(self.rate));
        self.free = begins.after(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)));
        self.free
    }

    fn holds(&self) -> Duration {
        // So much is read ahead, with its deadlines set: a proxy that is woken late by less loses nothing of the rate.
        Duration::from_millis(50)
    }

    fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn link(rate: u64, now: Moment) -> Box<dyn Shaper> {
        Bandwidth::bytes_per_second(rate).shaper(now, ChaCha8Rng::seed_from_u64(1)).expect("bandwidth shapes")
    }

    #[test]
    fn bytes_leave_at_the_rate_without_a_burst() {
        let now = Moment::now();
        let mut link = link(1_000_000, now);
        let pieces: Vec<_> = (0..100).map(|_| link.leaves(now, 500).since(now)).collect();
        assert_eq!(pieces[0], Duration::from_micros(500));
        assert_eq!(pieces[99], Duration::from_millis(50));
        let later = now.after(Duration::from_secs(9));
        assert_eq!(link.leaves(later, 500).since(later), Duration::from_micros(500), "a pause earns no credit");
    }

    #[test]
    fn what_arrived_before_the_rule_begins_with_the_rule() {
        let now = Moment::now().after(Duration::from_secs(1));
        assert_eq!(link(1_000, now).leaves(Moment::START, 10).since(now), Duration::from_millis(10));
    }

    #[test]
    fn a_rate_of_zero_holds_and_a_slow_rate_does_not_overflow() {
        let now = Moment::now();
        assert_eq!(link(0, now).leaves(now, 1), Moment::NEVER);
        assert_eq!(link(1, now).leaves(now, 3).since(now), Duration::from_secs(3));
        assert_eq!(link(1, now).leaves(now, usize::MAX), Moment::NEVER);
    }
}
