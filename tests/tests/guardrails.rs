//! Guardrails stop a run that hurts, or of which nothing is known any more: at once, and without a verdict that was not
//! earned.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use toprope_model::event::{Event, Record};
use toprope_model::verdict::Outcome;
use toprope_tests::Toprope;

/// From the last sample before the undo began, which is the one that decided, to that undo.
fn from_sample_to_undo(records: &[Record]) -> Duration {
    let undoing = records.iter().position(|r| matches!(r.event, Event::Undoing { .. })).expect("it is undone");
    let deciding = records[..undoing].iter().rev().find(|r| matches!(&r.event, Event::Sample(s) if !s.ok));
    Duration::from_nanos(records[undoing].at - deciding.expect("a sample was bad").at)
}

fn outcome(records: &[Record]) -> Outcome {
    let judged = records.iter().find_map(|r| match &r.event {
        Event::Judged(judgement) => Some(judgement.outcome),
        _ => None,
    });
    judged.expect("every run that began is judged")
}

#[test]
fn a_tested_ratio_stops_the_run_at_the_sample_that_shows_it() {
    let toprope = Toprope::new();
    let spec = "probes:
- command: {name: visitors, run: [test, '!', -e, flag], interval: 50ms, recovers: {within: 5s}}
guardrails:
- error-ratio: {probe: visitors, above: 10%, confidence: 99%}
method:
- command: {apply: [touch, flag], check: [test, -e, flag], undo: [rm, -f, flag], for: 20s}";
    let experiment = toprope.experiment("guarded", spec);
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(5);
    assert!(done.stdout.contains("more than 10% of the samples of visitors are bad:"), "{done}");
    assert!(done.stdout.contains("since the injection (evidence "), "{done}");
    let records = toprope.log().records;
    assert_eq!(outcome(&records), Outcome::Inconclusive);
    // The decision falls in the moment that the sample is written down; what is left is a busy machine.
    let took = from_sample_to_undo(&records);
    println!("from the deciding sample to the undo: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // What stops it at which confidence is part of the log and of the report.
    let says =
        "more than 10% of the samples of visitors bad, shown by all samples since the injection with 99% confidence";
    let Event::RunStarted(started) = &records[0].event else { panic!("{:?}", records[0]) };
    assert!(started.guardrails[0].starts_with(says), "{:?}", started.guardrails);
    let report = toprope.run(&["report", "--form", "md"]).expect(0).stdout;
    assert!(report.contains(says), "{report}");
    toprope.assert_clean();
}

#[test]
fn a_probe_of_which_nothing_is_known_any_more_stops_the_run() {
    let toprope = Toprope::new();
    let tool = toprope.write("tool", "#!/bin/sh\n");
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let spec = "probes:
- command: {name: visitors, run: [./tool], interval: 50ms}
guardrails:
- bad-in-a-row: {probe: visitors, samples: 3}
method:
- command: {apply: [mv, tool, gone], check: [test, -e, gone], undo: [mv, gone, tool], for: 20s}";
    let experiment = toprope.experiment("blind", spec);
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(5);
    assert!(done.took.as_secs() < 15, "the guardrail did not shorten it: {done}");
    let says = "nothing is known of visitors any more: the probe itself failed 5 times in a row";
    assert!(done.stdout.contains(says), "{done}");
    let records = toprope.log().records;
    assert_eq!(outcome(&records), Outcome::Inconclusive);
    assert!(from_sample_to_undo(&records) < Duration::from_secs(1));
    assert!(toprope.path("tool").exists());
    toprope.assert_clean();
}
