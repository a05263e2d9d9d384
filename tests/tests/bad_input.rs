//! Manifests that are no manifests: each is refused with exit 2, at its place, soon, and without a panic.

use std::time::Duration;

use toprope_tests::{Done, Toprope};

/// Far more than any manifest needs, far less than a bomb would take.
const MEMORY_KIB: &str = "1000000";
/// Unoptimized on a busy machine; a manifest that is quadratic to read takes minutes.
const LONG: Duration = Duration::from_secs(20);

const HEAD: &str = "apiVersion: toprope.dev/v1alpha1\nkind: Experiment\nmetadata: {name: x}\n";

/// Validates a text with bounded memory, and asserts what holds for every bad input.
#[track_caller]
fn refused(toprope: &Toprope, text: impl AsRef<[u8]>) -> Done {
    toprope.write("bad.yaml", text);
    let limited = format!("ulimit -v {MEMORY_KIB}; exec \"$@\"");
    let done = toprope.spawn(toprope.wrapped(&["sh", "-c", &limited, "sh"], &["validate", "bad.yaml"])).wait_for(LONG);
    assert_ne!(done.code, Some(0), "taken: {}", std::fs::read_to_string(toprope.path("bad.yaml")).unwrap_or_default());
    let done = done.expect(2);
    assert!(done.stdout.is_empty(), "{done}");
    assert!(!done.stderr.is_empty());
    assert!(done.stderr.len() < 64 << 10, "{} bytes to tell what is wrong", done.stderr.len());
    assert!(!done.stderr.contains('\u{1b}'), "what was quoted moves the cursor: {:?}", done.stderr);
    done
}

/// The same, and it names this place.
#[track_caller]
fn refused_at(toprope: &Toprope, text: impl AsRef<[u8]>, place: &str, what: &str) {
    let done = refused(toprope, text);
    assert!(done.stderr.contains(&format!("bad.yaml:{place}")), "not at {place}: {done}");
    assert!(done.stderr.contains(what), "not {what:?}: {done}");
}

#[test]
fn what_is_no_yaml_is_refused_at_its_place() {
    let toprope = Toprope::new();
    for (text, place, what) in [
        ("", "1:1", "there is nothing in it"),
        ("\n\n", "", "there is nothing in it"),
        ("a: [1, 2\n", "1:4", "this `[` is not closed"),
        ("a: 'b\n", "1:4", "this quote is not closed"),
        ("a: b: c\n", "1:4", "must be quoted"),
        ("p99: > 300ms\n", "1:6", "write \"> 300ms\""),
        ("a: 1\na: 2\n", "2:1", "the key `a` is there twice"),
        ("a: !!python/object:os.system [x]\n", "1:", "tag"),
        ("? [a]\n: 1\n", "1:3", "a key must be plain text"),
        ("a: 1\n---\nb: 2\n", "2:1", "a second document"),
        ("just words\n", "1:1", "a manifest"),
        ("[1, 2]\n", "1:1", "a manifest"),
        ("a: b\u{0}c\n", "1:5", "not YAML"),
    ] {
        refused_at(&toprope, text, place, what);
    }
}

#[test]
fn what_is_no_text_is_refused_at_its_place() {
    let toprope = Toprope::new();
    refused_at(&toprope, b"a: 1\nb: \xff\xfe\n", "2:4", "not UTF-8");
    let utf16: Vec<u8> = "\u{feff}apiVersion: x".encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused_at(&toprope, utf16, "1:1", "not UTF-8");
    // What a program looks like, and a compressed file.
    refused_at(&toprope, std::fs::read("/proc/self/exe").unwrap(), "1:", "not UTF-8");
    refused_at(&toprope, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "1:2", "not UTF-8");
}

#[test]
fn what_is_too_much_is_refused_without_being_read_whole() {
    let toprope = Toprope::new();
    for text in [vec![b'#'; 10 << 20], format!("a: [{}]", "1, ".repeat(4 << 20)).into_bytes()] {
        let done = refused(&toprope, text);
        assert!(done.stderr.contains("bad.yaml is longer than 1048576 bytes"), "{done}");
    }
    let endless = toprope.run(&["validate", "/dev/zero"]).expect(2);
    assert!(endless.stderr.contains("/dev/zero is longer than"), "{endless}");
    assert!(toprope.run(&["validate", "/"]).expect(2).stderr.contains("cannot read /"));
}

