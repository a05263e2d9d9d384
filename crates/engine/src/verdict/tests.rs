use toprope_model::event::{Event, Phase, Record};
use toprope_model::experiment::{Experiment, When};
use toprope_model::step::{Effect, Undone};
use toprope_model::verdict::{Ending, Judgement, Outcome};

use super::testlog::{Log, checkout, delay, experiment};
use super::{judge, judge_trial, steady_state};

mod search;

/// A run of 3 s steady state, 30 s fault and 10 s recovery, whose probe is asked every 100 ms and is good.
fn good_run(experiment: &Experiment) -> Log {
    let mut log = Log::new(experiment);
    log.phases(3000, 33_000, 43_000).good(0, 0..43_000, 100, 20.0);
    log.inject(0, 3000, 33_000);
    log
}

fn without(log: &Log, gone: impl Fn(&Event) -> bool) -> Vec<Record> {
    log.records().into_iter().filter(|r| !gone(&r.event)).collect()
}

#[track_caller]
fn expect(judgement: &Judgement, outcome: Outcome, says: &str) {
    assert_eq!(judgement.outcome, outcome, "{:#?}", judgement.reasons);
    let all = judgement.reasons.join("\n");
    assert!(all.contains(says), "`{says}` is not in:\n{all}");
}

#[test]
fn a_good_run_holds_and_says_what_it_rests_on() {
    let e = checkout("p99: \"< 300ms\"");
    let judgement = judge(&e, &good_run(&e).records());
    expect(&judgement, Outcome::Held, "p99 20ms over 301 samples (wanted < 300ms) while the fault was in force");
    assert_eq!(judgement.exit_code(), 0);
    assert_eq!(judgement.reasons[0].split(": ").next(), Some("`checkout`"));
    assert!(judgement.reasons[1].contains("`network-latency` took (delay 201ms of 200ms asked)"));
    assert_eq!(judgement.probes[0].samples, (400, 400));
    assert_eq!((judgement.detect_ms, judgement.recover_ms), (None, None));
    assert_eq!(judgement.next[0].command.as_deref(), Some("toprope run FILE --search delay=200ms..2s"));
}

#[test]
fn bad_samples_in_force_refute() {
    let e = checkout("");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 43_000).good(0, 0..4000, 100, 20.0).good(0, 8000..43_000, 100, 20.0);
    log.bad(0, 4000..8000, 100, "status 503, wanted 200");
    log.inject(0, 3000, 33_000);
    let judgement = judge(&e, &log.records());
    expect(
        &judgement,
        Outcome::Refuted,
        "40 of 301 samples were bad while the fault was in force; the first: status 503, wanted 200",
    );
    assert_eq!(judgement.exit_code(), 1);
    // First bad: asked at 4000, answered at 4005; back: asked at 8000, answered at 8020.
    assert_eq!(judgement.detect_ms, Some(1005.0));
    assert_eq!(judgement.recover_ms, Some(4015.0));
    let smallest = judgement.next[0].command.as_deref().unwrap();
    assert_eq!(
        smallest,
        "toprope inject network-latency 'from={\"process\":\"checkout\"}' to=127.0.0.1:5432 delay=200ms --for 3s --probe \
         http://127.0.0.1:8080/checkout"
    );
    assert_eq!(judgement.next[1].command.as_deref(), Some("toprope run --again 20260301-120000-7f3a"));
}

#[test]
fn values_out_of_tolerance_refute_although_every_sample_is_good() {
    let e = checkout("p99: \"< 300ms\"");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 43_000).good(0, 0..3000, 100, 20.0).good(0, 33_100..43_000, 100, 20.0);
    log.good(0, 3000..33_000, 100, 450.0);
    log.inject(0, 3000, 33_000);
    let judgement = judge(&e, &log.records());
    expect(&judgement, Outcome::Refuted, "p99 was 450ms over 300 samples while the fault was in force; wanted < 300ms");
    // What shows it needs the tolerance, and a hundred samples, 240 ms apart.
    let smallest = judgement.next[0].command.as_deref().unwrap();
    assert!(smallest.ends_with(
        " --for 30s --probe '{\"http\":{\"get\":\"http://127.0.0.1:8080/checkout\",\"status\":200,\"name\":\"checkout\",\"p99\":\"< 300ms\"}}'"
    ), "{smallest}");
    // The anatomy is that of the values then.
    assert_eq!(judgement.detect_ms, Some(450.0));
    assert_eq!(judgement.recover_ms, Some(33_120.0 - 3450.0));
}

