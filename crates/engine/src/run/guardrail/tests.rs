use toprope_model::event::Phase;

use super::*;
use crate::verdict::testlog::experiment;

const MS: u64 = 1_000_000;

fn sample(probe: u32, ok: bool) -> Sample {
    Sample { probe, started: 0, ok, value: Some(1.0), why: None, broken: false, retries: 0, wrote: None }
}

fn valued(value: f64) -> Sample {
    Sample { value: Some(value), ..sample(0, true) }
}

/// The guardrails of an experiment with two probes `a` and `b`, asked every 100 ms.
fn guardrails(items: &str) -> Guardrails {
    let (guardrails, _) = with_experiment(items);
    guardrails
}

fn with_experiment(items: &str) -> (Guardrails, Experiment) {
    let e = experiment(&format!(
        "hypothesis: x\nsteady-state: {{for: 60s}}\nprobes:\n- http: {{get: \"http://127.0.0.1/\", name: a, interval: 100ms, timeout: \
         500ms}}\n- http: {{get: \"http://127.0.0.1/\", name: b, interval: 100ms, timeout: 500ms, when: at}}\nmethod:\n- network-latency: \
         {{to: \"127.0.0.1:5432\", delay: 200ms, for: 60s}}\nguardrails:\n{items}\n"
    ));
    let watched =
        |probe: u32, name: &str, when| Watched { probe, name: name.into(), unit: "ms".into(), when, waits: false };
    let probes = [watched(0, "a", When::During), watched(1, "b", When::At)];
    (Guardrails::new(&e, &probes), e)
}

fn stage(in_force: u32) -> Stage {
    Stage { phase: Phase::Inject, in_force, first_injection: None, over: false }
}

#[test]
fn a_ratio_is_decided_over_its_window_only() {
    let mut g = guardrails("- error-ratio: {probe: a, above: 50%, over: 1s}");
    for i in 0..4 {
        assert_eq!(g.look(&sample(0, false), i * 100 * MS), None, "too few");
    }
    assert!(g.look(&sample(0, false), 400 * MS).unwrap().contains("5 of the last 5"));
    for i in 0..20 {
        assert_eq!(g.look(&sample(0, true), 3000 * MS + i * 100 * MS), None);
    }
}

#[test]
fn a_row_is_broken_by_a_good_sample_and_counts_per_probe() {
    let mut g = guardrails("- bad-in-a-row: {samples: 3}");
    for (probe, ok) in [(0, false), (0, false), (1, false), (0, true), (0, false), (0, false), (1, false)] {
        assert_eq!(g.look(&sample(probe, ok), 0), None);
    }
    assert!(g.look(&sample(1, false), 0).unwrap().contains("of b in a row"));
}

#[test]
fn a_value_is_told_with_its_unit() {
    let mut g = guardrails("- value: {probe: a, keeps: \"< 500ms\"}");
    assert_eq!(g.look(&sample(0, true), 0), None);
    let why = g.look(&valued(2001.4), 0).unwrap();
    assert_eq!(why, "the value of a is 2001.4 ms, and must keep < 500ms");
}

#[test]
fn a_tested_ratio_stops_once_it_is_shown_and_says_what_shows_it() {
    let mut g = guardrails("- error-ratio: {probe: a, above: 2%, confidence: 99%}");
    assert_eq!(g.look(&sample(0, false), 0), None, "one bad sample is no trend");
    let why = g.look(&sample(0, false), 0).unwrap();
    assert!(
        why.starts_with("more than 2% of the samples of a are bad: 2 of 2 since the injection (evidence "),
        "{why}"
    );
    assert!(why.ends_with("and 100 is enough)"), "{why}");
    // A trial of its own begins anew.
    g.reset(0);
    for i in 0..1000 {
        assert_eq!(g.look(&sample(0, i % 100 != 0), 0), None, "1% is below 2%");
    }
    let more = (0..400).find_map(|i| g.look(&sample(0, i % 5 != 0), 0));
    assert!(more.is_some(), "20% is above 2%, whatever was before");
}

#[test]
fn a_budget_that_burns_is_told_by_its_objective() {
    let mut g = guardrails("- burn-rate: {probe: a, objective: 99.9%, above: 10}");
    let bad_every =
        |g: &mut Guardrails, every: u32, n: u32| (1..=n).find_map(|i| g.look(&sample(0, i % every != 0), 0));
    assert_eq!(bad_every(&mut g, 200, 2000), None, "five times is less than ten");
    g.reset(0);
    let why = bad_every(&mut g, 4, 100).unwrap();
    assert!(
        why.contains("burns the error budget of 99.9% more than 10 times as fast as it lasts, 250 times so far"),
        "{why}"
    );
}

#[test]
fn worse_than_before_compares_with_the_steady_state() {
    let items = "- worse-than-before: {probe: a, by: 20%}";
    let (mut g, mut random) = (guardrails(items), Random(7));
    let latency = |random: &mut Random, times: f64| valued(times * (40.0 + 20.0 * random.uniform()));
    let seen = |times: f64, random: &mut Random, g: &mut Guardrails| {
        g.reset(0);
        (0..300).for_each(|_| g.note_before(&latency(random, 1.0)));
        assert_eq!(g.begin(0), None);
        (0..300).find_map(|i| g.look(&latency(random, times), 0).map(|why| (i, why)))
    };
    assert_eq!(seen(1.1, &mut random, &mut g), None, "10% is less than 20%");
    let (after, why) = seen(2.0, &mut random, &mut g).expect("twice as slow is more than 20%");
    assert!(after < 20, "{after}");
    assert!(why.contains("the p50 of a is more than 20% above that of the steady state: above 6"), "{why}");
    // Samples that fail fast are no improvement.
    g.reset(0);
    (0..300).for_each(|_| g.note_before(&latency(&mut random, 1.0)));
    assert_eq!(g.begin(0), None);
    assert!((0..30).any(|_| g.look(&Sample { value: Some(0.1), ..sample(0, false) }, 0).is_some()));
    // What was not seen before cannot be told from what is now.
    g.reset(0);
    (0..5).for_each(|_| g.note_before(&valued(1.0)));
    assert!(g.begin(0).unwrap().contains("not known well enough to tell whether it gets worse: 5 samples"));
}

