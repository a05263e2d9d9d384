//! JUnit XML: a test case for every experiment.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use toprope_model::event::Record;
use toprope_model::verdict::{Ending, Outcome};

use super::summary::Summary;
use super::text::{NAME, TEXT, clean, name};
use crate::verdict::words::{self, millis};

/// Experiments as the test cases of one suite.
///
/// Held is a success, refuted a failure; inconclusive, stopped and not undone are errors, since they say nothing about
/// the system. Each probe is a property.
#[derive(Debug, Clone)]
pub struct Suite {
    suite: TestSuite,
    time: Duration,
}

impl Suite {
    /// An empty suite.
    pub fn new(name: &str) -> Self {
        Self { suite: TestSuite::new(clean(name, NAME)), time: Duration::ZERO }
    }

    /// Adds a run by its log, with the hash at the end of its chain.
    pub fn run(&mut self, records: &[Record], head: &str) {
        let summary = Summary::of(records, head);
        let judgement = &summary.judgement;
        let reasons = clean(&judgement.reasons.join("\n"), TEXT);
        let first = clean(judgement.reasons.first().map_or("no reason was given", String::as_str), 500);
        let status = match (judgement.ending, judgement.outcome) {
            (Ending::NotUndone, _) => problem(NonSuccessKind::Error, "not-undone", &first, &reasons),
            (_, Outcome::Refuted) => problem(NonSuccessKind::Failure, "refuted", &first, &reasons),
            (Ending::Stopped, _) => problem(NonSuccessKind::Error, "stopped", &first, &reasons),
            (Ending::Complete, Outcome::Inconclusive) => {
                problem(NonSuccessKind::Error, "inconclusive", &first, &reasons)
            }
            (Ending::Complete, Outcome::Held) => TestCaseStatus::success(),
        };
        let time = Duration::from_nanos(summary.end);
        self.time += time;
        let mut case = TestCase::new(summary.name(), status);
        case.set_classname("toprope").set_time(time);
        case.add_property(("run", summary.started.run.as_str()));
        case.add_property(("hypothesis", summary.hypothesis().as_str()));
        case.add_property(("verdict", judgement.outcome.to_string().as_str()));
        case.add_property(("seed", summary.started.seed.to_string().as_str()));
        for (key, ms) in [("detect", judgement.detect_ms), ("recover", judgement.recover_ms)] {
            if let Some(ms) = ms {
                case.add_property((key, millis(ms).as_str()));
            }
        }
        for probe in &judgement.probes {
            let (good, all) = probe.samples;
            let text = match all {
                0 => format!("{}: no sample judged", probe.outcome),
                _ => format!("{}: {} of {} good", probe.outcome, words::number(good), words::samples(all)),
            };
            case.add_property((format!("probe {}", name(&probe.name)).as_str(), text.as_str()));
        }
        if !reasons.is_empty() {
            case.set_system_out(reasons);
        }
        self.suite.add_test_case(case);
    }

    /// Adds an experiment that could not be run: an invalid file, a plan that was refused.
    pub fn not_run(&mut self, experiment: &str, why: &str) {
        let why = clean(why, TEXT);
        let first = why.lines().next().unwrap_or_default().to_owned();
        let mut case = TestCase::new(clean(experiment, NAME), problem(NonSuccessKind::Error, "not-run", &first, &why));
        case.set_classname("toprope").set_time(Duration::ZERO);
        self.suite.add_test_case(case);
    }

    /// The whole as XML.
    pub fn xml(&self) -> String {
        let mut report = Report::new("toprope");
        let mut suite = self.suite.clone();
        suite.set_time(self.time);
        report.set_time(self.time);
        report.add_test_suite(suite);
        report.to_string().expect("writing XML to memory cannot fail")
    }
}

fn problem(kind: NonSuccessKind, ty: &str, message: &str, description: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(ty).set_message(message).set_description(description);
    status
}
