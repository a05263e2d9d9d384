//! Trials at several values, and what they say together.

use Outcome::{Held, Inconclusive, Refuted};

use super::*;

fn searching() -> Experiment {
    let spec = "hypothesis: checkout stays fast\nprobes:\n- http: {get: \"http://127.0.0.1:8080/\", name: checkout}\nmethod:\n\
                - network-latency: {to: \"127.0.0.1:5432\", delay: 200ms, for: 1s}\nsearch: {delay: 50ms..2s}\n";
    experiment(spec)
}

/// A search with a trial of two seconds per value, which is bad where it says so.
fn search(trials: &[(&str, Outcome)]) -> Log {
    let e = searching();
    let mut log = Log::new(&e);
    log.phase(0, Phase::SteadyState).good(0, 0..3000, 100, 20.0).phase(3000, Phase::Inject);
    for (i, (value, outcome)) in trials.iter().enumerate() {
        let start = 3000 + 3000 * i as u64;
        log.at(start, Event::TrialStarted { trial: i as u32 + 1, value: (*value).into() });
        match outcome {
            Outcome::Refuted => log.bad(0, start + 500..start + 1600, 100, "timed out"),
            _ => log.good(0, start + 500..start + 1600, 100, 20.0),
        };
        log.good(0, start + 1700..start + 2500, 100, 20.0);
        if *outcome == Outcome::Inconclusive {
            log.at(start + 500, Event::InjectFailed { injection: 0, fault: 0, error: "port taken".into() });
        } else {
            log.inject(0, start + 500, start + 1600);
        }
        log.at(
            start + 2600,
            Event::TrialEnded { trial: i as u32 + 1, outcome: *outcome, reason: format!("seen at {value}") },
        );
    }
    log.phase(3000 + 3000 * trials.len() as u64, Phase::Verdict);
    log
}

#[test]
fn a_search_finds_its_bracket() {
    let e = searching();
    let log = search(&[("50ms", Held), ("2s", Refuted), ("400ms", Held), ("400ms", Held), ("900ms", Refuted)]);
    let judgement = judge(&e, &log.records());
    expect(
        &judgement,
        Held,
        "holds at network-latency.delay 400ms and is refuted at 900ms: the breaking point lies between them, by 5 trials at 4 values",
    );
    expect(&judgement, Held, "At 400ms both trials held; a share of up to");
    let point = judgement.breaking_point.unwrap();
    assert_eq!((point.held.as_deref(), point.refuted.as_deref()), (Some("400ms"), Some("900ms")));
    assert_eq!(point.trials[1], ("400ms".into(), 2, 0, 0));
    assert_eq!(judgement.probes[0].reasons[0], "Refuted in 2 of 5 trials.");
}

#[test]
fn a_search_whose_trials_tell_nothing_says_what_they_lack() {
    let e = searching();
    let judgement = judge(&e, &search(&[("50ms", Inconclusive), ("50ms", Inconclusive)]).records());
    expect(&judgement, Inconclusive, "2 trials told nothing; the first: seen at 50ms");
    let next: Vec<_> = judgement.next.iter().map(|s| (s.text.as_str(), s.command.as_deref())).collect();
    assert!(next[0].0.contains("those at network-latency.delay 50ms told nothing"), "{next:?}");
    assert!(next[1].0.contains("what the fault would reach") && next[1].1 == Some("toprope plan FILE"), "{next:?}");
    assert!(!next.iter().any(|n| n.1.is_some_and(|c| c.contains("--again"))), "nothing changes by itself: {next:?}");
}

#[test]
fn a_search_without_a_bracket() {
    let e = searching();
    let judged = |trials: &[(&str, Outcome)]| judge(&e, &search(trials).records());
    expect(&judged(&[("50ms", Held), ("2s", Held)]), Held, "held throughout, up to network-latency.delay 2s");
    expect(&judged(&[("50ms", Refuted)]), Refuted, "refuted at network-latency.delay 50ms already");
    expect(&judged(&[("50ms", Held), ("400ms", Held)]), Inconclusive, "was not found");
    expect(
        &judged(&[("50ms", Held), ("2s", Inconclusive)]),
        Inconclusive,
        "1 trial told nothing; the first: seen at 2s",
    );
    let again = judged(&[("50ms", Held), ("400ms", Refuted), ("900ms", Held), ("2s", Refuted)]);
    expect(&again, Inconclusive, "It held again at 900ms");
    assert_eq!(again.breaking_point.unwrap().held.as_deref(), Some("50ms"));
    expect(&judged(&[]), Inconclusive, "was not found");
}

#[test]
fn a_trial_is_judged_by_its_own_slice() {
    let e = searching();
    let log = search(&[("50ms", Held), ("2s", Refuted), ("1s", Inconclusive)]);
    let records = log.records();
    for (i, wanted) in [Held, Refuted, Inconclusive].into_iter().enumerate() {
        let trial = i as u32 + 1;
        let from =
            records.iter().position(|r| matches!(r.event, Event::TrialStarted { trial: t, .. } if t == trial)).unwrap();
        let to =
            records.iter().position(|r| matches!(r.event, Event::TrialEnded { trial: t, .. } if t == trial)).unwrap();
        let judgement = judge_trial(&e, &log.started, &records[from..to]);
        assert_eq!(judgement.outcome, wanted, "{:?}", judgement.reasons);
        assert!(judgement.next.is_empty());
    }
}

#[test]
fn what_one_trial_asked_does_not_count_for_the_next() {
    let e = searching();
    let mut log = search(&[("2s", Refuted), ("50ms", Held)]);
    // Asked in the first trial and in force, answered in the second before its injection, and in it.
    log.sample(0, 4000, 2200.0, Some("timed out")).sample(0, 4500, 2500.0, Some("timed out"));
    // Asked between the trials.
    log.sample(0, 5700, 10.0, Some("timed out"));
    let judgement = judge(&e, &log.records());
    assert_eq!(judgement.probes[0].reasons[0], "Refuted in 1 of 2 trials.");
    assert!(!judgement.reasons.join(" ").contains("steady"), "{:?}", judgement.reasons);
}

#[test]
fn each_trial_watches_its_own_steady_state() {
    let e = searching();
    let mut log = Log::new(&e);
    log.at(0, Event::TrialStarted { trial: 1, value: "50ms".into() }).phase(0, Phase::SteadyState);
    assert!(steady_state(&e, &log.records()).unwrap_err()[0].contains("no samples in the steady state"));
    log.good(0, 100..3000, 100, 20.0);
    assert_eq!(steady_state(&e, &log.records()), Ok(()));
    log.bad(0, 2050..2100, 100, "status 500");
    assert!(steady_state(&e, &log.records()).unwrap_err()[0].contains("status 500"));
}