#[test]
fn telemetry_is_lost_when_a_probe_fails_itself_or_is_silent() {
    let broken = Sample { ok: false, broken: true, why: Some("curl: not found".into()), ..sample(0, false) };
    let mut g = guardrails("- error-ratio: {probe: a, above: 50%}");
    g.begin(0);
    for i in 0..4 {
        assert_eq!(g.look(&broken, i), None);
    }
    let why = g.look(&broken, 5).unwrap();
    assert_eq!(why, "nothing is known of a any more: the probe itself failed 5 times in a row: curl: not found");
    // Five intervals and the timeout are a second.
    let mut g = guardrails("- error-ratio: {probe: a, above: 50%}");
    g.begin(100 * MS);
    assert_eq!(g.listen(1100 * MS, stage(0), &[0, 0]), None);
    assert_eq!(g.look(&sample(0, true), 1100 * MS), None);
    assert_eq!(g.listen(2000 * MS, stage(0), &[1, 0]), None);
    let why = g.listen(2101 * MS, stage(0), &[1, 0]).unwrap();
    assert_eq!(why, "nothing is known of a any more: it gave no answer for 1s");
    assert_eq!(g.listen(2101 * MS, Stage { phase: Phase::Recovery, ..stage(0) }, &[1, 0]), None);
    // One that is asked under faults only is missed under faults only, and as the manifest says.
    let mut g = guardrails("- bad-in-a-row: {probe: b, samples: 3}\n- lost-telemetry: {probe: b, samples: 2, for: 3s}");
    g.begin(0);
    assert_eq!(g.listen(60_000 * MS, stage(0), &[0, 0]), None);
    assert_eq!(g.listen(62_000 * MS, stage(1), &[0, 0]), None);
    assert!(g.listen(63_001 * MS, stage(1), &[0, 0]).is_some());
    let broken = Sample { probe: 1, ..broken };
    assert!(g.look(&broken, 0).is_none() && g.look(&broken, 0).is_some());
    // Whom no guardrail watches may be silent.
    assert_eq!(g.listen(90_000 * MS, stage(0), &[0, 0]), None);
}

#[test]
fn what_is_watched_for_is_told_with_its_confidence() {
    let (g, e) = with_experiment(
        "- error-ratio: {above: 2%, confidence: 99%}\n- bad-in-a-row: {probe: a, samples: 9}\n- worse-than-before: {probe: a, by: 20%}",
    );
    assert_eq!(
        g.in_words(&e.spec.guardrails),
        [
            "more than 2% of the samples of any probe bad, shown by all samples since the injection with 99% confidence \
             (stops at most 1% of innocent runs, 0.5% for each of 2 probes)",
            "9 bad samples of a in a row",
            "the p50 of a more than 20% above that of the steady state, shown by the samples of the steady state and those \
             since the injection with 99% confidence (stops at most 1% of innocent runs)",
            "a itself failed 5 times in a row, or gave no answer for 1s",
            "b itself failed 5 times in a row, or gave no answer for 1s",
        ]
    );
}

/// SplitMix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The share of runs of 300 samples that a guardrail stops, of systems that are just as bad as it allows.
fn stopped(
    items: &str,
    mut before: impl FnMut(&mut Random) -> Sample,
    mut now: impl FnMut(&mut Random) -> Sample,
) -> f64 {
    let (runs, mut random, mut g) = (2000, Random(11), guardrails(items));
    let stopped = (0..runs).filter(|_| {
        g.reset(0);
        (0..60).for_each(|_| g.note_before(&before(&mut random)));
        assert_eq!(g.begin(0), None);
        (0..300).any(|_| g.look(&now(&mut random), 0).is_some())
    });
    stopped.count() as f64 / f64::from(runs)
}

#[test]
fn innocent_runs_are_stopped_as_seldom_as_was_promised() {
    // 5% of 2000 runs are 100; 131 are beyond three standard deviations.
    let most = 131.0 / 2000.0;
    let bad = |share: f64| move |random: &mut Random| sample(0, random.uniform() >= share);
    let value = |times: f64| move |random: &mut Random| valued(times * -random.uniform().ln());
    for (items, stopped) in [
        ("error-ratio", stopped("- error-ratio: {probe: a, above: 10%, confidence: 95%}", bad(0.0), bad(0.1))),
        (
            "burn-rate",
            stopped("- burn-rate: {probe: a, objective: 99%, above: 10, confidence: 95%}", bad(0.0), bad(0.1)),
        ),
        (
            "worse-than-before",
            stopped("- worse-than-before: {probe: a, by: 20%, confidence: 95%}", value(1.0), value(1.2)),
        ),
        (
            "worse-than-before at its p90",
            stopped(
                "- worse-than-before: {probe: a, by: 0%, percentile: p90, confidence: 95%}",
                value(1.0),
                value(1.0),
            ),
        ),
    ] {
        assert!(stopped <= most, "{items} stopped {stopped} of the runs");
    }
    // The same test is not asleep: a window that is looked at after every sample has no such promise.
    let peeking = stopped("- error-ratio: {probe: a, above: 10%, over: 1h}", bad(0.0), bad(0.1));
    assert!(peeking > 0.3, "{peeking}");
}
