//! Wilson's interval for a share: for reports of what was seen in a number of samples that was fixed beforehand.
//!
//! Wilson (1927), without a continuity correction. It is narrower than the confidence sequence of
//! [`bernoulli`](crate::bernoulli), and wrong more often than it says if one stops when it looks good: it describes, and
//! is not to decide. Its coverage is `1 - alpha` on average over the shares, for few samples not at each (Brown, Cai &
//! DasGupta 2001).

use crate::bernoulli::count;
use crate::evidence::Alpha;
use crate::interval::Interval;
use crate::normal;

/// The interval for the share of hits; 0 to 1 without samples. Hits beyond `all` count as `all`.
///
/// ```
/// use toprope_stats::{Alpha, wilson};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let interval = wilson::interval(3, 100, Alpha::new(0.05)?);
/// assert!((interval.low - 0.0103).abs() < 1e-4 && (interval.high - 0.0845).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
pub fn interval(hits: u64, all: u64, alpha: Alpha) -> Interval {
    if all == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, share) = (count(all), count(hits.min(all)) / count(all));
    let z = -normal::quantile(alpha.get() / 2.0);
    let z2 = z * z / n;
    let centre = share + z2 / 2.0;
    let radius = (share * (1.0 - share) * z2 + z2 * z2 / 4.0).sqrt();
    let end = |v: f64| (v / (1.0 + z2)).clamp(0.0, 1.0);
    // At the ends rounding must not move what is exact.
    Interval {
        low: if hits == 0 { 0.0 } else { end(centre - radius) },
        high: if hits >= all { 1.0 } else { end(centre + radius) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    #[test]
    fn golden_values() {
        let at = |x: &[f64]| interval(x[0] as u64, x[1] as u64, Alpha::new(x[2]).unwrap());
        golden("statsmodels wilson low", 1e-12, |x| at(x).low);
        golden("statsmodels wilson high", 1e-12, |x| at(x).high);
    }

    #[test]
    fn odd_counts() {
        let alpha = Alpha::new(0.01).unwrap();
        assert_eq!(interval(0, 0, alpha), Interval { low: 0.0, high: 1.0 });
        assert_eq!(interval(9, 5, alpha), interval(5, 5, alpha));
        assert_eq!((interval(0, 5, alpha).low, interval(5, 5, alpha).high), (0.0, 1.0));
        let tiny = interval(1, 1_000_000_000_000, Alpha::new(f64::MIN_POSITIVE).unwrap());
        assert!(tiny.low > 0.0 && tiny.high < 1e-8, "{tiny:?}");
    }

    proptest::proptest! {
        #[test]
        fn it_holds_the_share_and_narrows(hits in 0..1000u64, misses in 0..1000u64, level in 0.0001..0.9f64) {
            let (all, alpha) = (hits + misses, Alpha::new(level).unwrap());
            let here = interval(hits, all, alpha);
            proptest::prop_assert!(all == 0 || here.contains(hits as f64 / all as f64), "{here:?}");
            let more = interval(hits * 4, all * 4, alpha);
            proptest::prop_assert!(more.high - more.low <= here.high - here.low);
        }
    }
}