#[test]
fn a_share_of_bad_samples_may_be_tolerated() {
    let e = checkout("good: 90%");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 43_000).good(0, 0..31_000, 100, 20.0).good(0, 33_100..43_000, 100, 20.0);
    log.bad(0, 31_000..33_000, 100, "timed out");
    log.inject(0, 3000, 33_000);
    expect(&judge(&e, &log.records()), Outcome::Held, "280 of 300 samples good (93.3%; wanted at least 90%)");
    log.bad(0, 3050..33_000, 100, "timed out");
    expect(&judge(&e, &log.records()), Outcome::Refuted, "(46.7% good; wanted at least 90%)");
}

#[test]
fn without_a_steady_state_nothing_is_said() {
    let e = checkout("");
    let mut log = Log::new(&e);
    log.bad(0, 0..3000, 1000, "connection refused");
    let records = log.records();
    let why = steady_state(&e, &records).unwrap_err();
    assert_eq!(why, ["`checkout`: 3 of 3 samples were bad in the steady state; the first: connection refused."]);
    log.phase(3000, Phase::Verdict);
    let judgement = judge(&e, &log.records());
    expect(&judgement, Outcome::Inconclusive, "The steady state was not seen");
    assert_eq!(judgement.exit_code(), 3);
    let none = Log::new(&e).records();
    assert_eq!(steady_state(&e, &none).unwrap_err(), ["`checkout`: there are no samples in the steady state."]);
}

#[test]
fn few_steady_samples_are_judged_by_the_worst() {
    let e = checkout("p99: \"< 300ms\"");
    let mut log = Log::new(&e);
    log.good(0, 0..3000, 1000, 20.0);
    assert_eq!(steady_state(&e, &log.records()), Ok(()));
    log.sample(0, 2500, 400.0, None);
    let why = steady_state(&e, &log.records()).unwrap_err();
    assert!(why[0].contains("4 samples are too few for a p99 (it needs 100), and the worst of them"), "{why:?}");
}

#[test]
fn a_fault_that_did_not_take_shows_nothing() {
    let e = checkout("");
    for (took, says) in [(Some(false), "did not take"), (None, "could not be measured")] {
        let mut log = good_run(&e);
        log.bad(0, 5000..6000, 100, "status 503");
        let effect = Effect { took, note: Some("no connection came by".into()), ..Effect::default() };
        let mut records = without(&log, |e| matches!(e, Event::Effect { .. }));
        let at = records.iter().position(|r| matches!(r.event, Event::Undoing { .. })).unwrap();
        let event = Event::Effect { injection: 0, effect, last: true };
        records.insert(at, Record { event, ..records[at].clone() });
        let judgement = judge(&e, &records);
        expect(&judgement, Outcome::Inconclusive, says);
        expect(&judgement, Outcome::Inconclusive, "no connection came by");
        assert_eq!(judgement.probes[0].outcome, Outcome::Inconclusive);
    }
    let records = without(&good_run(&e), |e| matches!(e, Event::Effect { .. }));
    expect(&judge(&e, &records), Outcome::Inconclusive, "effect of `network-latency` was never measured");
}

#[test]
fn the_last_measurement_of_an_effect_counts() {
    let e = checkout("");
    let mut log = good_run(&e);
    let early = Effect { took: None, ..Effect::default() };
    log.at(4000, Event::Effect { injection: 0, effect: early, last: false });
    assert_eq!(judge(&e, &log.records()).outcome, Outcome::Held);
}