#[test]
fn what_is_hostile_costs_no_more_than_its_size() {
    let toprope = Toprope::new();
    refused_at(&toprope, format!("a: {}", "[".repeat(100_000)), "1:", "");
    refused_at(&toprope, format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000)), "1:", "");
    refused_at(&toprope, "{a: ".repeat(100_000), "1:", "");
    refused_at(&toprope, "- ".repeat(100_000), "1:", "");
    let steps: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    refused_at(&toprope, steps, "66:66", "nested more than 64 deep");

    let mut laughs = "a: &a [lol, lol]\n".to_owned();
    for (before, name) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        laughs.push_str(&format!("{name}: &{name} [*{before},*{before},*{before},*{before}]\n"));
    }
    refused_at(&toprope, laughs, "1:4", "begins with `&` must be quoted");
    refused_at(&toprope, "a: &a\n  b: *a\n", "1:4", "begins with `&`");

    // Many things wrong, and long ones.
    let keys: String = (0..40_000).map(|n| format!("k{n}: 1\n")).collect();
    refused_at(&toprope, keys, "1:1", "the first 20 are shown");
    let probes = vec!["nope: {}"; 80_000].join(", ");
    let many =
        format!("{HEAD}spec: {{hypothesis: x, probes: [{probes}], method: [cpu-stress: {{load: 5%, for: 1s}}]}}");
    refused_at(&toprope, many, "4:", "the first 20 are shown");
    refused_at(&toprope, format!("{}: 1\n", "y".repeat(1_000_000)), "1:", "");
    refused_at(&toprope, format!("\"{}\": 1\n", "y".repeat(1000)), "1:1", "unknown field");
    let long = format!("{HEAD}spec: {{hypothesis: {}, probe: []}}", "x".repeat(1_000_000));
    refused_at(&toprope, long, "4:", "did you mean `probes`?");
    refused_at(&toprope, "a: \"\\e]0;title\\a\\e[2J\"\napiVersion: \"\\e[2J\"\n", "2:13", "");
}

#[test]
fn every_field_is_checked_at_its_place() {
    let toprope = Toprope::new();
    let probe = "http: {get: 'http://127.0.0.1/', status: 200}";
    let fault = "process-pause: {target: {process: redis}, for: 1s}";
    let spec = |probe: &str, fault: &str| {
        format!("{HEAD}spec:\n  hypothesis: x\n  probes:\n  - {probe}\n  method:\n  - {fault}\n")
    };
    toprope.write("good.yaml", spec(probe, fault));
    toprope.run(&["validate", "good.yaml"]).expect(0);
    for (text, place, what) in [
        (spec("htpp: {}", fault), "7:5", "did you mean `http`?"),
        (spec(probe, fault).replace("- process", "-process"), "9:3", "a space follows the dash: - process-pause"),
        (spec("http: {get: 5}", fault), "7:17", ""),
        (spec("http: {get: 'http://127.0.0.1/', stats: 200}", fault), "7:38", "did you mean `status`?"),
        (spec("http: {get: 'http://127.0.0.1/', status: OK}", fault), "7:46", ""),
        (spec("http: {get: 'http://127.0.0.1/', timeout: 5}", fault), "7:47", ""),
        (spec("http: {get: 'http://127.0.0.1/', timeout: 5 parsecs}", fault), "7:47", ""),
        (spec("http: {get: 'http://127.0.0.1/', p99: 300}", fault), "7:", ""),
        (spec("http: {get: 'http://127.0.0.1/', matches: '('}", fault), "7:47", ""),
        (spec("http: {get: 'http://127.0.0.1/', get: x}", fault), "7:38", "there twice"),
        (spec("http: {get: not a url}", fault), "7:17", ""),
        (spec("http: {get: 'http://127.0.0.1/', when: sometimes}", fault), "7:44", "during"),
        (spec("[http]", fault), "7:5", ""),
        (spec(probe, "process-pause: {target: {process: redis}}"), "9:5", "needs a duration"),
        (spec(probe, "process-pause: {target: {process: redis}, for: 1 lightyear}"), "9:52", ""),
        (spec(probe, "process-pause: {target: {process: redis}, for: -1s}"), "9:52", ""),
        (spec(probe, "process-pause: {target: {proces: redis}, for: 1s}"), "9:30", "did you mean `process`?"),
        (spec(probe, "process-pause: {target: {}, for: 1s}"), "9:", ""),
        (spec(probe, "process-pause: {target: {pid: -3}, for: 1s}"), "9:", ""),
        (spec(probe, "process-pause: {for: 1s}"), "9:", "target"),
        (spec(probe, "cpu-stress: {load: 101%, for: 1s}"), "9:24", ""),
        (spec(probe, "cpu-stress: {load: 50, for: 1s}"), "9:24", ""),
        (spec(probe, "cpu-stress: {load: .nan, for: 1s}"), "9:24", ""),
        (spec(probe, "memory-stress: {amount: 1 banana, for: 1s}"), "9:29", ""),
        (spec(probe, "disk-fill: {path: /tmp, percent: 95%, for: 0s}"), "9:48", ""),
        (spec(probe, "repeat: {times: 0, steps: [wait: {for: 1s}]}"), "9:5", "never reached"),
        (format!("{HEAD}spec: {{hypothesis: x, probes: [], method: []}}\n"), "4:", "nothing is watched"),
        (spec(probe, fault).replace("v1alpha1", "v7"), "1:13", "toprope.dev/v1alpha1"),
        (spec(probe, fault).replace("kind: Experiment", "kind: Experimint"), "2:7", "Experiment"),
        (spec(probe, fault).replace("name: x", "name: Not A Name"), "3:", "is not a name"),
        (spec(probe, fault) + "  typo: 1\n", "10:3", "unknown field"),
    ] {
        refused_at(&toprope, text, place, what);
    }
}

