//! One set of samples held against a probe's tolerances.
//!
//! A claim (`confidence`) is made of the share of good samples where the manifest asks for one, and of percentiles that
//! have a bound to one side. The largest value, the mean and a range are judged by the samples seen: what is not
//! bounded has no test.

use toprope_model::Comparison;
use toprope_model::comparison::Op;
use toprope_model::experiment::ProbeCommon;
use toprope_model::verdict::{ClaimJudgement, Outcome};
use toprope_stats::proportion::{Count, Shown};
use toprope_stats::quantile;

use super::evidence::{Seen, Worth};
use super::words::{self, cut, more, samples, sentence};

/// What one tolerance says of a set of samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    /// A sentence; for what held a clause, to be joined with others.
    pub(super) text: String,
    /// How many more samples would decide it, where that is what is missing.
    pub(super) missing: Option<u64>,
    /// Whether it is about the values rather than about good and bad.
    pub(super) about_values: bool,
    /// The claim that it decided, or did not.
    pub(super) claim: Option<ClaimJudgement>,
}

impl Finding {
    pub(super) fn new(outcome: Outcome, text: impl Into<String>) -> Self {
        Self { outcome, text: text.into(), missing: None, about_values: false, claim: None }
    }
}

/// What to do when a set has fewer samples than a percentile needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooFew {
    /// It stays undecided.
    Undecided,
    /// All of them must be within the bound, which no percentile then exceeds; else it stays undecided.
    Largest,
}

/// A set of samples and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set<'a> {
    pub(super) samples: &'a [Seen],
    pub(super) common: &'a ProbeCommon,
    /// The unit of the values.
    pub(super) unit: &'a str,
    /// When the samples were taken: `while the fault was in force`.
    pub(super) when: &'a str,
    pub(super) too_few: TooFew,
    /// Whether `confidence` applies.
    pub(super) claims: bool,
    /// How many samples were still to come when the run was stopped.
    pub(super) to_come: u64,
    /// Why the first bad one was bad, and the first broken one broken.
    pub(super) why: Option<&'a str>,
    pub(super) why_broken: Option<&'a str>,
}

