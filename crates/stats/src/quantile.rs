//! Quantiles of samples, by nearest rank.

/// The `q`-quantile of samples by nearest rank: the smallest sample that at least the share `q` of all samples does
/// not exceed (Hyndman & Fan 1996, definition 1). It is always one of the samples; `q = 1` is the largest, and so is
/// every `q` that fewer than `1 / (1 - q)` samples cannot tell from the largest.
///
/// Reorders `samples`; takes linear time. `None` for no samples. `q` is clamped to 0..=1.
///
/// ```
/// let mut samples = [30.0, 10.0, 20.0, 40.0];
/// assert_eq!(toprope_stats::quantile(&mut samples, 0.5), Some(20.0));
/// assert_eq!(toprope_stats::quantile(&mut samples, 0.99), Some(40.0));
/// ```
pub fn quantile(samples: &mut [f64], q: f64) -> Option<f64> {
    let rank = rank(samples.len() as u64, q);
    let index = usize::try_from(rank.checked_sub(1)?).ok()?;
    let (_, value, _) = samples.select_nth_unstable_by(index, f64::total_cmp);
    Some(*value)
}

/// The rank, from 1, of the `q`-quantile among `n` samples; 0 for no samples.
pub(crate) fn rank(n: u64, q: f64) -> u64 {
    if n == 0 {
        return 0;
    }
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 samples a rank may be off by one")]
    let exact = q.clamp(0.0, 1.0) * n as f64;
    // 0.99 * 100 is 99.00000000000001 for no reason that a user could see.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and n")]
    let rank = (exact * (1.0 - 8.0 * f64::EPSILON)).ceil() as u64;
    rank.clamp(1, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_sample_and_enough_samples_do_not_exceed_it() {
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (q, value) in [(0.0, 1.0), (0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0)] {
            assert_eq!(quantile(&mut hundred, q), Some(value), "{q}");
        }
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [7.0], 0.01), Some(7.0));
    }

    #[test]
    fn ranks_do_not_suffer_from_binary_fractions() {
        for (n, q, wanted) in [
            (100, 0.99, 99),
            (1000, 0.999, 999),
            (10, 0.9, 9),
            (20, 0.95, 19),
            (1_000_000, 0.999, 999_000),
            (1_000_000_000_001, 1.0, 1_000_000_000_001),
        ] {
            assert_eq!(rank(n, q), wanted, "{q} of {n}");
        }
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_sorting(mut samples in proptest::collection::vec(-1e9..1e9f64, 1..200), q in 0.0..=1.0f64) {
            let found = quantile(&mut samples, q).unwrap();
            let share = |keep: &dyn Fn(f64) -> bool| samples.iter().filter(|v| keep(**v)).count() as f64 / samples.len() as f64;
            proptest::prop_assert!(share(&|v| v <= found) >= q - 1e-9);
            proptest::prop_assert!(share(&|v| v < found) < q || q == 0.0 || found == samples.iter().copied().fold(f64::MAX, f64::min));
        }
    }
}