#[test]
fn a_fault_that_reached_less_refutes_but_never_holds() {
    let e = checkout("");
    let mut log = good_run(&e);
    let effect = Effect { took: Some(true), reached: Some(0.8), measures: vec![delay(200.0)], note: None };
    log.at(32_999, Event::Effect { injection: 0, effect, last: true });
    expect(&judge(&e, &log.records()), Outcome::Inconclusive, "`network-latency` reached only 80% of its target");
    log.bad(0, 5050..6000, 100, "status 503");
    assert_eq!(judge(&e, &log.records()).outcome, Outcome::Refuted);
}

#[test]
fn a_fault_that_failed_or_ended_early_shows_nothing() {
    let e = checkout("");
    let mut log = Log::new(&e);
    log.phases(3000, 3000, 4000).good(0, 0..4000, 100, 20.0);
    log.at(3000, Event::InjectFailed { injection: 0, fault: 0, error: "no process matches".into() });
    let judgement = judge(&e, &log.records());
    expect(&judgement, Outcome::Inconclusive, "`network-latency` could not be injected: no process matches.");
    assert_eq!(judgement.ending, Ending::Complete);
    let mut log = good_run(&e);
    log.bad(0, 5050..6000, 100, "status 503");
    log.at(9000, Event::Ended { injection: 0, why: "the injector was killed".into() });
    expect(
        &judge(&e, &log.records()),
        Outcome::Inconclusive,
        "ended by itself 6s after it was injected: the injector was killed",
    );
}

#[test]
fn too_few_samples_and_broken_probes_are_no_pass() {
    let e = checkout("p99: \"< 300ms\", interval: 1s");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 43_000).good(0, 0..43_000, 1000, 20.0);
    log.inject(0, 3000, 33_000);
    let judgement = judge(&e, &log.records());
    expect(&judgement, Outcome::Inconclusive, "p99 needs 100 samples, and there are 31 while the fault was in force");
    assert!(judgement.next[0].text.starts_with("69 more samples are needed: set `interval: "), "{:?}", judgement.next);
    let e = checkout("");
    let mut log = good_run(&e);
    log.broken(0, 5000);
    expect(&judge(&e, &log.records()), Outcome::Inconclusive, "the probe itself failed in 1 of 302 samples");
    // Missing evidence cannot save what is refuted without it.
    log.bad(0, 5050..6000, 100, "status 503");
    assert_eq!(judge(&e, &log.records()).outcome, Outcome::Refuted);
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 43_000).good(0, 0..2900, 100, 20.0);
    log.inject(0, 3000, 33_000);
    expect(&judge(&e, &log.records()), Outcome::Inconclusive, "there are no samples while the fault was in force");
}

#[test]
fn few_samples_after_the_fault_are_judged_with_those_in_force() {
    let e = checkout("p99: \"< 300ms\"");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 34_000).good(0, 0..33_000, 100, 20.0).good(0, 33_100..34_000, 100, 900.0);
    log.inject(0, 3000, 33_000);
    let judgement = judge(&e, &log.records());
    expect(&judgement, Outcome::Refuted, "p99 was 900ms over 309 samples while the fault was in force and after it");
    // One slow sample out of 311 is no p99.
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 34_000).good(0, 0..34_000, 100, 20.0).sample(0, 33_450, 900.0, None);
    log.inject(0, 3000, 33_000);
    assert_eq!(judge(&e, &log.records()).outcome, Outcome::Held);
}

#[test]
fn what_is_bad_after_the_fault_refutes_too() {
    let e = checkout("");
    let mut log = good_run(&e);
    log.bad(0, 40_050..41_000, 100, "status 500");
    expect(&judge(&e, &log.records()), Outcome::Refuted, "bad after the fault");
}

#[test]
fn a_request_in_flight_at_the_injection_belongs_to_the_fault() {
    let e = checkout("");
    let mut log = good_run(&e);
    // Asked in the steady state, timed out while the fault was in force.
    log.sample(0, 2500, 5000.0, Some("timed out after 5s"));
    expect(&judge(&e, &log.records()), Outcome::Refuted, "timed out after 5s");
}

#[test]
fn fast_failures_do_not_mend_a_percentile_and_slow_ones_count() {
    let e = checkout("good: 30%, p50: \"< 300ms\"");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 33_000).good(0, 0..3000, 100, 20.0);
    log.good(0, 3000..33_000, 200, 450.0).bad(0, 3100..33_000, 200, "connection refused");
    log.inject(0, 3000, 33_000);
    expect(&judge(&e, &log.records()), Outcome::Refuted, "p50 was 450ms over 150 samples");
}

