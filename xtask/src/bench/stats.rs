//! What one more sample costs: the evidence of each kind, and a histogram.

use std::hint::black_box;
use std::time::Instant;

use toprope_stats::arms::{Errors, TwoArms};
use toprope_stats::bernoulli::BetaMixture;
use toprope_stats::betting::Betting;
use toprope_stats::mean::Mean;
use toprope_stats::poisson::GammaMixture;
use toprope_stats::proportion::Count;
use toprope_stats::{Alpha, Error, Histogram, Interval, Share};

use super::Row;
use crate::failure::Failure;

const SAMPLES: u32 = 200_000;

/// Takes samples in, one after the other, and asks after each.
pub(super) fn measure() -> Result<Vec<Row>, Failure> {
    rows().map_err(|error| Failure::Found(error.to_string()))
}

/// A name, and what takes a sample's number and value.
type Statistic<'a> = (&'static str, Box<dyn FnMut(u32, f64) + 'a>);

fn rows() -> Result<Vec<Row>, Error> {
    let alpha = Alpha::new(0.01)?;
    let share = Share::new(0.01)?;
    let arms = TwoArms::new(95.0, 5.0)?;
    let rate = GammaMixture::sharpest_at(2.0, 100.0, alpha)?;
    let mut mean = Mean::new(2.0, 1000.0, alpha)?;
    let mut bet = Betting::new(Interval { low: 0.0, high: 1000.0 }, 100.0, alpha)?;
    let mut histogram = Histogram::new(0.001, 3)?;
    let (mut bad, mut errors) = (0, Errors::default());
    let mut each: Vec<Statistic<'_>> = vec![
        ("guardrail on two arms: decision", {
            Box::new(move |n, _| {
                if n % 20 == 0 {
                    errors.experiment += 1
                } else {
                    errors.control += 1
                }
                black_box(arms.shows_worse(errors, alpha));
            })
        }),
        ("two arms: evidence, one-sided", {
            let mut errors = Errors::default();
            Box::new(move |n, _| {
                if n % 20 == 0 {
                    errors.experiment += 1
                } else {
                    errors.control += 1
                }
                black_box(arms.worse(errors));
            })
        }),
        ("share of good samples: decision, both sides", {
            Box::new(move |n, _| {
                bad += u64::from(n % 100 == 0);
                black_box(Count { bad, all: n.into() }.decide(0.01, 0.01));
            })
        }),
        ("share: evidence, two-sided", {
            Box::new(move |n, _| {
                black_box(BetaMixture::UNIFORM.differs((n / 100).into(), (n - n / 100).into(), share));
            })
        }),
        ("events in time: evidence, one-sided", {
            Box::new(move |n, _| {
                // Neither this nor a number below can be one that is refused.
                let _ = black_box(rate.above(n.into(), f64::from(n) / 2.0, 2.0));
            })
        }),
        ("mean: evidence, one-sided", {
            Box::new(move |_, value| {
                let _ = black_box(mean.push(value).and_then(|()| mean.above(100.0)));
            })
        }),
        ("bounded mean: bet", {
            Box::new(move |_, value| {
                let _ = black_box(bet.push(value).map(|()| bet.above()));
            })
        }),
        ("histogram: record", {
            Box::new(move |_, value| {
                let _ = black_box(histogram.record(value));
            })
        }),
    ];
    // Spread over three decades, as latencies are.
    let values: Vec<f64> = (0..1024).map(|n| 10f64.powf(f64::from(n * 389 % 1024) / 341.4)).collect();
    Ok(each
        .iter_mut()
        .map(|(what, sample)| {
            let begun = Instant::now();
            for (n, value) in (1..=SAMPLES).zip(values.iter().cycle()) {
                sample(n, *value);
            }
            let each = begun.elapsed().as_secs_f64() * 1e9 / f64::from(SAMPLES);
            let measured = format!("{each:.0} ns, {:.1} million/s (n = {SAMPLES})", 1e3 / each);
            Row { what: format!("statistics, {what}"), goal: "≤ 1 µs each", measured }
        })
        .collect())
}
