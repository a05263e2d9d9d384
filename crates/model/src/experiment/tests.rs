use super::*;
use crate::kind::{Danger, FaultSpec, KindSpec, UndoKind, check as check_kind};
use crate::node::Sources;
use crate::target::{Endpoint, Target};

fields! {
    /// A fault for these tests.
    struct Latency {
        /// Whose connections.
        from: Target,
        /// Where to.
        to: Endpoint,
        /// How much.
        delay: Dur,
    }
}

fields! {
    /// A probe for these tests.
    struct Http {
        /// What to get.
        get: String,
        /// The status wanted.
        status: Option<u16>,
    }
}

const fn kind(kind: &'static str, fields: fn() -> Vec<crate::Field>, check: fn(&Node, &mut Problems)) -> KindSpec {
    KindSpec { kind, summary: "", docs: "", example: "", fields, check }
}

static LATENCY: FaultSpec = FaultSpec {
    spec: kind("network-latency", Latency::fields, check_kind::<Latency>),
    lasting: true,
    undo: UndoKind::KernelOwned,
    danger: Danger::Contained,
    needs: &[],
    strength: &["delay"],
    recovers: false,
    ramps: &["delay"],
};
fields! {
    /// A fault at one instant for these tests.
    struct Kill {
        /// Whom.
        target: Option<Target>,
    }
}

static KILL: FaultSpec = FaultSpec {
    spec: kind("kill", Kill::fields, check_kind::<Kill>),
    lasting: false,
    undo: UndoKind::Irreversible,
    danger: Danger::Lasting,
    needs: &[],
    strength: &[],
    recovers: true,
    ramps: &[],
};
/// The same as the first at one instant.
static BLIP: FaultSpec =
    FaultSpec { spec: kind("network-blip", Latency::fields, check_kind::<Latency>), lasting: false, ..LATENCY };
static HTTP: KindSpec = kind("http", Http::fields, check_kind::<Http>);

fn tables() -> Tables {
    Tables { faults: vec![&LATENCY, &KILL, &BLIP], probes: vec![&HTTP] }
}

const TEN_LINES: &str = r#"apiVersion: toprope.dev/v1alpha1
kind: Experiment
metadata: {name: checkout-survives-slow-payments}
spec:
  hypothesis: checkout stays fast on a slow database
  probes:
  - http: {get: "http://127.0.0.1:8080/checkout", status: 200, p99: "< 300ms"}
  method:
  - network-latency: {from: {process: checkout}, to: "127.0.0.1:5432", delay: 200ms, for: 30s}
"#;