fn recovering(within: &str) -> Experiment {
    experiment(&format!(
        "hypothesis: the cart is back soon after it was killed\nprobes:\n- http: {{get: \"http://127.0.0.1:1/\", recovers: \
         {{within: {within}}}}}\nmethod:\n- process-kill: {{target: {{process: cart}}}}\n"
    ))
}

fn killed(e: &Experiment, bad_until: u64, end: u64) -> Log {
    let mut log = Log::new(e);
    log.phases(3000, 3010, end).good(0, 0..2950, 100, 5.0).bad(0, 3000..bad_until, 100, "connection refused");
    log.good(0, bad_until..end, 100, 5.0);
    log.inject(0, 3000, 3010);
    log
}

#[test]
fn a_probe_that_comes_back_in_time_held() {
    let e = recovering("10s");
    let judgement = judge(&e, &killed(&e, 7000, 9000).records());
    expect(&judgement, Outcome::Held, "40 of 60 samples bad, good again 4s after the fault (allowed 10s)");
    assert_eq!(judgement.detect_ms, Some(5.0));
    assert_eq!(judgement.recover_ms, Some(4000.0));
    let judgement = judge(&e, &killed(&e, 3000, 9000).records());
    expect(&judgement, Outcome::Held, "all 60 samples good since the injection");
}

#[test]
fn a_probe_that_stays_bad_is_refuted_and_one_not_watched_long_enough_is_not() {
    let e = recovering("10s");
    let judgement = judge(&e, &killed(&e, 15_000, 15_000).records());
    expect(
        &judgement,
        Outcome::Refuted,
        "it did not recover: still bad 10.1s after the fault, and had 10s: connection refused",
    );
    assert_eq!(judgement.recover_ms, None);
    let judgement = judge(&e, &killed(&e, 9000, 9000).records());
    expect(&judgement, Outcome::Inconclusive, "the run ended 6s after the fault, when it was not yet good again");
    let judgement = judge(&e, &killed(&e, 8800, 9000).records());
    expect(&judgement, Outcome::Inconclusive, "2 good samples in a row, and it takes 3");
}

#[test]
fn a_relapse_after_the_time_is_refuted() {
    let e = recovering("2s");
    let mut log = killed(&e, 4000, 20_000);
    log.bad(0, 15_050..15_500, 100, "status 500");
    let judgement = judge(&e, &log.records());
    expect(&judgement, Outcome::Refuted, "it was bad 12.1s after the fault, and had 2s");
    assert_eq!(judgement.recover_ms, Some(12_500.0));
}

#[test]
fn each_fault_gives_its_own_time_to_recover() {
    let e = experiment(
        "hypothesis: it comes back each time\nprobes:\n- http: {get: \"http://127.0.0.1:1/\", recovers: {within: 5s}}\nmethod:\n\
         - repeat: {times: 2, every: 20s, steps: [{process-kill: {target: {process: cart}}}]}\n",
    );
    let run = |first_back: u64| {
        let mut log = Log::new(&e);
        log.phases(3000, 23_010, 40_000).good(0, 0..2950, 100, 5.0);
        log.bad(0, 3000..first_back, 100, "connection refused").good(0, first_back..22_900, 100, 5.0);
        log.bad(0, 23_000..25_000, 100, "connection refused").good(0, 25_000..40_000, 100, 5.0);
        log.inject(0, 3000, 3010);
        log.inject(0, 23_000, 23_010);
        judge(&e, &log.records())
    };
    assert_eq!(run(6000).outcome, Outcome::Held);
    // Back before the second kill, yet not within its own five seconds.
    expect(&run(12_000), Outcome::Refuted, "it was bad 5.1s after the fault, and had 5s");
}

