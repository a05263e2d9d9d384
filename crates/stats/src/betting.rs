//! A mean of numbers within known bounds, by betting: no assumption about how they are spread.
//!
//! Waudby-Smith & Ramdas (2024), "Estimating means of bounded random variables by betting". One bets, before each number,
//! on its being above (or below) the mean in question; if that is the mean, the bets are fair, and the capital is an
//! e-process. How much is staked follows the variance seen so far. The interval is their predictable plug-in empirical
//! Bernstein confidence sequence (theorem 2), which needs no grid of candidate means.
//!
//! Assumed: the mean of the next number, whatever came before, is the one in question (for [`Betting::above`]: at most;
//! for [`Betting::below`]: at least), and all numbers are within the bounds. For latencies the time-out is the upper bound.

use crate::bernoulli::count;
use crate::error::{Error, check, finite};
use crate::evidence::{Alpha, Evidence};
use crate::interval::Interval;

/// Bets are cut such that no number takes more than this part of the capital.
const CUT: f64 = 0.5;

/// Estimates from what came before, on numbers scaled to 0..=1.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Before {
    samples: u64,
    sum: f64,
    squares: f64,
    ln_2_alpha: f64,
}

impl Before {
    fn new(alpha: Alpha) -> Self {
        Self { samples: 0, sum: 0.5, squares: 0.25, ln_2_alpha: std::f64::consts::LN_2 + alpha.enough() }
    }

    fn mean(&self) -> f64 {
        self.sum / count(self.samples + 1)
    }

    /// The stake on the next number, before it is cut.
    fn stake(&self) -> f64 {
        let next = count(self.samples + 1);
        let variance = self.squares / next;
        (2.0 * self.ln_2_alpha / (variance * next * next.ln_1p())).sqrt()
    }

    fn push(&mut self, x: f64) {
        self.samples += 1;
        self.sum += x;
        let mean = self.mean();
        self.squares += (x - mean) * (x - mean);
    }
}

/// The bounds that all numbers are within.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bounds {
    low: f64,
    width: f64,
}

impl Bounds {
    fn new(bounds: Interval) -> Result<Self, Error> {
        let low = finite(bounds.low, "the lower bound")?;
        let width = finite(bounds.high, "the upper bound")? - low;
        check(width, "the width of the bounds", "finite and above 0", |v| v > 0.0 && v.is_finite())?;
        Ok(Self { low, width })
    }

    fn scale(self, value: f64) -> Result<f64, Error> {
        let inside = |v: f64| v >= self.low && v <= self.low + self.width;
        let value = check(value, "a sample", "within the bounds that were given", inside)?;
        Ok(((value - self.low) / self.width).clamp(0.0, 1.0))
    }
}

/// A bet on the mean of bounded numbers.
///
/// ```
/// use toprope_stats::{Alpha, Interval, betting::Betting};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let alpha = Alpha::new(0.01)?;
/// // Is the mean latency above 100 ms? The time-out is 1000 ms.
/// let mut bet = Betting::new(Interval { low: 0.0, high: 1000.0 }, 100.0, alpha)?;
/// for latency in [90.0, 220.0, 180.0, 310.0].into_iter().cycle().take(60) {
///     bet.push(latency)?;
/// }
/// assert!(bet.above().rejects(alpha));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Betting {
    bounds: Bounds,
    /// The mean in question, scaled.
    mean: f64,
    before: Before,
    ln_above: f64,
    ln_below: f64,
}

impl Betting {
    /// A bet on the mean's not being `mean`, for numbers within `bounds`. `alpha` decides how much is staked.
    ///
    /// # Errors
    /// Unless the bounds are finite and ordered, and `mean` is strictly within them.
    pub fn new(bounds: Interval, mean: f64, alpha: Alpha) -> Result<Self, Error> {
        let bounds = Bounds::new(bounds)?;
        let mean = (mean - bounds.low) / bounds.width;
        check(mean, "the mean in question, as a part of the bounds,", "above 0 and below 1", |v| v > 0.0 && v < 1.0)?;
        Ok(Self { bounds, mean, before: Before::new(alpha), ln_above: 0.0, ln_below: 0.0 })
    }

    /// Takes a number in.
    ///
    /// # Errors
    /// If it is not within the bounds; then nothing changes.
    pub fn push(&mut self, value: f64) -> Result<(), Error> {
        let x = self.bounds.scale(value)?;
        let stake = self.before.stake();
        self.ln_above += (stake.min(CUT / self.mean) * (x - self.mean)).ln_1p();
        self.ln_below += (stake.min(CUT / (1.0 - self.mean)) * (self.mean - x)).ln_1p();
        self.before.push(x);
        Ok(())
    }

    /// Evidence that the true mean is above the one in question.
    pub const fn above(&self) -> Evidence {
        Evidence::from_ln(self.ln_above)
    }

    /// Evidence that the true mean is below the one in question.
    pub const fn below(&self) -> Evidence {
        Evidence::from_ln(self.ln_below)
    }

    /// Evidence that the true mean is not the one in question: half of the capital was bet on each side.
    pub fn differs(&self) -> Evidence {
        let (most, least) = (self.ln_above.max(self.ln_below), self.ln_above.min(self.ln_below));
        Evidence::from_ln(most + (least - most).exp().ln_1p() - std::f64::consts::LN_2)
    }
}

/// The confidence sequence for the mean of bounded numbers.
///
/// ```
/// use toprope_stats::{Alpha, Interval, betting::BoundedMean};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let mut mean = BoundedMean::new(Interval { low: 0.0, high: 1.0 }, Alpha::new(0.05)?)?;
/// for n in 0..500 {
///     mean.push(if n % 4 == 0 { 1.0 } else { 0.0 })?;
/// }
/// let interval = mean.interval();
/// assert!(interval.contains(0.25) && interval.high - interval.low < 0.2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundedMean {
    bounds: Bounds,
    before: Before,
    stakes: f64,
    staked: f64,
    penalty: f64,
    /// What all intervals so far have in common, scaled.
    interval: Interval,
}

