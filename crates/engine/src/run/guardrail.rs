//! Guardrails: what stops a run before its end, decided at each sample.

use std::collections::VecDeque;

use toprope_model::event::Sample;
use toprope_model::experiment::{GuardrailItem, RATIO_SAMPLES};

/// All guardrails of a run.
#[derive(Debug)]
pub(super) struct Guardrails(Vec<(GuardrailItem, Vec<Watch>)>);

/// What a guardrail remembers of one probe.
#[derive(Debug)]
struct Watch {
    probe: u32,
    name: String,
    /// The unit of its values.
    unit: String,
    recent: VecDeque<(u64, bool)>,
    bad_in_a_row: u32,
}

impl Guardrails {
    /// For probes in the manifest's order, with the units of their values.
    pub(super) fn new(items: &[GuardrailItem], names: &[String], units: &[&str]) -> Self {
        let watches = |item: &GuardrailItem| {
            let watched = names.iter().enumerate().filter(|(_, name)| item.probe().is_none_or(|p| p == *name));
            let watch = |(i, name): (usize, &String)| Watch {
                probe: u32::try_from(i).unwrap_or(u32::MAX),
                name: name.clone(),
                unit: units.get(i).map_or_else(String::new, |unit| (*unit).to_owned()),
                recent: VecDeque::new(),
                bad_in_a_row: 0,
            };
            watched.map(watch).collect()
        };
        Self(items.iter().map(|item| (item.clone(), watches(item))).collect())
    }

    /// Forgets all samples: a new trial begins.
    pub(super) fn reset(&mut self) {
        for watch in self.0.iter_mut().flat_map(|(_, watches)| watches) {
            watch.recent.clear();
            watch.bad_in_a_row = 0;
        }
    }

    /// Looks at a sample; says why to stop, if so.
    #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
    pub(super) fn look(&mut self, sample: &Sample, at: u64) -> Option<String> {
        if sample.broken {
            return None; // No evidence, neither good nor bad.
        }
        for (item, watches) in &mut self.0 {
            let Some(watch) = watches.iter_mut().find(|w| w.probe == sample.probe) else { continue };
            match item {
                GuardrailItem::ErrorRatio(g) => {
                    watch.recent.push_back((at, sample.ok));
                    let over = u64::try_from(g.over.0.as_nanos()).unwrap_or(u64::MAX);
                    while watch.recent.front().is_some_and(|(t, _)| at.saturating_sub(*t) > over) {
                        watch.recent.pop_front();
                    }
                    let all = watch.recent.len();
                    let bad = watch.recent.iter().filter(|(_, ok)| !ok).count();
                    if all >= RATIO_SAMPLES as usize && bad as f64 / all as f64 > g.above.share() {
                        return Some(format!(
                            "{bad} of the last {all} samples of {} were bad, more than {} over {}",
                            watch.name, g.above, g.over
                        ));
                    }
                }
                GuardrailItem::BadInARow(g) => {
                    watch.bad_in_a_row = if sample.ok { 0 } else { watch.bad_in_a_row + 1 };
                    if watch.bad_in_a_row >= g.samples {
                        return Some(match watch.bad_in_a_row {
                            1 => format!("a sample of {} was bad", watch.name),
                            n => format!("{n} samples of {} in a row were bad", watch.name),
                        });
                    }
                }
                GuardrailItem::Value(g) => {
                    if let Some(value) = sample.value
                        && !g.keeps.holds(value)
                    {
                        let value = toprope_model::units::short(value);
                        let unit = if watch.unit.is_empty() { String::new() } else { format!(" {}", watch.unit) };
                        return Some(format!(
                            "the value of {} is {value}{unit}, and must keep {}",
                            watch.name, g.keeps
                        ));
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toprope_model::experiment::{BadInARow, ErrorRatio, ValueBound};

    fn sample(probe: u32, ok: bool) -> Sample {
        Sample { probe, started: 0, ok, value: Some(1.0), why: None, broken: false, retries: 0, wrote: None }
    }

    #[test]
    fn a_ratio_is_decided_over_its_window_only() {
        let item = ErrorRatio { probe: None, above: "50%".parse().unwrap(), over: "1s".parse().unwrap() };
        let mut g = Guardrails::new(&[GuardrailItem::ErrorRatio(item)], &["a".into()], &["ms"]);
        for i in 0..4 {
            assert_eq!(g.look(&sample(0, false), i * 100_000_000), None, "too few");
        }
        assert!(g.look(&sample(0, false), 400_000_000).unwrap().contains("5 of the last 5"));
        for i in 0..20 {
            assert_eq!(g.look(&sample(0, true), 3_000_000_000 + i * 100_000_000), None);
        }
    }

    #[test]
    fn a_row_is_broken_by_a_good_sample_and_counts_per_probe() {
        let item = BadInARow { probe: None, samples: 3 };
        let mut g = Guardrails::new(&[GuardrailItem::BadInARow(item)], &["a".into(), "b".into()], &[]);
        for (probe, ok) in [(0, false), (0, false), (1, false), (0, true), (0, false), (0, false), (1, false)] {
            assert_eq!(g.look(&sample(probe, ok), 0), None);
        }
        assert!(g.look(&sample(1, false), 0).unwrap().contains("of b in a row"));
    }

    #[test]
    fn a_value_is_told_with_its_unit() {
        let item = ValueBound { probe: "a".into(), keeps: "< 500ms".parse().unwrap() };
        let mut g = Guardrails::new(&[GuardrailItem::Value(item)], &["a".into()], &["ms"]);
        assert_eq!(g.look(&sample(0, true), 0), None);
        let why = g.look(&Sample { value: Some(2001.4), ..sample(0, true) }, 0).unwrap();
        assert_eq!(why, "the value of a is 2001.4 ms, and must keep < 500ms");
    }
}