#[test]
fn lost_writes_refute() {
    let e = experiment(
        "hypothesis: no order is lost\nprobes:\n- http: {get: \"http://127.0.0.1:1/\", find: x, loses: 0}\nmethod:\n- process-kill: \
         {target: {process: cart}}\n",
    );
    let log = killed(&e, 4000, 9000);
    expect(&judge(&e, &log.records()), Outcome::Inconclusive, "were not looked for");
    let found = |acknowledged, lost: &[&str]| {
        let mut log = log.clone();
        let lost = lost.iter().map(|l| (*l).to_owned()).collect();
        log.at(8999, Event::Found { probe: 0, acknowledged, lost });
        judge(&e, &log.records())
    };
    expect(
        &found(40, &["order-7"]),
        Outcome::Refuted,
        "1 of 40 acknowledged writes is lost, and none may be: order-7.",
    );
    expect(&found(40, &[]), Outcome::Held, "all 40 acknowledged writes found again");
    expect(&found(0, &[]), Outcome::Inconclusive, "no write was acknowledged");
    assert_eq!(found(40, &["order-7"]).probes[0].lost, Some((40, 1)));
}

#[test]
fn a_stopped_run_is_refuted_only_if_nothing_could_have_mended_it() {
    let e = checkout("good: 90%");
    let stopped = |bad_until: u64| {
        let mut log = Log::new(&e);
        log.phases(3000, 8000, 9000).good(0, 0..4000, 100, 20.0).bad(0, 4000..bad_until, 100, "status 503");
        log.good(0, bad_until..9000, 100, 20.0);
        log.inject(0, 3000, 8000);
        log.stop(8000, "guardrail", "more than 10% of the samples of any probe bad over 5s");
        judge(&e, &log.records())
    };
    // 20 of 51 are bad, and of 301 there would be 60 allowed (interval 1 s of 30 s: 30 samples are planned).
    let judgement = stopped(4200);
    expect(&judgement, Outcome::Inconclusive, "The run was stopped after 8s by a guardrail");
    assert_eq!((judgement.ending, judgement.exit_code()), (Ending::Stopped, 5));
    assert_eq!(judgement.probes[0].outcome, Outcome::Inconclusive);
    let judgement = stopped(7900);
    expect(&judgement, Outcome::Refuted, "39 of 51 samples were bad");
    assert_eq!((judgement.ending, judgement.exit_code()), (Ending::Stopped, 1));
}

#[test]
fn the_end_must_be_in_the_log() {
    let e = checkout("");
    let open = without(&good_run(&e), |e| matches!(e, Event::Phase(Phase::Verdict)));
    expect(&judge(&e, &open), Outcome::Inconclusive, "The log has no end");
    let mut log = good_run(&e);
    log.at(50_000, Event::Sealed { wall: "2026-03-01T13:00:00Z".into(), notes: vec![] });
    let sealed: Vec<Record> = without(&log, |e| matches!(e, Event::Phase(Phase::Verdict)));
    expect(&judge(&e, &sealed), Outcome::Inconclusive, "killed before its end");
    expect(&judge(&e, &[]), Outcome::Inconclusive, "first event is missing");
}

#[test]
fn what_is_not_undone_is_told_first() {
    let e = checkout("");
    let records = without(&good_run(&e), |e| matches!(e, Event::Undone { .. }));
    let judgement = judge(&e, &records);
    assert_eq!((judgement.ending, judgement.exit_code()), (Ending::NotUndone, 4));
    assert!(judgement.reasons[0].contains("`network-latency` was not undone"), "{:?}", judgement.reasons);
    let mut log = good_run(&e);
    let undone =
        Undone { clean: false, by: "run".into(), notes: vec!["the qdisc is not ours any more".into()], drained: None };
    log.at(33_001, Event::Undone { injection: 0, undone });
    let judgement = judge(&e, &log.records());
    assert_eq!(judgement.exit_code(), 4);
    assert_eq!(judgement.reasons[0], "`network-latency` could not be undone: the qdisc is not ours any more.");
    // The guard did it in the end.
    log.undo(0, 33_500);
    assert_eq!(judge(&e, &log.records()).ending, Ending::Complete);
}

