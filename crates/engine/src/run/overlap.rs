//! Faults that would be in force at the same time and take the same thing: told before anything is injected.

use std::time::Duration;

use toprope_model::Experiment;
use toprope_model::experiment::MethodItem;
use toprope_model::step::Plan;

use super::RunError;
use crate::fault::FaultError;

/// More repetitions show nothing new.
const ROUNDS: u32 = 100;

/// A fault by its place in the method, and when it is in force by plan.
type Span = (usize, Duration, Duration);

/// Refuses two faults that overlap by plan and whose plans claim the same.
///
/// # Errors
/// [`RunError::Plan`] for the second of them.
pub(super) fn refuse<'a>(experiment: &Experiment, plan: impl Fn(usize) -> Option<&'a Plan>) -> Result<(), RunError> {
    let mut spans = Vec::new();
    series(&experiment.spec.method, Duration::ZERO, &mut 0, &mut spans);
    let faults = experiment.faults();
    let claims = |index| plan(index).into_iter().flat_map(|plan| &plan.steps).flat_map(|step| &step.claims);
    for (place, (index, from, to)) in spans.iter().enumerate() {
        for (other, other_from, other_to) in &spans[..place] {
            let overlap = other != index && from < other_to && other_from < to;
            let Some(both) = claims(*index).find(|c| overlap && claims(*other).any(|o| o == *c)) else { continue };
            let (index, other) = ((*index).max(*other), (*index).min(*other));
            return Err(RunError::Plan {
                fault: faults[index].name().to_owned(),
                index,
                error: FaultError::new(format!("`{}` has taken {both} at the same time", faults[other].name()))
                    .help("have one after the other: without `parallel`, or with a `wait` in between")
                    .into(),
            });
        }
    }
    Ok(())
}

/// When faults of steps that follow each other are in force; returns when the last step ends.
fn series(items: &[MethodItem], from: Duration, next: &mut usize, spans: &mut Vec<Span>) -> Duration {
    items.iter().fold(from, |from, item| one(item, from, next, spans))
}

fn one(item: &MethodItem, from: Duration, next: &mut usize, spans: &mut Vec<Span>) -> Duration {
    match item {
        MethodItem::Fault(fault) => {
            let to = from + fault.common.for_.map(|d| d.0).unwrap_or_default();
            spans.push((*next, from, to));
            *next += 1;
            to
        }
        MethodItem::Wait(wait) => from + wait.for_.0,
        MethodItem::Serial(items, _) => series(items, from, next, spans),
        MethodItem::Parallel(items, _) => items.iter().fold(from, |end, item| end.max(one(item, from, next, spans))),
        MethodItem::Repeat(repeat, _) => {
            let (first, mut from, mut end) = (*next, from, from);
            for _ in 0..repeat.times.min(ROUNDS) {
                *next = first;
                end = series(&repeat.steps, from, next, spans);
                from = end.max(from + repeat.every.map(|d| d.0).unwrap_or_default());
            }
            end
        }
    }
}

#[cfg(test)]
mod tests {
    use toprope_model::step::{Step, Undo};
    use toprope_model::{FromNode, Node, Problems};

    use super::*;

    /// The spans of a method of faults that are called `f` and last so many seconds, in seconds.
    fn spans(method: serde_json::Value) -> (Experiment, Vec<(usize, u64, u64)>) {
        let spec = serde_json::json!({
            "hypothesis": "it stands", "probes": [{"http": {"get": "http://127.0.0.1/"}}], "method": method,
        });
        let node = Node::from_json(&spec);
        let mut problems = Problems::default();
        let spec = toprope_model::experiment::Spec::from_node(&node, &mut problems);
        let spec = spec.unwrap_or_else(|| panic!("{problems}"));
        let experiment = Experiment { name: "test".into(), spec, node };
        let mut spans = Vec::new();
        series(&experiment.spec.method, Duration::ZERO, &mut 0, &mut spans);
        let spans = spans.into_iter().map(|(i, from, to)| (i, from.as_secs(), to.as_secs())).collect();
        (experiment, spans)
    }

    fn plan(claim: &str) -> Plan {
        Plan {
            steps: vec![Step {
                describe: String::new(),
                claims: vec![claim.into()],
                undo: Undo::KernelOwned(String::new()),
                data: serde_json::Value::Null,
            }],
            path: String::new(),
            matched: 1,
            targets: vec![],
            warnings: vec![],
        }
    }

    #[test]
    fn faults_are_in_force_when_the_method_says() {
        let (_, found) = spans(serde_json::json!([
            {"f": {"for": "2s"}},
            {"repeat": {"times": 2, "every": "5s", "steps": [{"f": {"for": "1s"}}]}},
            {"parallel": [{"f": {"for": "3s"}}, {"serial": [{"wait": {"for": "1s"}}, {"f": {"for": "4s"}}]}]},
            {"f": {}},
        ]));
        assert_eq!(found, [(0, 0, 2), (1, 2, 3), (1, 7, 8), (2, 8, 11), (3, 9, 13), (4, 13, 13)]);
    }

    #[test]
    fn two_that_take_the_same_at_the_same_time_are_refused() {
        let parallel = |wait: &str| {
            serde_json::json!([{"parallel": [
                {"f": {"name": "one", "for": "3s"}},
                {"serial": [{"wait": {"for": wait}}, {"f": {"name": "two", "for": "3s"}}]},
            ]}])
        };
        let (same, other) = (plan("x"), plan("y"));
        let refused = |wait: &str, plans: [&Plan; 2]| {
            let (experiment, _) = spans(parallel(wait));
            refuse(&experiment, |index| plans.get(index).copied()).map_err(|e| e.to_string())
        };
        let text = refused("1s", [&same, &same]).unwrap_err();
        assert!(text.contains("`two` cannot be injected: `one` has taken x at the same time"), "{text}");
        assert_eq!(refused("1s", [&same, &other]), Ok(()));
        assert_eq!(refused("3s", [&same, &same]), Ok(()));
    }
}
