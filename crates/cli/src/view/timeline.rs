//! A probe's samples along the run, in bounded memory: buckets of equal time that widen as the run grows.

/// The width of a bucket at first, in nanoseconds.
const FINEST: u64 = 100_000_000;
/// At so many buckets, each two become one.
const MOST: usize = 1024;

/// What was seen in one bucket of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bucket {
    /// The largest value, where there is one: an outlier must not vanish.
    pub max: Option<f64>,
    /// Samples that were good.
    pub good: u32,
    /// Samples that were bad.
    pub bad: u32,
    /// Samples that gave no evidence.
    pub broken: u32,
}

impl Bucket {
    /// Whether nothing was seen.
    pub fn is_empty(self) -> bool {
        self.good + self.bad + self.broken == 0
    }

    fn merge(&mut self, other: Self) {
        self.max = match (self.max, other.max) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.good += other.good;
        self.bad += other.bad;
        self.broken += other.broken;
    }
}

/// Buckets from an origin on.
#[derive(Debug, Clone)]
pub struct Timeline {
    origin: u64,
    width: u64,
    buckets: Vec<Bucket>,
}

impl Timeline {
    /// Begins at `origin`, in nanoseconds since the run began.
    pub fn new(origin: u64) -> Self {
        Self { origin, width: FINEST, buckets: Vec::new() }
    }

    /// Adds what was seen at a time; what lies before the origin counts at it.
    pub fn add(&mut self, at: u64, seen: Bucket) {
        let mut index = self.index(at);
        while index >= MOST {
            self.widen();
            index = self.index(at);
        }
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, Bucket::default());
        }
        self.buckets[index].merge(seen);
    }

    fn index(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.origin) / self.width).unwrap_or(usize::MAX)
    }

    fn widen(&mut self) {
        let pair = |pair: &[Bucket]| {
            let mut merged = pair[0];
            pair.get(1).into_iter().for_each(|second| merged.merge(*second));
            merged
        };
        self.buckets = self.buckets.chunks(2).map(pair).collect();
        self.width = self.width.saturating_mul(2);
    }

    /// The samples as `columns` columns of `width` nanoseconds each, from `from` on. A column takes the buckets that
    /// begin in it, so columns narrower than a bucket stay empty here and there.
    pub fn columns(&self, from: u64, width: u64, columns: usize) -> Vec<Bucket> {
        let mut out = vec![Bucket::default(); columns];
        let first = self.index(from);
        for (i, bucket) in self.buckets.iter().enumerate().skip(first) {
            let begins = self.origin + self.width * i as u64;
            let Some(after) = begins.checked_sub(from) else { continue };
            match usize::try_from(after / width.max(1)).ok().and_then(|c| out.get_mut(c)) {
                Some(column) => column.merge(*bucket),
                None => break,
            }
        }
        out
    }

    /// The width of a bucket now, in nanoseconds: columns should not be narrower.
    pub fn width(&self) -> u64 {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seen(value: f64, ok: bool) -> Bucket {
        Bucket { max: Some(value), good: u32::from(ok), bad: u32::from(!ok), broken: 0 }
    }

    #[test]
    fn a_column_shows_the_worst_of_its_time() {
        let mut t = Timeline::new(SECOND);
        for (at, value, ok) in [(0, 1.0, true), (1100, 2.0, true), (1900, 9.0, false), (2500, 3.0, true)] {
            t.add(at * 1_000_000, seen(value, ok));
        }
        let columns = t.columns(SECOND, SECOND, 3);
        assert_eq!(columns[0], Bucket { max: Some(9.0), good: 2, bad: 1, broken: 0 });
        assert_eq!(columns[1], Bucket { max: Some(3.0), good: 1, bad: 0, broken: 0 });
        assert!(columns[2].is_empty());
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_lost() {
        let mut t = Timeline::new(0);
        for i in 0..100_000u64 {
            t.add(i * 100_000_000, seen(1.0, i % 10 != 0));
        }
        assert!(t.buckets.len() <= MOST);
        let (good, bad) = t.buckets.iter().fold((0, 0), |(g, b), x| (g + x.good, b + x.bad));
        assert_eq!((good, bad), (90_000, 10_000));
        let columns = t.columns(0, t.width() * 4, 200);
        assert_eq!(columns.iter().map(|c| c.good + c.bad).sum::<u32>(), 100_000);
    }
}