#[test]
fn values_files_and_includes_are_checked_at_their_places() {
    let toprope = Toprope::new();
    let text = format!(
        "{HEAD}values: {{port: 80}}\nspec:\n  hypothesis: x\n  probes: [http: {{get: 'http://127.0.0.1:${{prt}}/'}}]\n  \
         method: [cpu-stress: {{load: 5%, for: 1s}}]\n"
    );
    refused_at(&toprope, &text, "7:", "did you mean `port`?");
    toprope.write("good.yaml", text.replace("prt", "port"));
    toprope.run(&["validate", "good.yaml", "--set", "port=81"]).expect(0);
    assert!(
        toprope.run(&["validate", "good.yaml", "--set", "prt=81"]).expect(2).stderr.contains("did you mean `port`")
    );
    toprope.run(&["validate", "good.yaml", "--set", "port"]).expect(2);
    refused_at(&toprope, format!("include: [bad.yaml]\n{HEAD}"), "1:11", "includes itself");
    refused_at(&toprope, format!("include: [nope.yaml]\n{HEAD}"), "1:11", "there is no file");
    refused_at(&toprope, text.replace("${prt}", "${file:/dev/zero}"), "7:", "");
    refused_at(&toprope, text.replace("${prt}", "${env:TOPROPE_TESTS_NO_SUCH}"), "7:", "TOPROPE_TESTS_NO_SUCH");
    let topology = text.replace("${prt}", "80").replace("  hypothesis", "  topology: nope.yaml\n  hypothesis");
    let done = refused(&toprope, topology);
    assert!(done.stderr.contains("nope.yaml"), "{done}");
}

#[test]
fn an_error_is_told_with_a_caret_and_what_to_write_instead() {
    let toprope = Toprope::new();
    let told = |name: &str, text: &str| {
        toprope.write("experiment.yaml", text);
        let done = toprope.run(&["validate", "experiment.yaml"]).expect(2);
        insta::assert_snapshot!(name, done.stderr);
    };
    let spec = "spec:
  hypothesis: checkout stays fast
  probes:
  - http: {get: \"http://127.0.0.1:8080/checkout\", status: 200, p99: \"< 300ms\"}
  method:
  - process-pause: {target: {process: checkout}, for: 30s}
";
    told("misspelt", &format!("{HEAD}{}", spec.replace("process-pause", "proces-pause")));
    told("wrong_unit", &format!("{HEAD}{}", spec.replace("30s", "30 seconds long")));
    told("twice", &format!("{HEAD}{spec}  hypothesis: checkout stays up\n"));
    told("several", &spec.replace("for: 30s", "fro: 30s").replace("http:", "htttp:"));
    told("not_yaml", &format!("{HEAD}spec: [a\n"));
    told("unicode", &format!("{HEAD}spec: {{hypothesis: größer wäre schöner, probs: []}}\n"));
}