#[test]
fn a_claim_needs_the_samples_that_it_needs() {
    let e = checkout("p99: \"< 300ms\", confidence: 99%, interval: 30ms");
    let run = |every| {
        let mut log = Log::new(&e);
        log.phases(3000, 33_000, 34_000).good(0, 0..34_000, every, 20.0);
        log.inject(0, 3000, 33_000);
        judge(&e, &log.records())
    };
    expect(&run(30), Outcome::Held, "p99 is < 300ms, with 99% confidence");
    // 301 samples have a p99, and it is far below; the system is not shown to.
    let judgement = run(100);
    expect(
        &judgement,
        Outcome::Inconclusive,
        "0 of 301 samples were not while the fault was in force, so that the share lies between 0% and 2.1% (1% may be; \
         evidence 6.49, and 100 is enough); if it goes on like this, 343 more samples are needed",
    );
    let claim = &judgement.probes[0].claims[0];
    assert_eq!((claim.claim.as_str(), claim.samples, claim.missing), ("p99 < 300ms", (0, 301), Some(343)));
    assert!((claim.alpha - 0.01).abs() < 1e-12 && (claim.allowed - 0.01).abs() < 1e-12, "{claim:?}");
}

#[test]
fn a_claim_about_the_share_of_good_samples() {
    let e = checkout("good: 90%, confidence: 95%");
    let run = |bad_every: usize| {
        let mut log = Log::new(&e);
        log.phases(3000, 33_000, 33_000).good(0, 0..2950, 100, 20.0);
        for (i, ms) in (3000..33_000).step_by(100).enumerate() {
            log.sample(0, ms, 20.0, (i % bad_every == 0).then_some("status 503"));
        }
        log.inject(0, 3000, 33_000);
        judge(&e, &log.records())
    };
    expect(
        &run(100),
        Outcome::Held,
        "at least 90% of the samples are good, with 95% confidence: 3 of 300 samples were not",
    );
    expect(&run(9), Outcome::Inconclusive, "neither is shown with 95% confidence");
    expect(&run(3), Outcome::Refuted, "it is not so that at least 90% of the samples are good, with 95% confidence");
}

#[test]
fn the_phase_of_a_probe_decides_what_is_judged() {
    for (when, times) in [("before", 0..2900), ("at", 3000..32_900), ("after", 33_100..43_000)] {
        let mut e = checkout(&format!("when: {}", if when == "before" { "during" } else { when }));
        // A second one that is judged by the fault: with `before` alone nothing could be refuted.
        if when == "before" {
            let mut other = checkout("").spec.probes.remove(0);
            other.common.name = Some("other".into());
            e.spec.probes.push(other);
            e.spec.probes[0].common.when = When::Before;
        }
        let e = e;
        let mut log = Log::new(&e);
        log.phases(3000, 33_000, 43_000).good(0, times.clone(), 100, 20.0);
        if e.spec.probes.len() > 1 {
            log.good(1, 0..43_000, 100, 20.0);
        }
        log.inject(0, 3000, 33_000);
        assert_eq!(judge(&e, &log.records()).outcome, Outcome::Held, "{when}: {:?}", judge(&e, &log.records()).reasons);
        let mut empty = Log::new(&e);
        empty.phases(3000, 33_000, 43_000);
        empty.inject(0, 3000, 33_000);
        assert_eq!(judge(&e, &empty.records()).outcome, Outcome::Inconclusive, "{when}");
    }
}

#[test]
fn a_steady_state_of_no_time_is_not_asked_for() {
    let e = experiment(
        "hypothesis: the tests pass\nsteady-state: {for: 0s}\nprobes:\n- http: {get: \"http://127.0.0.1:1/\"}\nmethod:\n- \
         network-latency: {delay: 1s, for: 30s}\n",
    );
    let mut log = Log::new(&e);
    assert_eq!(steady_state(&e, &log.records()), Ok(()));
    log.phases(0, 33_000, 34_000).good(0, 3100..33_000, 1000, 20.0);
    log.inject(0, 3000, 33_000);
    assert_eq!(judge(&e, &log.records()).outcome, Outcome::Held);
}

