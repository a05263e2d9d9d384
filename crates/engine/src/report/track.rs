//! A probe's samples as columns of a picture: however many there are, a picture has only so many columns.

use super::axis::Time;
use crate::verdict::evidence::{Seen, Worth};

/// What falls into one column.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Column {
    pub(super) good: u32,
    pub(super) bad: u32,
    pub(super) broken: u32,
    /// Of the values of good samples: lowest, highest, mean.
    pub(super) values: Option<Envelope>,
    /// Of the values of bad samples.
    pub(super) bad_values: Option<Envelope>,
}

/// Where values lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Envelope {
    pub(super) low: f64,
    pub(super) high: f64,
    sum: f64,
    n: u32,
}

impl Envelope {
    fn add(this: &mut Option<Self>, value: f64) {
        let e = this.get_or_insert(Self { low: value, high: value, sum: 0.0, n: 0 });
        e.low = e.low.min(value);
        e.high = e.high.max(value);
        e.sum += value;
        e.n += 1;
    }

    pub(super) fn mean(&self) -> f64 {
        self.sum / f64::from(self.n)
    }
}

/// Puts samples into columns, by the time at which they were asked.
pub(super) fn columns(samples: &[Seen], time: &Time, count: usize) -> Vec<Column> {
    let mut columns = vec![Column::default(); count];
    for sample in samples {
        let column = &mut columns[time.column(sample.started, count)];
        match sample.worth {
            Worth::Good => {
                column.good += 1;
                sample.value.into_iter().for_each(|v| Envelope::add(&mut column.values, v));
            }
            Worth::Bad => {
                column.bad += 1;
                sample.value.into_iter().for_each(|v| Envelope::add(&mut column.bad_values, v));
            }
            Worth::Broken => column.broken += 1,
        }
    }
    columns
}

/// The stretches of columns for which something holds: first and one past the last. Stretches that `gap` columns or
/// fewer, all of them empty, separate are one.
pub(super) fn stretches(columns: &[Column], gap: usize, is: impl Fn(&Column) -> bool) -> Vec<(usize, usize)> {
    let mut all: Vec<(usize, usize)> = Vec::new();
    for (i, column) in columns.iter().enumerate() {
        if !is(column) {
            continue;
        }
        let empty = |c: &Column| c.good + c.bad + c.broken == 0;
        match all.last_mut() {
            Some((_, end)) if i - *end <= gap && columns[*end..i].iter().all(empty) => *end = i + 1,
            _ => all.push((i, i + 1)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::evidence::Period;

    fn seen(started: u64, value: f64, worth: Worth) -> Seen {
        Seen { started, at: started, value: Some(value), worth, period: Period::Steady }
    }

    #[test]
    fn an_outlier_stays_visible_among_a_million() {
        let time = Time::new(0, 1_000_000, 0.0, 100.0);
        let samples: Vec<Seen> =
            (0..1_000_000).map(|i| seen(i, if i == 4242 { 900.0 } else { 10.0 }, Worth::Good)).collect();
        let columns = columns(&samples, &time, 100);
        let outlier = columns[0].values.unwrap();
        assert_eq!((outlier.low, outlier.high), (10.0, 900.0));
        assert!(columns.iter().all(|c| c.good == 10_000));
        assert!((columns[5].values.unwrap().mean() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn stretches_join_over_empty_columns_alone() {
        let time = Time::new(0, 100, 0.0, 100.0);
        let bad = [10, 14, 18, 40].map(|t| seen(t, 1.0, Worth::Bad));
        let mut samples = bad.to_vec();
        samples.push(seen(16, 1.0, Worth::Good));
        let columns = columns(&samples, &time, 100);
        assert_eq!(stretches(&columns, 5, |c| c.bad > 0), [(10, 15), (18, 19), (40, 41)]);
    }
}