fn read(text: &str) -> Result<Experiment, String> {
    let mut sources = Sources::default();
    crate::parse(&mut sources, "f.yaml", text).and_then(|node| Experiment::read(&node, &tables())).map_err(|p| {
        let line = |d: &crate::Diagnostic| {
            let place = d.span.and_then(|s| sources.place(s)).map(|(_, l, c)| format!("{l}:{c}")).unwrap_or_default();
            format!("{place} {} [{}] {}", d.message, d.label, d.help.as_deref().unwrap_or("-"))
        };
        p.0.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

fn edited(from: &str, to: &str) -> String {
    assert!(TEN_LINES.contains(from), "{from}");
    read(&TEN_LINES.replace(from, to)).unwrap_err()
}

#[test]
fn the_ten_line_manifest_reads() {
    let e = read(TEN_LINES).unwrap();
    assert_eq!(e.spec.probe_names(), ["http"]);
    assert_eq!(e.method_duration(), Duration::from_secs(30));
    // p99 takes 100 samples: 30 s / 125.
    assert_eq!(e.interval(&e.spec.probes[0]), Duration::from_millis(240));
}

#[test]
fn a_method_without_a_duration_is_watched_five_times_a_second() {
    let text = TEN_LINES.replace("network-latency", "network-blip").replace(", for: 30s", "");
    let e = read(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(e.method_duration().is_zero());
    assert_eq!(e.interval(&e.spec.probes[0]), Duration::from_millis(200));
}

#[test]
fn errors_point_and_say_what_to_write_instead() {
    insta::assert_snapshot!(
        [
            edited("hypothesis", "hypotesis"),
            edited("network-latency", "network-latncy"),
            edited("for: 30s", "fro: 30s"),
            edited("delay: 200ms", "delay: 200"),
            edited("delay: 200ms", "delay: fast"),
            edited("status: 200", "status: ok"),
            edited("status: 200", "status: 99999"),
            edited("p99: \"< 300ms\"", "p99: quick"),
            edited("- http", "- htttp"),
            edited("{process: checkout}", "{}"),
            edited("{process: checkout}", "checkout"),
            edited("kind: Experiment", "kind: Experimant"),
            edited("{name: checkout-survives-slow-payments}", "{name: Checkout Test}"),
            edited(", p99", ", when: sometimes, p99"),
            edited("  method:", "  - http: {get: x, when: at, name: http2, wehn: at}\n  method:"),
            edited("  method:", "  search: {dlay: 1ms..2s}\n  method:"),
            edited("  method:", "  search: {delay: 2s..1ms}\n  method:"),
            edited("  method:", "  guardrails: [{error-ratio: {probe: httpp, above: 50%}}]\n  method:"),
            edited("  method:", "  method:\n  - repeat: {times: 0, steps: [{wait: {for: 1s}}]}\n  - parallel: []"),
            edited(
                "delay: 200ms, for: 30s}",
                "delay: 200ms, for: 30s, ramp: {parameter: delay, from: 1ms, to: x, over: 60s}}"
            ),
            edited(
                "for: 30s}",
                "for: 30s, ramp: {parameter: to, from: \"127.0.0.1:1\", to: \"127.0.0.1:2\", over: 9s}}"
            ),
            read(
                &TEN_LINES
                    .replace("for: 30s}", "for: 30s, ramp: {parameter: delay, from: 1ms, to: 2ms, over: 9s}}")
                    .replace("  method:", "  search: {delay: 1ms..2s}\n  method:")
            )
            .unwrap_err(),
        ]
        .join("\n\n")
    );
}

#[test]
fn what_can_neither_be_shown_nor_refuted_is_refused() {
    let probe = |more: &str| TEN_LINES.replace("p99: \"< 300ms\"", more);
    for (more, says) in [
        ("when: before", "nothing is asked while a fault is in force or after it"),
        ("good: 0%", "no sample has to be good"),
        ("confidence: 99%", "`confidence` has nothing to claim"),
        ("max: \"< 1s\", confidence: 99%", "`confidence` has nothing to claim"),
        ("good: 99%, confidence: 100%", "nothing is claimed with a confidence of 100%"),
        ("good: 99%, confidence: 0%", "nothing is claimed with a confidence of 0%"),
    ] {
        let error = read(&probe(more)).expect_err(more);
        assert!(error.contains(says), "{more}: {error}");
    }
    assert!(read(&probe("good: 99%, confidence: 99%")).is_ok());
    assert!(read(&probe("p95: \"< 300ms\", confidence: 95%")).is_ok());
}

#[test]
fn a_claim_that_the_run_cannot_reach_is_refused_at_its_place() {
    let probe = |more: &str| TEN_LINES.replace("p99: \"< 300ms\"", more);
    for (more, says, help) in [
        (
            "p99: \"< 300ms\", interval: 100ms, confidence: 99%",
            "it takes 644 samples even if all are good, and the run yields 301 samples",
            "write `interval: 46ms`, or let the faults last 1m5s; or claim less",
        ),
        ("p99: \"< 300ms\", samples: 200, confidence: 99%", "the run yields 200 samples", "write `samples: 644`"),
        ("p999: \"< 300ms\", confidence: 99.9%", "this run cannot show `p99.9 < 300ms`", "let the faults last"),
        ("good: 100%, confidence: 99%", "no number of samples shows `good 100%`", "good: 99.9%"),
        ("good: 99%, when: after, confidence: 99%", "the run yields 4 samples", "`when: during`"),
        ("good: 99%, recovers: {within: 1s}, confidence: 99%", "may be bad for a while claims nothing", "unaffected"),
        ("good: 99%, when: before, confidence: 99%", "since a fault was injected", "`when: during`"),
    ] {
        let text = probe(more);
        let error = read(&text).expect_err(more);
        assert!(error.contains(says) && error.contains(help), "{more}: {error}");
        let line = text.lines().position(|l| l.contains("confidence")).unwrap() + 1;
        let column = text.lines().nth(line - 1).unwrap().find("confidence: ").unwrap() + "confidence: ".len() + 1;
        assert!(error.contains(&format!("{line}:{column} ")), "{more}: {error}");
    }
    // Without an interval the probe is asked as often as the claim takes.
    let spec = |more: &str| {
        let mut sources = Sources::default();
        let node = crate::parse(&mut sources, "f.yaml", &probe(more)).unwrap();
        Spec::from_node(node.get("spec").unwrap(), &mut Problems::default()).unwrap()
    };
    let claimed = spec("p99: \"< 300ms\", confidence: 99%");
    assert!(claimed.samples_for_claims(&claimed.probes[0]) > 700);
}

/// What is wrong with a spec that differs from the ten lines in these places.
fn wrong(edits: &[(&str, &str)]) -> (String, String) {
    let mut text = TEN_LINES.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let said = read(&text).expect_err("it is refused");
    (text, said)
}

#[test]
fn what_could_only_mislead_is_refused_at_its_place() {
    let last = ", for: 30s}";
    let guardrail = |text: &str| format!("  guardrails: [{text}]\n  method:");
    for (edits, at, says) in [
        // A fault that does nothing.
        (vec![("delay: 200ms", "delay: 0s")], "0s, for", "`delay: 0s` does nothing"),
        (
            vec![(last, ", for: 30s, ramp: {parameter: delay, from: 0s, to: 0ms, over: 1s}}")],
            "0ms, over",
            "this ramp does nothing",
        ),
        // A search whose values are never applied.
        (
            vec![
                ("  method:", "  search: {delay: 5ms..800ms}\n  method:"),
                (last, ", for: 30s, ramp: {parameter: delay, from: 5ms, to: 10ms, over: 1s}}"),
            ],
            "delay: 5ms..800ms",
            "no searched value is ever applied",
        ),
        // What happens at one instant.
        (vec![("  method:", "  method:\n  - kill: {for: 2s}")], "2s}", "takes no duration"),
        // Guardrails that never stop, or at once.
        (vec![("  method:", &guardrail("error-ratio: {above: 100%}"))], "100%}", "never stops a run"),
        (vec![("  method:", &guardrail("error-ratio: {above: 50%, over: 0s}"))], "0s}", "never stops a run"),
        (
            vec![
                ("  method:", &guardrail("error-ratio: {above: 50%, over: 1s}")),
                ("status: 200", "status: 200, interval: 1500ms"),
            ],
            "1s}",
            "write over: 7500ms or longer",
        ),
        (vec![("  method:", &guardrail("bad-in-a-row: {samples: 0}"))], "0}", "stops every run at once"),
        (
            vec![("  method:", &guardrail("error-ratio: {above: 5%, confidence: 99%, over: 9s}"))],
            "9s}",
            "all samples since",
        ),
        (
            vec![("  method:", &guardrail("error-ratio: {above: 5%, confidence: 100%}"))],
            "100%}",
            "no guardrail is 100% sure",
        ),
        (vec![("  method:", &guardrail("burn-rate: {objective: 100%, above: 2}"))], "100%,", "no error budget"),
        (vec![("  method:", &guardrail("burn-rate: {objective: 99%, above: 0}"))], "0}", "stops every run at once"),
        (vec![("  method:", &guardrail("burn-rate: {objective: 90%, above: 10}"))], "10}", "never stops a run"),
        (
            vec![("  method:", &guardrail("worse-than-before: {by: 20%, percentile: p99}"))],
            "worse",
            "not know what was before",
        ),
        (vec![("  method:", &guardrail("lost-telemetry: {samples: 0}"))], "0}", "stops every run at once"),
        (vec![("  method:", &guardrail("lost-telemetry: {for: 1s}"))], "1s}", "takes a slow answer for none"),
        (
            vec![
                ("for: 30s}", "for: 400ms}"),
                ("p99: \"< 300ms\"", "interval: 100ms"),
                ("  method:", &guardrail("error-ratio: {above: 90%, confidence: 99%}")),
            ],
            "error-ratio",
            "never stops a run",
        ),
        (vec![("  method:", &guardrail("value: {probe: http, keeps: \"== ok\"}"))], "\"== ok\"", "is text"),
        (vec![("  method:", &guardrail("value: {probe: htp, keeps: \"< 5\"}"))], "htp", "did you mean `http`"),
        // What is never asked, or never found.
        (vec![("status: 200", "when: at, recovers: {within: 1s}")], "{within", "never asked after the fault"),
        (vec![("status: 200", "loses: 0")], "0, p99", "finds again what it wrote"),
        // What nobody waits for, or hits nothing.
        (
            vec![("  method:", "  method:\n  - repeat: {times: 90000, every: 1m, steps: [wait: {for: 1s}]}")],
            "method:",
            "the method takes longer than 168h",
        ),
        (
            vec![("  method:", "  method:\n  - repeat: {times: 99999999, steps: [kill: {}]}")],
            "99999999",
            "more than 100000 rounds",
        ),
        (vec![("  method:", "  blast-radius: {processes: 0}\n  method:")], "0}", "a blast radius of nothing"),
    ] {
        let (text, said) = wrong(&edits);
        let before = &text[..text.find(at).expect("it stands there")];
        let place = format!("{}:{} ", before.lines().count(), before.lines().last().map_or(0, str::len) + 1);
        assert!(said.starts_with(&place) && said.contains(says), "not {says:?} at {place}:\n{said}");
    }
    // The ends of a ramp and of a search may be zero.
    let ramp = TEN_LINES.replace(last, ", for: 30s, ramp: {parameter: delay, from: 0s, to: 10ms, over: 1s}}");
    read(&ramp.replace("delay: 200ms", "delay: 0s")).unwrap();
    read(&TEN_LINES.replace("  method:", "  search: {delay: 0s..800ms}\n  method:")).unwrap();
}

#[test]
fn an_experiment_without_probes_is_none_but_an_injection_may_be() {
    let text =
        TEN_LINES.lines().filter(|l| !l.contains("http")).collect::<Vec<_>>().join("\n").replace("  probes:\n", "");
    assert!(read(&text).unwrap_err().contains("nothing is watched"));
    let node = crate::parse(&mut Sources::default(), "f", &text).unwrap();
    assert!(Experiment::read_unwatched(&node, &tables()).unwrap().spec.probes.is_empty());
}

#[test]
fn the_faults_that_begin_together_are_known_by_plan() {
    let fault = |time: &str| format!("network-latency: {{from: {{pid: 1}}, to: \":1\", delay: 1s, for: {time}}}");
    let method = format!(
        "- wait: {{for: 1s}}\n  - parallel: [{a}, serial: [{b}, {a}]]\n  - repeat: {{times: 2, steps: [{b}]}}\n",
        a = fault("5s"),
        b = fault("2s")
    );
    let (head, _) = TEN_LINES.split_once("- network-latency").unwrap();
    assert_eq!(read(&format!("{head}{method}")).unwrap().begins_with(), 2);
    assert_eq!(read(TEN_LINES).unwrap().begins_with(), 1);
}
