//! The shape of a flow: what its rules together do to the time at which bytes leave, and what that takes to buffer.

use std::time::Duration;

use crate::clock::{Moment, nanoseconds};
use crate::rules::Shaper;

/// The most that is read from a socket at once, in bytes.
pub(crate) const READ: usize = 64 * 1024;

/// The bounds of what a flow buffers, in bytes, whatever its rules.
const BUFFER: std::ops::RangeInclusive<u128> = 1024..=8 * 1024 * 1024;

/// The rate that a flow may reach before its buffer limits it, in bytes per second: 8 Gbit/s.
const FULL_SPEED: u64 = 1_000_000_000;

/// Time that every flow is given room for at its rate: makes `READ` bytes at full speed.
const PASSING: u64 = 65_536;

/// The chain of one flow's shapers.
pub(crate) struct Shape {
    shapers: Vec<Box<dyn Shaper>>,
    last: Option<Moment>,
    quantum: usize,
    bound: usize,
}

impl Shape {
    pub(crate) fn new(shapers: Vec<Box<dyn Shaper>>) -> Shape {
        let rate = shapers.iter().map(|shaper| shaper.rate()).min().unwrap_or(u64::MAX);
        let held = shapers.iter().fold(Duration::ZERO, |sum, shaper| sum.saturating_add(shaper.holds()));
        let time = u128::from(nanoseconds(held).saturating_add(PASSING));
        let bound = u128::from(rate.min(FULL_SPEED)) * time / 1_000_000_000;
        Shape {
            shapers,
            last: None,
            quantum: usize::try_from(rate / 2_000).unwrap_or(READ).clamp(1, READ),
            bound: bound.clamp(*BUFFER.start(), *BUFFER.end()) as usize,
        }
    }

    /// Whether everything passes untouched.
    pub(crate) fn is_pass(&self) -> bool {
        self.shapers.is_empty()
    }

    /// When a piece that arrived at `arrived` may leave, never before the piece in front of it.
    pub(crate) fn due(&mut self, arrived: Moment, len: usize) -> Moment {
        let mut at = arrived;
        for shaper in &mut self.shapers {
            if at == Moment::NEVER {
                break;
            }
            at = shaper.leaves(at, len).max(at);
        }
        self.not_before_the_last(at)
    }

    /// As [`Shape::due`] for a piece that waits already: it leaves when it would have, or earlier.
    pub(crate) fn due_again(&mut self, arrived: Moment, len: usize, due: Moment) -> Moment {
        let last = self.last;
        let again = self.due(arrived, len).min(due);
        self.last = last;
        self.not_before_the_last(again)
    }

    fn not_before_the_last(&mut self, at: Moment) -> Moment {
        let at = self.last.map_or(at, |last| last.max(at));
        self.last = Some(at);
        at
    }

    /// The largest piece that may leave as one, in bytes: half a millisecond of the rate.
    pub(crate) fn quantum(&self) -> usize {
        self.quantum
    }

    /// How much the flow may buffer, in bytes.
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Bandwidth, Blackhole, Direction, Latency, Rules, Way};

    fn shape(rules: Rules) -> Shape {
        rules.shape(0, Way::Up, 0, Moment::now())
    }

    fn of(rule: impl crate::rules::Rule) -> Shape {
        shape(Rules::pass().add(Direction::Up, rule))
    }

    #[test]
    fn the_buffer_follows_what_the_rules_hold() {
        let ms = Duration::from_millis;
        assert_eq!(shape(Rules::pass()).bound(), 65_536);
        assert_eq!(of(Blackhole).bound(), 65_536);
        assert_eq!(of(Latency::new(ms(1))).bound(), 1_065_536);
        assert_eq!(of(Latency::new(ms(200))).bound(), 8 * 1024 * 1024);
        assert_eq!(of(Latency::new(Duration::MAX)).bound(), 8 * 1024 * 1024);
        assert_eq!(of(Bandwidth::bytes_per_second(1_000_000)).bound(), 50_065);
        assert_eq!(of(Bandwidth::bytes_per_second(0)).bound(), 1024);
        let both = Rules::pass().add(Direction::Up, Latency::new(ms(200)));
        let both = shape(both.add(Direction::Up, Bandwidth::bytes_per_second(1_000_000)));
        assert_eq!(both.bound(), 250_065, "a narrow link behind a delay reads no further ahead than it can send");
    }

    #[test]
    fn pieces_are_half_a_millisecond_of_the_rate() {
        assert_eq!(shape(Rules::pass()).quantum(), READ);
        assert_eq!(of(Bandwidth::bytes_per_second(1_000_000)).quantum(), 500);
        assert_eq!(of(Bandwidth::bytes_per_second(10)).quantum(), 1);
    }

    #[test]
    fn jitter_does_not_reorder() {
        let latency = Latency::new(Duration::from_millis(5)).jitter(Duration::from_millis(5));
        let mut shape = of(latency);
        let now = Moment::now();
        let due: Vec<_> = (0..1_000).map(|n| shape.due(now.after(Duration::from_micros(n * 100)), 10)).collect();
        assert!(due.is_sorted());
    }
}