#[test]
fn a_probe_that_waits_is_judged_by_what_it_says_at_last() {
    let e = checkout("");
    let mut log = Log::new(&e);
    log.started.probes[0].waits = true;
    log.started.probes[0].recovers = true;
    log.phases(3000, 33_000, 43_000);
    log.inject(0, 3000, 33_000);
    assert_eq!(steady_state(&e, &log.records()), Ok(()));
    expect(&judge(&e, &log.records()), Outcome::Inconclusive, "there are no samples since the injection");
    let mut fired = log.clone();
    fired.sample(0, 40_000, 1.0, None);
    assert_eq!(judge(&e, &fired.records()).outcome, Outcome::Held);
    log.sample(0, 40_000, 1.0, Some("the alert did not fire within 2m"));
    expect(&judge(&e, &log.records()), Outcome::Refuted, "did not fire within 2m");
}

#[test]
fn samples_of_a_probe_that_is_not_known_are_left_out() {
    let e = checkout("");
    let mut log = good_run(&e);
    log.sample(7, 5000, 1.0, Some("who is that?"));
    assert_eq!(judge(&e, &log.records()).outcome, Outcome::Held);
}

/// Two faults one after the other, of 10 s each and 5 s apart.
fn two_faults(e: &Experiment) -> Log {
    let mut log = Log::new(e);
    log.phases(3000, 28_000, 38_000);
    log.inject(0, 3000, 13_000);
    log.inject(1, 18_000, 28_000);
    log
}

fn two_latencies() -> Experiment {
    experiment(
        "hypothesis: checkout stays fast\nprobes:\n- http: {get: \"http://127.0.0.1:8080/checkout\", status: 200, name: \
         checkout}\nmethod:\n- network-latency: {delay: 200ms, for: 10s}\n- wait: {for: 5s}\n- network-latency: {delay: 1s, \
         for: 10s, name: more}\n",
    )
}

#[test]
fn each_fault_must_have_been_asked_about() {
    let e = two_latencies();
    let mut log = two_faults(&e);
    log.good(0, 0..17_000, 1000, 20.0).good(0, 28_500..38_000, 1000, 20.0);
    let says = "it was not asked in 1 of 2 injections";
    expect(&judge(&e, &log.records()), Outcome::Inconclusive, says);
    log.sample(0, 20_000, 20.0, None);
    expect(&judge(&e, &log.records()), Outcome::Held, "while faults were in force");
}

#[test]
fn what_was_asked_before_a_fault_and_was_good_says_nothing_of_it() {
    let e = checkout("");
    let mut log = Log::new(&e);
    log.phases(3000, 4000, 14_000).good(0, 0..2900, 500, 20.0).good(0, 4500..14_000, 500, 20.0);
    log.inject(0, 3000, 4000);
    // Asked 200 ms before the fault and answered in it.
    log.sample(0, 2800, 500.0, None);
    expect(&judge(&e, &log.records()), Outcome::Inconclusive, "there are no samples while the fault was in force");
    log.sample(0, 3200, 20.0, None);
    expect(&judge(&e, &log.records()), Outcome::Held, "while the fault was in force");
}

#[test]
fn what_one_fault_showed_stays_shown_when_another_fails() {
    let e = two_latencies();
    let mut log = Log::new(&e);
    log.phases(3000, 28_000, 38_000).good(0, 0..3000, 500, 20.0).good(0, 13_500..38_000, 500, 20.0);
    log.bad(0, 4000..12_000, 500, "status 503, wanted 200");
    log.inject(0, 3000, 13_000);
    log.at(18_000, Event::InjectFailed { injection: 1, fault: 1, error: "no process matches".into() });
    expect(&judge(&e, &log.records()), Outcome::Refuted, "could not be injected: no process matches");
}

#[test]
fn that_it_took_retries_is_told() {
    let e = checkout("retries: 3");
    let mut log = good_run(&e);
    let mut records = log.phase(0, Phase::SteadyState).records();
    let sample = records.iter_mut().find_map(|r| match &mut r.event {
        Event::Sample(sample) if sample.started > 5_000_000_000 => Some(sample),
        _ => None,
    });
    sample.unwrap().retries = 2;
    let judgement = judge(&e, &records);
    expect(&judgement, Outcome::Held, "1 sample since the injection got no good answer at the first try");
}
