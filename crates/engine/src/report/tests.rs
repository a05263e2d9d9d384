use toprope_model::event::{Event, Level, Phase, Record};
use toprope_model::experiment::Experiment;
use toprope_model::step::{Effect, Measure, Spread};
use toprope_model::verdict::Outcome;

use super::{Suite, html, json, junit, markdown};
use crate::verdict::testlog::{Log, checkout, delay, experiment};

const HEAD: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A latency that looks like one: a few milliseconds around a value, the same in every run.
fn wave(i: u64, around: f64) -> f64 {
    let mut noise = (i + around as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    noise = (noise ^ (noise >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let noise = (noise >> 40) % 1000;
    around * (0.9 + 0.0003 * noise as f64) + if noise > 985 { around * 0.9 } else { 0.0 }
}

fn waves(log: &mut Log, probe: u32, times: std::ops::Range<u64>, every: u64, around: f64) {
    for ms in times.step_by(every as usize) {
        log.sample(probe, ms, wave(ms / every, around), None);
    }
}

/// Three probes under 200 ms of latency: one gets slow, one fails for a while, one does not care.
fn refuted() -> (Experiment, Log) {
    let e = experiment(
        r#"hypothesis: Checkout stays fast when the payments database answers 200 ms late
why: Payments moved to another zone, and nobody knows what its latency does to the page
worry: the page waits for the slowest of its parts
environment: laptop
version: shop 1.4.2
probes:
- http: {get: "http://127.0.0.1:8080/checkout", status: 200, name: checkout, p99: "< 300ms", interval: 100ms}
- http: {get: "http://127.0.0.1:8080/cart", status: 200, name: cart, interval: 250ms}
- http: {get: "http://127.0.0.1:8080/health", status: 200, name: health, interval: 1s}
method:
- network-latency: {from: {process: checkout}, to: "127.0.0.1:5432", delay: 200ms, for: 30s}
"#,
    );
    let mut log = Log::new(&e);
    log.phases(5000, 35_000, 60_000).planned(0);
    waves(&mut log, 0, 0..5000, 100, 40.0);
    waves(&mut log, 0, 5000..35_000, 100, 460.0);
    waves(&mut log, 0, 35_000..60_000, 100, 42.0);
    waves(&mut log, 1, 0..9000, 250, 25.0);
    for ms in (9000..31_000).step_by(250) {
        log.sample(1, ms, 1000.0, Some("no answer within 1s"));
    }
    waves(&mut log, 1, 38_000..60_000, 250, 25.0);
    log.bad(1, 31_000..38_000, 250, "status 503, wanted 200");
    waves(&mut log, 2, 0..60_000, 1000, 3.0);
    log.inject(0, 5000, 35_000);
    log.note(200, Level::Info, "The probes run as kim; the injector runs as root.");
    log.note(
        35_400,
        Level::Warning,
        "3 connections to 127.0.0.1:5432 were open before the injection and were not reached.",
    );
    (e, log)
}

fn held() -> (Experiment, Log) {
    let e = checkout("p99: \"< 300ms\"");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 40_000);
    waves(&mut log, 0, 0..40_000, 200, 60.0);
    log.inject(0, 3000, 33_000);
    (e, log)
}

fn recovers() -> (Experiment, Log) {
    let e = experiment(
        "hypothesis: The cart is back soon after it was killed\nprobes:\n- http: {get: \"http://127.0.0.1:8082/cart\", name: cart, \
         recovers: {within: 5s}, find: x, loses: 0, interval: 200ms}\nmethod:\n- process-kill: {target: {process: cart}}\n",
    );
    let mut log = Log::new(&e);
    log.phases(3000, 3010, 12_000);
    waves(&mut log, 0, 0..3000, 200, 5.0);
    log.bad(0, 3000..6400, 200, "connection refused");
    waves(&mut log, 0, 6400..12_000, 200, 5.0);
    log.inject(0, 3000, 3010);
    log.at(11_900, Event::Found { probe: 0, acknowledged: 43, lost: vec![] });
    (e, log)
}

fn inconclusive() -> (Experiment, Log) {
    let e = checkout("p99: \"< 300ms\"");
    let mut log = Log::new(&e);
    log.phases(3000, 33_000, 40_000);
    waves(&mut log, 0, 0..40_000, 200, 60.0);
    let number = log.begin(0, 3000);
    let note = Some("no connection to 127.0.0.1:5432 was opened while it was in force".to_owned());
    log.at(
        32_990,
        Event::Effect { injection: number, effect: Effect { took: None, note, ..Effect::default() }, last: true },
    );
    log.undo(number, 33_000).broken(0, 20_100).broken(0, 20_300);
    (e, log)
}

fn stopped() -> (Experiment, Log) {
    let e = checkout("good: 50%");
    let mut log = Log::new(&e);
    log.phases(3000, 9000, 12_000);
    waves(&mut log, 0, 0..7000, 200, 60.0);
    log.bad(0, 7000..9000, 200, "status 503, wanted 200");
    waves(&mut log, 0, 9000..12_000, 200, 60.0);
    log.inject(0, 3000, 9000);
    log.stop(8990, "guardrail", "8 bad samples of any probe in a row");
    (e, log)
}

fn search() -> (Experiment, Log) {
    let e = experiment(
        "hypothesis: Checkout stays fast on a slow database\nprobes:\n- http: {get: \"http://127.0.0.1:8080/checkout\", name: checkout, max: \
         \"< 700ms\"}\nmethod:\n- network-latency: {to: \"127.0.0.1:5432\", delay: 200ms, for: 2s}\nsearch: {delay: 50ms..2s}\n",
    );
    let mut log = Log::new(&e);
    log.phase(0, Phase::SteadyState);
    waves(&mut log, 0, 0..3000, 100, 20.0);
    log.phase(3000, Phase::Inject);
    let values = [50, 2000, 316, 795, 501, 631, 501, 631, 501, 562];
    for (i, value) in values.into_iter().enumerate() {
        let start = 3000 + 3000 * i as u64;
        log.at(start, Event::TrialStarted { trial: i as u32 + 1, value: format!("{value}ms") });
        log.good(0, start + 500..start + 2500, 100, f64::from(value) + 90.0);
        log.inject(0, start + 500, start + 2500);
        let refuted = value + 90 >= 700;
        let outcome = if refuted { Outcome::Refuted } else { Outcome::Held };
        let reason = format!("max was {}ms over 20 samples", value + 90);
        let reason = if refuted { reason } else { String::new() };
        log.at(start + 2900, Event::TrialEnded { trial: i as u32 + 1, outcome, reason });
    }
    log.phase(3000 + 3000 * values.len() as u64, Phase::Verdict);
    (e, log)
}

/// Whatever comes from outside, as bad as it comes.
fn nasty() -> (Experiment, Log) {
    let evil = "<script>alert(1)</script>\"'`${{7*7}}`|[x](javascript:alert(1))";
    let e = experiment(&format!(
        "hypothesis: {}\nwhy: \"<img src=x onerror=alert(1)>\"\nprobes:\n- http: {{get: \"http://127.0.0.1/\", name: {}}}\n- http: {{get: \
         \"http://[::1]/\", name: \"日本語 \\u202E تجربة 🧗\"}}\nmethod:\n- network-latency: {{delay: 1s, for: 1s, name: {}}}\n",
        serde_json::json!(format!("{evil} {}", "very long ".repeat(60))),
        serde_json::json!(format!("{evil}{}", "x".repeat(400))),
        serde_json::json!(evil),
    ));
    let mut log = Log::new(&e);
    log.started.host = evil.into();
    log.started.wall = evil.into();
    log.started.probes[0].unit = evil.into();
    log.started.probes[0].asks = format!("GET {evil}");
    log.phases(3000, 4000, 6000).good(0, 0..6000, 100, 5.0);
    log.bad(0, 3300..3600, 100, &format!("{evil}\u{0}\u{1b}[31m]]>\n# x"));
    log.inject(0, 3000, 4000);
    log.note(10, Level::Error, &format!("{evil}\n```\n</pre>"));
    (e, log)
}

type Make = fn() -> (Experiment, Log);

fn all() -> Vec<(&'static str, Experiment, Log)> {
    let runs: [(&'static str, Make); 7] = [
        ("held", held),
        ("refuted", refuted),
        ("inconclusive", inconclusive),
        ("stopped", stopped),
        ("search", search),
        ("recovers", recovers),
        ("nasty", nasty),
    ];
    runs.into_iter()
        .map(|(name, make)| {
            let (e, log) = make();
            (name, e, log)
        })
        .collect()
}

/// The page without its style sheet and its paths, which nobody reads in a snapshot.
fn readable(page: &str) -> String {
    let (before, rest) = page.split_once("<style>").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    let text = format!("{before}<style>…</style>{after}");
    text.replace("><", ">\n<")
}

#[test]
fn snapshots() {
    for (name, e, log) in all() {
        let records = log.judged(&e);
        insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(format!("{name}.md"), markdown(&records, HEAD));
            insta::assert_snapshot!(format!("{name}.xml"), junit(&records, HEAD));
            insta::with_settings!({filters => vec![(r#" d="[^"]*""#, " d=\"…\"")]}, {
                insta::assert_snapshot!(format!("{name}.html"), readable(&html(&records, HEAD)));
            });
        });
    }
    let (e, log) = recovers();
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("recovers.json", json(&log.judged(&e), HEAD));
    });
}

#[test]
fn the_same_log_makes_the_same_bytes() {
    for (name, e, log) in all() {
        let records = log.judged(&e);
        for render in [html, markdown, junit, json] {
            assert_eq!(render(&records, HEAD), render(&records.clone(), HEAD), "{name}");
        }
    }
}

#[test]
fn pages_hold_nothing_that_runs_or_loads() {
    for (name, e, log) in all() {
        let page = html(&log.judged(&e), HEAD);
        for bad in [
            "<script",
            "<img",
            "<link",
            "<iframe",
            "@import",
            "url(http",
            " src=",
            "javascript:alert(1)\"",
            "NaN",
            "Infinity",
            "inf\"",
        ] {
            let clean = page.replace("&lt;img src=x", "");
            assert!(!clean.contains(bad), "{name}: {bad}");
        }
        assert!(page.matches("<svg").count() == page.matches("</svg>").count());
        assert!(page.len() < 200_000, "{name}: {} bytes", page.len());
    }
}

/// A parser that only checks what well-formed XML is made of would take the page's parts; the whole XML of JUnit is
/// read back as such.
#[test]
fn junit_is_xml_whatever_the_texts_are() {
    let mut suite = Suite::new("all <of> them");
    for (_, e, log) in all() {
        suite.run(&log.judged(&e), HEAD);
    }
    suite.not_run("broken.yaml", "`speck` is not a field\nhelp: did you mean `spec`?\u{0}");
    let xml = suite.xml();
    assert!(xml.contains("tests=\"8\" skipped=\"0\" errors=\"4\" failures=\"1\""), "{}", &xml[..400]);
    assert!(!xml.contains("<script>") && !xml.contains('\u{0}') && !xml.contains('\u{1b}'));
    assert!(
        xml.contains("type=\"stopped\"") && xml.contains("type=\"not-run\"") && xml.contains("type=\"inconclusive\"")
    );
}

#[test]
fn a_log_cut_anywhere_still_makes_a_report() {
    let (e, log) = refuted();
    let records = log.judged(&e);
    for n in (0..records.len()).step_by(records.len() / 40).chain([0, 1, 2, 3]) {
        let part: &[Record] = &records[..n];
        for render in [html, markdown, junit, json] {
            assert!(!render(part, HEAD).is_empty());
        }
        let judged: serde_json::Value = serde_json::from_str(&json(part, HEAD)).unwrap();
        assert_eq!(judged["verdict"]["outcome"], "inconclusive", "{n} of {}", records.len());
    }
}

#[test]
fn a_killed_run_says_so() {
    let (_, mut log) = held();
    log.at(
        50_000,
        Event::Sealed {
            wall: "2026-03-01T13:00:00Z".into(),
            notes: vec!["network-latency: the kernel undid it".into()],
        },
    );
    let records: Vec<Record> =
        log.records().into_iter().filter(|r| !matches!(r.event, Event::Phase(Phase::Verdict))).collect();
    let page = html(&records, HEAD);
    assert!(page.contains("killed before its end") && page.contains("the kernel undid it"), "{page}");
}

#[test]
fn reports_of_nothing_and_of_much_stay_small() {
    let (e, mut log) = held();
    log.started.probes.clear();
    assert!(html(&log.records(), HEAD).contains("Inconclusive") || !e.spec.probes.is_empty());
    let many: String =
        (0..80).map(|i| format!("- http: {{get: \"http://127.0.0.1/\", name: p{i}, p99: \"< 1s\"}}\n")).collect();
    let e =
        experiment(&format!("hypothesis: many\nprobes:\n{many}method:\n- network-latency: {{delay: 1s, for: 1s}}\n"));
    let mut log = Log::new(&e);
    log.phases(3000, 50_000, 60_000);
    for probe in 0..80 {
        waves(&mut log, probe, 0..60_000, 50, 20.0);
    }
    log.inject(0, 3000, 50_000);
    let page = html(&log.judged(&e), HEAD);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

#[test]
fn the_effect_is_shown_beside_what_was_asked() {
    let (e, log) = held();
    let page = html(&log.judged(&e), HEAD);
    let measure = delay(201.4);
    assert_eq!(measure.asked, Some(200.0));
    assert!(page.contains("<td>200ms</td><td>201ms</td><td class=\"quiet\">+0.7%, 312 samples</td>"), "{page}");
}

#[test]
fn an_effect_is_shown_with_how_it_is_spread() {
    let (e, mut log) = held();
    let spread = Some(Spread { min: 200.1, p50: 201.4, p99: 214.0, max: 1240.0 });
    let effect =
        Effect { took: Some(true), reached: Some(1.0), measures: vec![Measure { spread, ..delay(201.4) }], note: None };
    log.at(32_999, Event::Effect { injection: 0, effect, last: true });
    let page = html(&log.judged(&e), HEAD);
    assert!(page.contains("+0.7%, p99 214ms, 200ms to 1.24s, 312 samples</td>"), "{page}");
}

#[test]
fn many_events_make_a_small_page() {
    // `TOPROPE_EVENTS=1000000` in release is how the speed is looked at; a test of time would fail on a slow machine.
    let events: u64 = std::env::var("TOPROPE_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let e = checkout("p99: \"< 300ms\", interval: 10ms");
    let mut log = Log::new(&e);
    log.phases(3000, events - 4000, events);
    waves(&mut log, 0, 0..events, 1, 20.0);
    log.sample(0, 50_000, 5000.0, Some("timed out")).inject(0, 3000, events - 4000);
    let records = log.judged(&e);
    let begun = std::time::Instant::now();
    let page = html(&records, HEAD);
    println!("{} events: {:?}, {} bytes", records.len(), begun.elapsed(), page.len());
    assert!(page.len() < 150_000, "{} bytes", page.len());
    // The one that was bad is there to be seen, among all the others.
    assert!(page.contains("<title>1 sample bad</title>"));
}

/// Writes the pages to look at: `TOPROPE_REPORTS=dir cargo nextest run -p toprope-engine pages_to_look_at`.
#[test]
fn pages_to_look_at() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = std::env::var_os("TOPROPE_REPORTS").map_or_else(|| scratch.path().to_owned(), std::path::PathBuf::from);
    for (name, e, log) in all() {
        let path = dir.join(format!("{name}.html"));
        std::fs::write(&path, html(&log.judged(&e), HEAD)).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("</html>"));
    }
}
