//! Many metrics, many runs: evidence put together.
//!
//! - The same hypothesis, seen in several ways that may depend on one another (the same requests by latency and by
//!   status): [`average`].
//! - The same hypothesis, in runs one after the other, or independent ones: [`product`].
//! - Many hypotheses (50 metrics): which of them to reject, such that at most the share `alpha` of those rejected is
//!   wrong on average, whatever depends on what: [`e_bh`].
//!
//! Vovk & Wang (2021), "E-values: calibration, combination and applications"; Wang & Ramdas (2022), "False discovery rate
//! control with e-values".

use crate::bernoulli::count;
use crate::evidence::{Alpha, Evidence};

/// The average: evidence against one hypothesis, valid under any dependence. None of nothing.
pub fn average(all: &[Evidence]) -> Evidence {
    let most = all.iter().map(|e| e.ln()).fold(f64::NEG_INFINITY, f64::max);
    if all.is_empty() {
        return Evidence::NONE;
    }
    if most.is_infinite() {
        return Evidence::from_ln(most);
    }
    let sum: f64 = all.iter().map(|e| (e.ln() - most).exp()).sum();
    Evidence::from_ln(most + (sum / count(all.len() as u64)).ln())
}

/// The product: evidence against one hypothesis, where each was gathered independently of those before, or after them.
/// None of nothing; where one is 0, it is 0.
pub fn product(all: &[Evidence]) -> Evidence {
    // 0 times infinity is NaN, which is no evidence.
    Evidence::from_ln(all.iter().map(|e| e.ln()).sum())
}

/// Which hypotheses to reject, for each of them: e-BH. The evidence of each must be final, or that of one and the same
/// moment: what is rejected now may, unlike with a single e-process, not be tomorrow.
///
/// ```
/// use toprope_stats::{Alpha, Evidence, combine::e_bh};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let metrics = [500.0, 0.2, 60.0, 3.0].map(|e: f64| Evidence::from_ln(e.ln()));
/// // Alone, the third would not do with 4 metrics (80 are needed); beside the first, 40 are enough.
/// assert_eq!(e_bh(&metrics, Alpha::new(0.05)?), [true, false, true, false]);
/// # Ok(())
/// # }
/// ```
pub fn e_bh(all: &[Evidence], alpha: Alpha) -> Vec<bool> {
    let mut sorted: Vec<f64> = all.iter().map(|e| e.ln()).collect();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let needed = |k: usize| alpha.enough() + (count(all.len() as u64) / count(k as u64)).ln();
    // The most that can be rejected, each with as much evidence as that many need.
    let least = (1..=sorted.len()).rev().map(|k| (sorted[k - 1], needed(k))).find(|(ln, needed)| ln >= needed);
    all.iter().map(|e| least.is_some_and(|(ln, _)| e.ln() >= ln)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bernoulli::BetaMixture;
    use crate::evidence::Share;
    use crate::golden::golden;
    use crate::simulation::Random;

    fn evidence(e: &[f64]) -> Vec<Evidence> {
        e.iter().map(|e| Evidence::from_ln(e.ln())).collect()
    }

    #[test]
    fn golden_values() {
        golden("ville mean", 1e-12, |e| average(&evidence(e)).value());
        golden("ville product", 1e-12, |e| product(&evidence(e)).value());
        // The index that is asked about, alpha, the e-values.
        golden("ville e-bh", 0.0, |x| {
            let rejected = e_bh(&evidence(&x[2..]), Alpha::new(x[1]).unwrap());
            f64::from(u8::from(rejected[x[0] as usize]))
        });
    }

    #[test]
    fn nothing_and_extremes() {
        let alpha = Alpha::new(0.05).unwrap();
        assert_eq!((average(&[]), product(&[])), (Evidence::NONE, Evidence::NONE));
        assert!(e_bh(&[], alpha).is_empty());
        let (zero, all) = (Evidence::from_ln(f64::NEG_INFINITY), Evidence::from_ln(f64::INFINITY));
        assert_eq!((average(&[zero, zero]), average(&[zero, all]), product(&[zero, all])), (zero, all, zero));
        assert_eq!(e_bh(&[zero, all, Evidence::NONE], alpha), [false, true, false]);
        let large = Evidence::from_ln(1e5);
        assert!((average(&[large, large]).ln() - 1e5).abs() < 1e-9);
    }

    #[test]
    fn few_of_the_rejected_are_rejected_wrongly() {
        // 20 metrics of the same requests, hence dependent; 10 of them are 10 times as bad as they may be.
        let (alpha, p) = (Alpha::new(0.05).unwrap(), Share::new(0.02).unwrap());
        let mut random = Random(3);
        let (runs, mut wrong_shares, mut found) = (10_000, 0.0, 0);
        for _ in 0..runs {
            let mut bad = [0u64; 20];
            for _ in 0..60 {
                let u = random.uniform();
                for (metric, bad) in bad.iter_mut().enumerate() {
                    let rotated = (u + metric as f64 / 40.0).fract();
                    *bad += u64::from(rotated < if metric < 10 { p.get() } else { 10.0 * p.get() });
                }
            }
            let all = bad.map(|bad| BetaMixture::UNIFORM.above(bad, 60 - bad, p));
            let rejected = e_bh(&all, alpha);
            let wrong = rejected[..10].iter().filter(|r| **r).count();
            let total = rejected.iter().filter(|r| **r).count();
            wrong_shares += wrong as f64 / total.max(1) as f64;
            found += total - wrong;
        }
        assert!(wrong_shares / f64::from(runs) <= 0.05);
        assert!(found as f64 / f64::from(runs) > 7.0, "of 10 were found {}", found as f64 / f64::from(runs));
    }

    proptest::proptest! {
        #[test]
        fn more_evidence_never_rejects_less(e in proptest::collection::vec(0.01..1e4f64, 1..20), more in 1.0..100.0f64) {
            let alpha = Alpha::new(0.05).unwrap();
            let before = e_bh(&evidence(&e), alpha);
            let mut e = e;
            e[0] *= more;
            for (after, before) in e_bh(&evidence(&e), alpha).into_iter().zip(before) {
                proptest::prop_assert!(after || !before);
            }
        }
    }
}
