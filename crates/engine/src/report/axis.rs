//! Scales and their ticks.

use crate::verdict::words;

/// Times from one to another, as places on a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    from: u64,
    to: u64,
    left: f64,
    width: f64,
}

impl Time {
    /// `from..to` (nanoseconds) on a line of `width` that begins at `left`.
    pub(super) fn new(from: u64, to: u64, left: f64, width: f64) -> Self {
        Self { from, to: to.max(from + 1), left, width }
    }

    /// The place of a time; those outside of the range are at its ends.
    #[expect(clippy::cast_precision_loss, reason = "a place on a picture")]
    pub(super) fn x(&self, at: u64) -> f64 {
        let at = at.clamp(self.from, self.to);
        self.left + (at - self.from) as f64 / (self.to - self.from) as f64 * self.width
    }

    pub(super) fn left(&self) -> f64 {
        self.left
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    /// The column, one of `columns` of equal width, that a time falls into.
    pub(super) fn column(&self, at: u64, columns: usize) -> usize {
        let span = u128::from(self.to - self.from);
        let at = u128::from(at.clamp(self.from, self.to) - self.from);
        usize::try_from(at * columns as u128 / span).unwrap_or(columns).min(columns - 1)
    }

    /// Round times with their labels, about `wanted` of them.
    pub(super) fn ticks(&self, wanted: u64) -> Vec<(f64, String)> {
        const STEPS_MS: [u64; 24] = [
            1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000,
            600_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 86_400_000,
        ];
        const MS: u64 = 1_000_000;
        let span = self.to - self.from;
        let step = STEPS_MS.iter().copied().find(|s| span / (s * MS) <= wanted).unwrap_or(span / MS / wanted + 1);
        let first = 0;
        let count = span / (step * MS);
        (first..=count)
            .map(|i| {
                let ms = i * step;
                let label = if step < 1000 {
                    if ms == 0 {
                        "0".into()
                    } else if ms >= 1000 {
                        words::millis(ms as f64)
                    } else {
                        format!("{ms}ms")
                    }
                } else {
                    clock(ms / 1000)
                };
                (self.x(self.from + ms * MS), label)
            })
            .collect()
    }
}

/// `0`, `5s`, `1m`, `1m30s`, `1h`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut out = String::new();
    for (n, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s")] {
        if n > 0 {
            out.push_str(&format!("{n}{unit}"));
        }
    }
    if out.is_empty() { "0".into() } else { out }
}

/// Values as heights. Logarithmic where they span so much that the small ones would be lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values {
    low: f64,
    high: f64,
    log: bool,
    top: f64,
    height: f64,
}

impl Values {
    /// A scale for values (finite) from `low` to `high`, drawn from `top` downwards over `height`.
    pub(super) fn new(low: f64, high: f64, top: f64, height: f64) -> Self {
        let log = low > 0.0 && high / low > 40.0;
        let (low, high) = if log {
            (low / 1.3, high * 1.3)
        } else {
            let low = low.min(0.0);
            let pad = (high - low).max(low.abs().max(high.abs()) * 1e-6).max(1e-9) * 0.12;
            (if low < 0.0 { low - pad } else { low }, high.max(low) + pad)
        };
        Self { low, high, log, top, height }
    }

    pub(super) fn is_log(&self) -> bool {
        self.log
    }

    /// The height of a value; those outside of the range are at its ends.
    pub(super) fn y(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let part = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.top + self.height * (1.0 - part)
    }

    /// Round values, at most six.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.log { self.log_ticks() } else { self.linear_ticks() }
    }

    fn log_ticks(&self) -> Vec<f64> {
        let decades: Vec<f64> =
            ((self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32)).map(|e| 10f64.powi(e)).collect();
        let within = |v: &f64| (self.low..=self.high).contains(v);
        for digits in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let ticks: Vec<f64> =
                decades.iter().flat_map(|d| digits.iter().map(move |m| d * m)).filter(within).collect();
            if ticks.len() <= 6 {
                return ticks;
            }
        }
        let ticks: Vec<f64> = decades.into_iter().filter(within).collect();
        let step = ticks.len().div_ceil(6);
        ticks.into_iter().step_by(step.max(1)).collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 4.0;
        let scale = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * scale).find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil();
        (0..8).map(|i| (first + f64::from(i)) * step).take_while(|v| *v <= self.high).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn times_have_round_ticks() {
        let labels = |seconds: u64| -> Vec<String> {
            Time::new(0, seconds * S, 0.0, 100.0).ticks(10).into_iter().map(|t| t.1).collect()
        };
        assert_eq!(labels(43), ["0", "5s", "10s", "15s", "20s", "25s", "30s", "35s", "40s"]);
        assert_eq!(labels(300).last().unwrap(), "5m");
        assert!(labels(90).contains(&"1m30s".to_owned()));
        let short = Time::new(0, S, 0.0, 100.0).ticks(10);
        assert_eq!(short[1], (10.0, "100ms".into()));
        assert_eq!(Time::new(5, 5, 0.0, 100.0).ticks(10).len(), 1);
    }

    #[test]
    fn columns_cover_the_line() {
        let time = Time::new(0, 10 * S, 50.0, 100.0);
        assert_eq!((time.column(0, 100), time.column(10 * S, 100), time.column(5 * S, 100)), (0, 99, 50));
        assert!((time.x(5 * S) - 100.0).abs() < 1e-9);
        assert!((time.x(90 * S) - 150.0).abs() < 1e-9);
    }

    #[test]
    fn values_are_linear_from_zero_or_logarithmic() {
        let linear = Values::new(10.0, 100.0, 0.0, 100.0);
        assert!(!linear.is_log());
        assert!((linear.y(0.0) - 100.0).abs() < 1e-9);
        assert_eq!(linear.ticks(), [0.0, 50.0, 100.0]);
        let log = Values::new(2.0, 5000.0, 0.0, 100.0);
        assert!(log.is_log());
        assert!(log.y(2.0) > log.y(100.0) && log.y(100.0) > log.y(5000.0));
        assert_eq!(log.ticks(), [10.0, 100.0, 1000.0]);
        for flat in
            [Values::new(0.0, 0.0, 0.0, 100.0), Values::new(5.0, 5.0, 0.0, 100.0), Values::new(-3.0, -3.0, 0.0, 100.0)]
        {
            assert!(flat.y(5.0).is_finite() && !flat.ticks().is_empty() && flat.ticks().len() <= 8);
        }
    }
}