impl Set<'_> {
    fn count(&self, worth: Worth) -> u64 {
        self.samples.iter().filter(|s| s.worth == worth).count() as u64
    }

    /// The samples that are evidence: good, all.
    pub(super) fn counted(&self) -> (u64, u64) {
        let good = self.count(Worth::Good);
        (good, good + self.count(Worth::Bad))
    }

    /// Holds the samples against every tolerance.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let (_, all) = self.counted();
        let broken = self.count(Worth::Broken);
        let mut findings = Vec::new();
        if broken > 0 {
            let why = self.why_broken.map(|w| format!(": {}", cut(w))).unwrap_or_default();
            let text = format!("the probe itself failed in {} of {} {}{why}", broken, samples(all + broken), self.when);
            findings.push(Finding::new(Outcome::Inconclusive, sentence(&text)));
        }
        if all == 0 {
            if broken == 0 {
                let text = sentence(&format!("there are no samples {}", self.when));
                findings.push(Finding { missing: Some(1), ..Finding::new(Outcome::Inconclusive, text) });
            }
            return findings;
        }
        let claims = self.claims_made();
        // Each claim may be refuted wrongly, and one is enough to refute: they share the error between them. To hold,
        // all must be shown, and for that none needs less than the whole.
        let alpha =
            self.common.confidence.map(|c| Alpha { held: 1.0 - c.share(), refuted: (1.0 - c.share()) / claims });
        findings.push(self.share(broken, alpha));
        for (name, q, needs, bound) in self.common.tolerances() {
            let mut finding = self.value(name, q, needs, bound, alpha);
            finding.about_values = true;
            findings.push(finding);
        }
        findings
    }

    /// How many tolerances are claims; at least 1.
    fn claims_made(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let claims = self.common.claims().len().max(1) as f64;
        claims
    }

    fn share(&self, broken: u64, alpha: Option<Alpha>) -> Finding {
        let (good, all) = self.counted();
        let wanted = self.common.good.map_or(1.0, |g| g.share());
        let wanted_text = self.common.good.map(|g| g.to_string()).unwrap_or_else(|| "all".into());
        if let (true, Some(alpha), Some(_)) = (self.claims, alpha, self.common.good) {
            let what = format!("at least {wanted_text} of the samples are good");
            let claim = format!("good {wanted_text}");
            return self.claim(claim, &what, Count { bad: all - good, all }, 1.0 - wanted, alpha);
        }
        let seen = ratio(good, all);
        if seen >= wanted - 1e-12 {
            let of = if good == all {
                format!("all {} good", samples(all))
            } else {
                format!("{good} of {} good", samples(all))
            };
            let than = if wanted < 1.0 {
                format!(" ({}; wanted at least {wanted_text})", words::share(seen))
            } else {
                String::new()
            };
            return Finding::new(Outcome::Held, format!("{of}{than}"));
        }
        let why = self.why.map(|w| format!("; the first: {}", cut(w))).unwrap_or_default();
        let bad = all - good;
        let only = if all == 1 {
            "the only sample was".into()
        } else {
            format!("{bad} of {} {}", samples(all), if bad == 1 { "was" } else { "were" })
        };
        let text = if wanted < 1.0 {
            format!("{only} bad {} ({} good; wanted at least {wanted_text}){why}", self.when, words::share(seen))
        } else {
            format!("{only} bad {}{why}", self.when)
        };
        // What is missing may all have been good.
        let unknown = broken + self.to_come;
        if ratio(good + unknown, all + unknown) >= wanted - 1e-12 {
            let text = format!("{text}; with the {} that are missing it might still have held", samples(unknown));
            return Finding::new(Outcome::Inconclusive, sentence(&text));
        }
        Finding::new(Outcome::Refuted, sentence(&text))
    }

    /// The values that a bound is held against: those of good samples, and of bad ones that are out of it.
    fn values(&self, bound: &Comparison) -> Vec<f64> {
        let counts = |s: &&Seen| match s.worth {
            Worth::Good => true,
            Worth::Bad => s.value.is_some_and(|v| !bound.holds(v)),
            Worth::Broken => false,
        };
        self.samples.iter().filter(counts).filter_map(|s| s.value).collect()
    }

    fn value(&self, name: &str, q: Option<f64>, needs: u64, bound: &Comparison, alpha: Option<Alpha>) -> Finding {
        let mut values = self.values(bound);
        let n = values.len() as u64;
        let shown = |v: f64| words::value(v, self.unit);
        if n == 0 {
            let text = sentence(&format!("no sample yielded a value for {name} {}", self.when));
            return Finding { missing: Some(needs), ..Finding::new(Outcome::Inconclusive, text) };
        }
        let outside = values.iter().filter(|v| !bound.holds(**v)).count() as u64;
        if n < needs && self.too_few == TooFew::Largest {
            let worst = extreme(&values, bound);
            return if outside == 0 {
                let text =
                    format!("{name} cannot exceed the worst of {}, {} (wanted {bound})", samples(n), shown(worst));
                Finding::new(Outcome::Held, text)
            } else {
                let text = format!(
                    "{} are too few for a {name} (it needs {needs}), and the worst of them {}, {}, is not {bound}",
                    samples(n),
                    self.when,
                    shown(worst)
                );
                Finding { missing: Some(needs - n), ..Finding::new(Outcome::Inconclusive, sentence(&text)) }
            };
        }
        if n < needs {
            let text = format!("{name} needs {}, and there are {n} {}", samples(needs), self.when);
            return Finding { missing: Some(needs - n), ..Finding::new(Outcome::Inconclusive, sentence(&text)) };
        }
        if let (true, Some(alpha), Some(q)) = (self.claims, alpha, q.filter(|q| *q < 1.0))
            && bound.op() != Op::Within
        {
            let what = format!("{name} is {bound}");
            let allowed = if matches!(bound.op(), Op::More | Op::AtLeast) { q } else { 1.0 - q };
            return self.claim(format!("{name} {bound}"), &what, Count { bad: outside, all: n }, allowed, alpha);
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
        let mean = || values.iter().sum::<f64>() / n as f64;
        let found = match q {
            None => mean(),
            Some(q) => quantile(&mut values, q).expect("there is at least one value"),
        };
        let basis = format!("{name} {} over {}", shown(found), samples(n));
        if bound.holds(found) {
            return Finding::new(Outcome::Held, format!("{basis} (wanted {bound})"));
        }
        let text = sentence(&format!("{name} was {} over {} {}; wanted {bound}", shown(found), samples(n), self.when));
        let may_yet_hold = self.to_come > 0
            && q.is_none_or(|q| {
                // As if all that is to come were within the bound. A range may be left on either side.
                if bound.op() == Op::Within {
                    return true;
                }
                let allowed = if matches!(bound.op(), Op::More | Op::AtLeast) { q } else { 1.0 - q };
                ratio(outside, n + self.to_come) <= allowed + 1e-12
            });
        if may_yet_hold {
            let text = format!(
                "{} and the {} still to come might have mended it",
                text.trim_end_matches('.'),
                samples(self.to_come)
            );
            return Finding::new(Outcome::Inconclusive, sentence(&text));
        }
        Finding::new(Outcome::Refuted, text)
    }

    /// A claim about the system: less than the share `allowed` is bad (or out of a bound).
    fn claim(&self, claim: String, what: &str, seen: Count, allowed: f64, alpha: Alpha) -> Finding {
        let level = self.common.confidence.map(|c| c.to_string()).unwrap_or_default();
        let outcome = if seen.decide(allowed, alpha.held) == Shown::Below {
            Outcome::Held
        } else if seen.decide(allowed, alpha.refuted) == Shown::Above {
            Outcome::Refuted
        } else {
            Outcome::Inconclusive
        };
        let needed = match outcome {
            Outcome::Inconclusive => seen.needed_below(allowed, alpha.held),
            _ => None,
        };
        let (low, high) = (seen.lower_bound(alpha.refuted), seen.upper_bound(alpha.held));
        // No evidence is possible for a share that cannot be shown.
        let evidence = seen.ln_evidence_below(allowed).exp();
        let judged = ClaimJudgement {
            claim,
            outcome,
            alpha: alpha.held,
            allowed,
            samples: (seen.bad, seen.all),
            between: (low, high),
            evidence: if evidence.is_nan() { 0.0 } else { evidence.min(1e300) },
            missing: needed.map(|all| all - seen.all),
        };
        let out = format!("{} of {} {} not", seen.bad, samples(seen.all), if seen.bad == 1 { "was" } else { "were" });
        let (low, high) = (words::share(low), words::share(high));
        let may_be = format!(
            "{} may be; evidence {}, and {} is enough",
            words::share(allowed),
            words::evidence(judged.evidence),
            words::evidence(1.0 / alpha.held)
        );
        let text = match outcome {
            Outcome::Held => {
                format!("{what}, with {level} confidence: {out}, which is a share below {high} ({may_be})")
            }
            Outcome::Refuted => sentence(&format!(
                "it is not so that {what}, with {level} confidence: {out} {}, which is a share above {low} ({} may be)",
                self.when,
                words::share(allowed)
            )),
            Outcome::Inconclusive => {
                let rest = match needed {
                    Some(all) => format!("if it goes on like this, {} needed", more(all - seen.all)),
                    None if judged.allowed <= 0.0 => {
                        "no number of samples shows that all will be good: ask for 99.9%".into()
                    }
                    None => "so large a share does not show it, however many samples there are".into(),
                };
                sentence(&format!(
                    "neither is shown with {level} confidence, that {what} or that not: {out} {}, so that the share lies \
                     between {low} and {high} ({may_be}); {rest}",
                    self.when
                ))
            }
        };
        Finding { missing: judged.missing, claim: Some(judged), ..Finding::new(outcome, text) }
    }
}

/// How often a claim may be wrong.
#[derive(Debug, Clone, Copy)]
struct Alpha {
    held: f64,
    refuted: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn ratio(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// The value that is the worst for a bound: the smallest where it must be large, else the largest.
fn extreme(values: &[f64], bound: &Comparison) -> f64 {
    let outside = values.iter().copied().find(|v| !bound.holds(*v));
    match bound.op() {
        Op::More | Op::AtLeast => values.iter().copied().fold(f64::INFINITY, f64::min),
        Op::Within => outside.unwrap_or_else(|| values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        _ => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// Whether a sample is bad, or out of the loosest value tolerance: what an outage is made of where values refuted.
pub(super) fn outside_loosest(common: &ProbeCommon, sample: &Seen) -> bool {
    let loosest = common
        .tolerances()
        .into_iter()
        .filter(|t| t.1.is_some())
        .max_by(|a, b| a.1.partial_cmp(&b.1).expect("quantiles are numbers"));
    match (sample.value, loosest) {
        (Some(value), Some((_, _, _, bound))) => !bound.holds(value),
        (Some(value), None) => common.mean.as_ref().is_some_and(|bound| !bound.holds(value)),
        (None, _) => false,
    }
}
