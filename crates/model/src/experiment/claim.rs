//! Claims about the system: what `confidence` makes of a probe's tolerances, and how many samples they take.

use std::time::Duration;

use toprope_stats::{Alpha, Share, needed};

use super::{MethodItem, ProbeCommon};
use crate::comparison::Op;

/// A claim: that less than a share of the samples is bad, or out of a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The tolerance as it was written: `p99 < 300ms`, `good 99%`.
    pub text: String,
    /// The share that may be bad or out of the bound, from 0 to 1. At 0 no number of samples shows it.
    pub allowed: f64,
    /// How often it may be shown wrongly, strictly between 0 and 1: what is missing of `confidence` to 1.
    pub alpha: f64,
}

impl Claim {
    fn needed(&self) -> Option<needed::Claim> {
        Some(needed::Claim::bad_below(Share::new(self.allowed).ok()?, Alpha::new(self.alpha).ok()?))
    }

    /// How many samples it takes at least: if not one is bad. `None` if no number shows it.
    pub fn fewest(&self) -> Option<u64> {
        self.needed()?.fewest()
    }

    /// How many samples it takes where half of the share that is allowed is bad, by the sample at which it is shown on
    /// the average course. `None` if no number shows it.
    pub fn if_half_is_bad(&self) -> Option<u64> {
        self.needed()?.at_rate(self.allowed / 2.0).ok()?
    }
}

impl ProbeCommon {
    /// What it claims of the system: with `confidence`, the share of good samples where one is asked for, and every
    /// percentile with a bound to one side. What has no bound by nature (a mean, a largest value) has no test.
    pub fn claims(&self) -> Vec<Claim> {
        let Some(confidence) = self.confidence else { return Vec::new() };
        let alpha = 1.0 - confidence.share();
        let good = self.good.map(|good| Claim { text: format!("good {good}"), allowed: 1.0 - good.share(), alpha });
        let percentiles = self.tolerances().into_iter().filter_map(|(name, q, _, bound)| {
            let allowed = match bound.op() {
                Op::Within => return None,
                Op::More | Op::AtLeast => q?,
                _ => 1.0 - q?,
            };
            (q? < 1.0).then(|| Claim { text: format!("{name} {bound}"), allowed, alpha })
        });
        good.into_iter().chain(percentiles).collect()
    }

    /// How many samples its claims take at least; 0 without any.
    pub fn samples_claimed(&self) -> u64 {
        self.claims().iter().filter_map(Claim::fewest).max().unwrap_or(0)
    }
}

/// How long faults are in force by plan, at most: what goes on beside each other may overlap.
pub(super) fn in_force(items: &[MethodItem]) -> Duration {
    let of = |item: &MethodItem| match item {
        MethodItem::Fault(fault) => fault.common.for_.map(|d| d.0).unwrap_or_default(),
        MethodItem::Wait(_) => Duration::ZERO,
        MethodItem::Serial(items, _) => in_force(items),
        MethodItem::Parallel(items, _) => in_force(items).min(item.duration()),
        MethodItem::Repeat(repeat, _) => in_force(&repeat.steps).saturating_mul(repeat.times),
    };
    items.iter().map(of).fold(Duration::ZERO, Duration::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(edit: impl FnOnce(&mut ProbeCommon)) -> ProbeCommon {
        let mut common = crate::FromNode::from_node(
            &crate::Node::from_json(&serde_json::json!({"confidence": "99%"})),
            &mut crate::Problems::default(),
        )
        .unwrap();
        edit(&mut common);
        common
    }

    #[test]
    fn what_has_a_test_is_claimed() {
        let common = probe(|c| {
            c.good = Some("99%".parse().unwrap());
            c.p50 = Some("> 5ms".parse().unwrap());
            c.p95 = Some("1..5".parse().unwrap());
            c.p99 = Some("< 300ms".parse().unwrap());
            c.mean = Some("< 300ms".parse().unwrap());
            c.max = Some("< 1s".parse().unwrap());
        });
        let claims = common.claims();
        let texts: Vec<&str> = claims.iter().map(|c| c.text.as_str()).collect();
        assert_eq!(texts, ["good 99%", "p50 > 5ms", "p99 < 300ms"]);
        let needed: Vec<_> = claims.iter().map(|c| c.fewest().unwrap()).collect();
        assert_eq!((needed[0], needed[2], common.samples_claimed()), (644, 644, 644));
        assert!(needed[1] < 20, "{needed:?}");
        assert!(claims[2].if_half_is_bad() > Some(1500));
        assert!(probe(|c| c.confidence = None).claims().is_empty());
    }

    #[test]
    fn no_number_of_samples_shows_that_all_are_good() {
        let all = probe(|c| c.good = Some("100%".parse().unwrap()));
        assert_eq!((all.claims()[0].fewest(), all.claims()[0].if_half_is_bad()), (None, None));
    }
}
