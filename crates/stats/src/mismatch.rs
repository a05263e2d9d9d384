//! Sample-ratio mismatch: was the traffic spread over the arms as it was meant to be? If not, no comparison of the arms
//! means anything, so this is asked first.
//!
//! The multinomial test of Lindon & Malek (2022), with a Dirichlet mixture around the shares that were meant; it may be
//! asked after every request. Assumed: each request goes to an arm with these shares whatever the others did.

use crate::bernoulli::{BetaMixture, count};
use crate::error::{Error, check, positive};
use crate::evidence::{Evidence, Share};

/// Evidence that requests are not spread in these proportions. `counts` and `proportions` are by arm; `weight` is how
/// small a mismatch is looked for, as a number of requests beforehand: 100 is a good choice, 10,000 for one of a
/// percent in a million.
///
/// # Errors
/// Unless there are two arms or more, as many counts as proportions, and all proportions and the weight are finite and
/// above 0.
///
/// ```
/// # use toprope_stats::{Alpha, mismatch};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let alpha = Alpha::new(0.001)?;
/// assert!(!mismatch::differs(&[5_050, 4_950], &[0.5, 0.5], 100.0)?.rejects(alpha));
/// assert!(mismatch::differs(&[5_300, 4_700], &[0.5, 0.5], 100.0)?.rejects(alpha));
/// # Ok(())
/// # }
/// ```
pub fn differs(counts: &[u64], proportions: &[f64], weight: f64) -> Result<Evidence, Error> {
    let arms = count(counts.len() as u64);
    check(arms, "the number of arms", "as many as proportions, and 2 at least", |_| {
        counts.len() >= 2 && counts.len() == proportions.len()
    })?;
    for proportion in proportions {
        positive(*proportion, "a proportion")?;
    }
    positive(weight, "the weight")?;
    // A Dirichlet-multinomial is a chain of beta-binomials: this arm, or one of those after it.
    let whole = positive(proportions.iter().sum(), "the sum of the proportions")?;
    let mut ln = 0.0;
    let (mut counts_after, mut proportions_after) = (0.0, 0.0);
    for (arm, (n, proportion)) in counts.iter().zip(proportions).enumerate().rev() {
        let n = count(*n);
        if arm + 1 < counts.len() {
            let share = Share::new(proportion / (proportion + proportions_after))?;
            let mixture = BetaMixture::around(share, weight * ((proportion + proportions_after) / whole))?;
            ln += mixture.ln_real(n, counts_after, share.get());
        }
        counts_after += n;
        proportions_after += proportion;
    }
    Ok(Evidence::from_ln(ln))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Alpha;
    use crate::golden::golden;
    use crate::simulation::false_alarms;

    #[test]
    fn golden_values() {
        golden("mismatch", 1e-9, |x| {
            let (weight, rest) = x.split_first().unwrap();
            let (counts, proportions) = rest.split_at(rest.len() / 2);
            let counts: Vec<u64> = counts.iter().map(|n| *n as u64).collect();
            differs(&counts, proportions, *weight).unwrap().ln()
        });
    }

    #[test]
    fn looking_after_every_request_does_not_lie() {
        let alpha = Alpha::new(0.05).unwrap();
        let alarms = false_alarms(10_000, 200, |random, counts: &mut [u64; 3]| {
            let u = random.uniform();
            counts[usize::from(u > 0.6) + usize::from(u > 0.9)] += 1;
            differs(counts, &[6.0, 3.0, 1.0], 100.0).unwrap().rejects(alpha)
        });
        assert!(alarms <= 0.05, "{alarms}");
    }

    #[test]
    fn odd_arguments() {
        assert!(differs(&[], &[], 100.0).is_err());
        assert!(differs(&[1], &[1.0], 100.0).is_err());
        assert!(differs(&[1, 2], &[1.0], 100.0).is_err());
        assert!(differs(&[1, 2], &[1.0, 0.0], 100.0).is_err());
        assert!(differs(&[1, 2], &[1.0, f64::NAN], 100.0).is_err());
        assert!(differs(&[1, 2], &[f64::MAX, f64::MAX], 100.0).is_err());
        assert!(differs(&[1, 2], &[1.0, 1.0], 0.0).is_err());
        assert_eq!(differs(&[0, 0], &[1.0, 1.0], 100.0).unwrap().value(), 1.0);
        assert!(differs(&[u64::MAX, u64::MAX], &[1.0, 1.0], 100.0).unwrap().ln() < 0.0);
    }

    proptest::proptest! {
        #[test]
        fn the_order_of_the_arms_does_not_matter(a in 0..10_000u64, b in 0..10_000u64, c in 0..10_000u64) {
            let here = differs(&[a, b, c], &[1.0, 2.0, 3.0], 50.0).unwrap().ln();
            let there = differs(&[c, a, b], &[3.0, 1.0, 2.0], 50.0).unwrap().ln();
            proptest::prop_assert!((here - there).abs() < 1e-8 * here.abs().max(1.0), "{here} and {there}");
        }
    }
}
