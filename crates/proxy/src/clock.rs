//! Time as the proxy counts it: nanoseconds of `CLOCK_MONOTONIC`.
//!
//! `std::time::Instant` reads the same clock but hides the number, and an absolute timerfd needs the number.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A point in time on `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Before every other moment.
    pub const START: Moment = Moment(0);

    /// After every other moment: what is due then is held until the rules change.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// The present.
    pub fn now() -> Moment {
        let time = clock_gettime(ClockId::Monotonic);
        // The monotonic clock starts at zero when the machine boots: neither part is ever negative.
        Moment(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// The moment `delay` later, [`Moment::NEVER`] where that is beyond what can be counted (584 years).
    #[must_use]
    pub fn after(self, delay: Duration) -> Moment {
        Moment(self.0.saturating_add(nanoseconds(delay)))
    }

    /// The time that passed from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// As the kernel wants it.
    pub(crate) fn timespec(self) -> Timespec {
        Timespec { tv_sec: (self.0 / 1_000_000_000) as i64, tv_nsec: (self.0 % 1_000_000_000) as _ }
    }
}

/// A duration in whole nanoseconds, at most `u64::MAX`.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_add_subtract_and_saturate() {
        let now = Moment::now();
        let later = now.after(Duration::from_micros(1500));
        assert_eq!(later.since(now), Duration::from_micros(1500));
        assert_eq!(now.since(later), Duration::ZERO);
        assert_eq!(now.after(Duration::MAX), Moment::NEVER);
        assert_eq!(Moment::NEVER.after(Duration::from_secs(1)), Moment::NEVER);
        assert!(Moment::START < now && now < Moment::NEVER);
    }

    #[test]
    fn a_timespec_holds_seconds_and_the_rest() {
        let time = Moment::START.after(Duration::new(3, 25)).timespec();
        assert_eq!((time.tv_sec, time.tv_nsec), (3, 25));
    }
}
