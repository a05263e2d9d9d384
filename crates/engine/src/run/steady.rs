//! Whether the steady state was seen: nothing is injected into a system that is not well.

use toprope_model::Experiment;
use toprope_model::event::Sample;
use toprope_model::experiment::When;
use toprope_model::units::short;

/// What speaks against injecting; empty if the steady state was seen.
///
/// A steady state is short, so it may hold fewer samples than a percentile needs; then the largest value must keep
/// the bound, which implies it for every percentile.
#[expect(clippy::cast_precision_loss, reason = "a count of samples")]
pub(super) fn not_seen(experiment: &Experiment, samples: &[Sample]) -> Vec<String> {
    let mut reasons = Vec::new();
    for ((index, probe), name) in experiment.spec.probes.iter().enumerate().zip(experiment.spec.probe_names()) {
        if !matches!(probe.common.when, When::Before | When::During | When::Edge) {
            continue;
        }
        let own: Vec<&Sample> = samples.iter().filter(|s| s.probe as usize == index).collect();
        if own.is_empty() {
            // A probe that has nothing to say before an injection (an alert that is to fire) gives no samples.
            continue;
        }
        let why = |s: &Sample| s.why.clone().unwrap_or_else(|| "bad".into());
        if let Some(broken) = own.iter().find(|s| s.broken) {
            reasons.push(format!("the probe {name} itself failed: {}", why(broken)));
            continue;
        }
        let good = own.iter().filter(|s| s.ok).count();
        let wanted = probe.common.good.map_or(1.0, |g| g.share());
        if (good as f64) < wanted * own.len() as f64 {
            let example = own.iter().find(|s| !s.ok).map_or(String::new(), |s| why(s));
            reasons.push(format!("{} of {} samples of {name} were bad: {example}", own.len() - good, own.len()));
            continue;
        }
        let mut values: Vec<f64> = own.iter().filter_map(|s| s.value).collect();
        values.sort_by(f64::total_cmp);
        for (tolerance, quantile, needs, bound) in probe.common.tolerances() {
            let value = match (tolerance, quantile) {
                ("mean", _) => values.iter().sum::<f64>() / values.len().max(1) as f64,
                (_, Some(q)) if values.len() as u64 >= needs => percentile(&values, q),
                _ => values.last().copied().unwrap_or(f64::NAN),
            };
            if !bound.holds(value) {
                let n = values.len();
                reasons.push(format!("{tolerance} of {name} was {} over {n} samples, not {bound}", short(value)));
            }
        }
    }
    reasons
}

/// The smallest value that at least a share `q` of the sorted values does not exceed (nearest rank).
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn percentile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