impl BoundedMean {
    /// For numbers within `bounds`.
    ///
    /// # Errors
    /// Unless the bounds are finite and ordered.
    pub fn new(bounds: Interval, alpha: Alpha) -> Result<Self, Error> {
        let interval = Interval { low: 0.0, high: 1.0 };
        let bounds = Bounds::new(bounds)?;
        Ok(Self { bounds, before: Before::new(alpha), stakes: 0.0, staked: 0.0, penalty: 0.0, interval })
    }

    /// Takes a number in.
    ///
    /// # Errors
    /// If it is not within the bounds; then nothing changes.
    pub fn push(&mut self, value: f64) -> Result<(), Error> {
        let x = self.bounds.scale(value)?;
        let stake = self.before.stake().min(CUT);
        let deviation = x - self.before.mean();
        self.stakes += stake;
        self.staked += stake * x;
        // 4 (x - mean)² times ψ(stake) = (-ln(1 - stake) - stake) / 4.
        self.penalty += deviation * deviation * (-(-stake).ln_1p() - stake);
        self.before.push(x);
        let centre = self.staked / self.stakes;
        let radius = (self.before.ln_2_alpha + self.penalty) / self.stakes;
        self.interval = self.interval.intersect(Interval { low: centre - radius, high: centre + radius });
        Ok(())
    }

    /// What holds the true mean, at all times at once.
    pub fn interval(&self) -> Interval {
        let unscale = |v: f64| self.bounds.low + v * self.bounds.width;
        Interval { low: unscale(self.interval.low), high: unscale(self.interval.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::{Random, false_alarms};

    const UNIT: Interval = Interval { low: 0.0, high: 1.0 };

    fn alpha(alpha: f64) -> Alpha {
        Alpha::new(alpha).unwrap()
    }

    fn bet(x: &[f64]) -> Betting {
        let mut bet = Betting::new(Interval { low: x[0], high: x[1] }, x[2], alpha(x[3])).unwrap();
        x[4..].iter().for_each(|v| bet.push(*v).unwrap());
        bet
    }

    fn mean(x: &[f64]) -> Interval {
        let mut mean = BoundedMean::new(Interval { low: x[0], high: x[1] }, alpha(x[2])).unwrap();
        x[3..].iter().for_each(|v| mean.push(*v).unwrap());
        mean.interval()
    }

    #[test]
    fn golden_values() {
        golden("ville betting greater", 1e-10, |x| bet(x).above().ln());
        golden("ville betting less", 1e-10, |x| bet(x).below().ln());
        golden("ville betting two-sided", 1e-10, |x| bet(x).differs().ln());
        golden("ville empirical bernstein low", 1e-10, |x| mean(x).low);
        golden("ville empirical bernstein high", 1e-10, |x| mean(x).high);
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        // Most numbers are small and few are large, as latencies are: the mean is 0.1.
        let sample =
            |random: &mut Random| if random.uniform() < 0.1 { random.uniform() } else { random.uniform() / 9.0 };
        #[derive(Default)]
        struct State(Option<Betting>, Option<BoundedMean>);
        let alarms = |test: fn(&Betting) -> Evidence| {
            false_alarms(10_000, 300, |random, State(state, _): &mut State| {
                let bet = state.get_or_insert_with(|| Betting::new(UNIT, 0.1, alpha(0.05)).unwrap());
                bet.push(sample(random)).unwrap();
                test(bet).rejects(alpha(0.05))
            })
        };
        assert!(alarms(Betting::above) <= 0.05);
        assert!(alarms(Betting::below) <= 0.05);
        assert!(alarms(Betting::differs) <= 0.05);
        let missed = false_alarms(10_000, 300, |random, State(_, state): &mut State| {
            let mean = state.get_or_insert_with(|| BoundedMean::new(UNIT, alpha(0.05)).unwrap());
            mean.push(sample(random)).unwrap();
            !mean.interval().contains(0.1)
        });
        assert!(missed <= 0.05, "{missed}");
    }

    #[test]
    fn equal_numbers_are_no_trouble() {
        for value in [0.0, 0.3, 1.0] {
            let x: Vec<f64> = [0.0, 1.0, 0.3, 0.01].into_iter().chain(std::iter::repeat_n(value, 10_000)).collect();
            let found = bet(&x);
            assert_eq!(found.differs().rejects(alpha(0.01)), value != 0.3, "{value}: {found:?}");
            let interval = mean(&[&[0.0, 1.0, 0.01], &x[4..]].concat());
            assert!(interval.contains(value) && interval.high - interval.low < 0.1, "{value}: {interval:?}");
        }
    }

    #[test]
    fn odd_arguments() {
        for bounds in [(1.0, 0.0), (0.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (f64::MIN, f64::MAX)] {
            let bounds = Interval { low: bounds.0, high: bounds.1 };
            assert!(Betting::new(bounds, 0.5, alpha(0.05)).is_err(), "{bounds:?}");
            assert!(BoundedMean::new(bounds, alpha(0.05)).is_err(), "{bounds:?}");
        }
        for mean in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(Betting::new(UNIT, mean, alpha(0.05)).is_err(), "{mean}");
        }
        let mut bet = Betting::new(UNIT, 0.5, alpha(0.05)).unwrap();
        let before = bet;
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(bet.push(bad).is_err());
        }
        assert_eq!(bet, before);
        assert_eq!(BoundedMean::new(UNIT, alpha(0.05)).unwrap().interval(), UNIT);
    }
}
