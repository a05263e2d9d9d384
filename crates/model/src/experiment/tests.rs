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
    recovers: false,
    ramps: &["delay"],
};
/// The same at one instant.
static BLIP: FaultSpec =
    FaultSpec { spec: kind("network-blip", Latency::fields, check_kind::<Latency>), lasting: false, ..LATENCY };
static HTTP: KindSpec = kind("http", Http::fields, check_kind::<Http>);

fn tables() -> Tables {
    Tables { faults: vec![&LATENCY, &BLIP], probes: vec![&HTTP] }
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
