//! What the tests of false alarms share: seeded random numbers and runs in which there is nothing to find.

/// A generator for simulations alone: SplitMix64 (Steele, Lea & Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Within 0 and 1; 0 included.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// With mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// With mean 0 and variance 1 (Box & Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }
}

/// The share of `runs` in which `alarm` was ever true. It takes one sample into the state, and looks.
pub(crate) fn false_alarms<S: Default>(
    runs: u32,
    samples: u32,
    mut alarm: impl FnMut(&mut Random, &mut S) -> bool,
) -> f64 {
    let mut random = Random(1);
    let alarms = (0..runs)
        .filter(|_| {
            let mut state = S::default();
            (0..samples).any(|_| alarm(&mut random, &mut state))
        })
        .count();
    alarms as f64 / f64::from(runs)
}

/// What a test says of every pair of counts that add up to `samples` at most: each is asked for once.
pub(crate) fn table(samples: u64, test: impl Fn(u64, u64) -> bool) -> Vec<Vec<bool>> {
    (0..=samples).map(|a| (0..=samples - a).map(|b| test(a, b)).collect()).collect()
}

/// After how many samples the chance to have seen an alarm is a half, exactly: by the recursion over all pairs of
/// counts, where a sample counts for the first with the probability `p`.
pub(crate) fn exact_median(p: f64, alarm: &[Vec<bool>]) -> Option<usize> {
    let mut silent = vec![1.0];
    for samples in 1..alarm.len() {
        let mut next = vec![0.0; samples + 1];
        for (first, chance) in silent.iter().enumerate() {
            next[first + 1] += chance * p;
            next[first] += chance * (1.0 - p);
        }
        for (first, chance) in next.iter_mut().enumerate() {
            if alarm[first][samples - first] {
                *chance = 0.0;
            }
        }
        silent = next;
        if silent.iter().sum::<f64>() <= 0.5 {
            return Some(samples);
        }
    }
    None
}
