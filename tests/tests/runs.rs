//! How runs end, and what they leave to be read: exit codes, streams, reports, logs.

use std::process::Command;
use std::time::Duration;

use toprope_model::event::{Event, Record};
use toprope_model::verdict::Outcome;
use toprope_os::process::Signal;
use toprope_tests::programs::installed;
use toprope_tests::{Toprope, eventually};

/// A fault that is a file, and a probe that looks whether it is there.
fn flag(probe: &str, fault: &str) -> String {
    format!(
        "probes:
- {probe}
method:
- command: {{apply: [touch, flag], check: [test, -e, flag], undo: [rm, -f, flag], for: 600ms, {fault}}}"
    )
}

const GOOD: &str = "command: {run: ['true'], interval: 50ms}";
const REFUTED: &str = "command: {run: [test, '!', -e, flag], interval: 50ms}";

fn run(toprope: &Toprope, spec: &str, code: i32) -> String {
    let experiment = toprope.experiment("experiment", spec);
    toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(code).stdout
}

fn outcome(toprope: &Toprope) -> Outcome {
    let judged = toprope.events().into_iter().find_map(|event| match event {
        Event::Judged(judgement) => Some(judgement.outcome),
        _ => None,
    });
    judged.expect("every run that began is judged")
}

#[test]
fn exit_0_held() {
    let toprope = Toprope::new();
    assert!(run(&toprope, &flag(GOOD, "name: a"), 0).contains("HELD"));
    assert_eq!(outcome(&toprope), Outcome::Held);
    assert!(!toprope.path("flag").exists());
    toprope.assert_clean();
}

#[test]
fn exit_1_refuted() {
    let toprope = Toprope::new();
    assert!(run(&toprope, &flag(REFUTED, "name: a"), 1).contains("REFUTED"));
    assert_eq!(outcome(&toprope), Outcome::Refuted);
    toprope.assert_clean();
}

#[test]
fn exit_2_an_experiment_that_cannot_be_run_leaves_no_run() {
    let toprope = Toprope::new();
    let spec =
        "probes: [command: {run: ['true']}]\nmethod: [process-pause: {target: {process: no-such-thing}, for: 1s}]";
    let experiment = toprope.experiment("nothing", spec);
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(2);
    assert!(done.stderr.contains("nothing.yaml:9:"), "{done}");
    assert!(done.stderr.contains("no process"), "{done}");
    assert!(toprope.runs().is_empty());
    toprope.run(&["run", "no-such-file.yaml"]).expect(2);
    toprope.run(&["run"]).expect(2);
    toprope.run(&["no-such-command"]).expect(2);
    toprope.assert_clean();
}

#[test]
fn exit_3_a_fault_that_did_not_take_proves_nothing() {
    let toprope = Toprope::new();
    let spec = format!(
        "probes:\n- {GOOD}\nmethod:\n- command: {{apply: ['true'], check: ['false'], undo: ['true'], for: 600ms}}"
    );
    assert!(run(&toprope, &spec, 3).contains("INCONCLUSIVE"));
    assert_eq!(outcome(&toprope), Outcome::Inconclusive);
    toprope.assert_clean();
}

#[test]
fn exit_3_a_system_that_is_ill_before_proves_nothing() {
    let toprope = Toprope::new();
    let spec = flag("command: {run: ['false'], interval: 50ms}", "name: a");
    assert!(run(&toprope, &spec, 3).contains("steady state"));
    assert!(!toprope.events().iter().any(|e| matches!(e, Event::Injecting { .. })), "nothing may be injected");
    toprope.assert_clean();
}

#[test]
fn exit_3_a_system_that_hangs_since_its_steady_state_proves_nothing() {
    let toprope = Toprope::new();
    // The first answer comes, and no other: those that are still waited for belong to the steady state too.
    let spec =
        flag("command: {run: [sh, -c, 'mkdir asked && exit; sleep 60'], interval: 100ms, timeout: 2s}", "name: a");
    let told = run(&toprope, &format!("steady-state: {{for: 1s}}\n{spec}"), 3);
    assert!(told.contains("The steady state was not seen"), "{told}");
    assert!(!toprope.events().iter().any(|e| matches!(e, Event::Injecting { .. })), "nothing may be injected");
    toprope.assert_clean();
}

#[test]
fn exit_3_a_probe_that_breaks_proves_nothing() {
    let toprope = Toprope::new();
    // The program that the probe runs is moved away while the fault is in force.
    std::os::unix::fs::symlink("/bin/true", toprope.path("look")).unwrap();
    let spec = "probes:
- command: {run: [./look], interval: 50ms}
method:
- command: {apply: [mv, look, gone], check: [test, -e, gone], undo: [mv, gone, look], for: 600ms}";
    run(&toprope, spec, 3);
    assert!(toprope.path("look").exists());
    toprope.assert_clean();
}

#[test]
fn exit_4_what_could_not_be_undone_stays_in_the_journal_until_it_is() {
    let toprope = Toprope::new();
    let spec = format!(
        "probes:\n- {GOOD}\nmethod:\n- command: {{apply: [touch, flag], check: [test, -e, flag], \
         undo: [test, -e, repaired], for: 600ms}}"
    );
    let experiment = toprope.experiment("stuck", &spec);
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(4);
    assert!(done.stdout.contains("toprope undo"), "{done}");

    let residue = toprope.run(&["residue"]).expect(4);
    assert!(residue.stdout.contains("command of run"), "{residue}");
    let again = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(4);
    assert!(again.stderr.contains("never undone") && again.stderr.contains("toprope undo"), "{again}");
    toprope.run(&["undo"]).expect(4);

    // Whoever mends what kept it from being undone can undo it then.
    std::fs::remove_file(toprope.path("flag")).unwrap();
    toprope.write("repaired", "");
    let undo = toprope.run(&["undo"]).expect(0);
    assert!(undo.stdout.contains("undone"), "{undo}");
    toprope.assert_clean();
}

#[test]
fn exit_5_a_guardrail_stops_a_run_that_would_have_recovered() {
    let toprope = Toprope::new();
    let spec = "probes:
- command: {name: visitors, run: [test, '!', -e, flag], interval: 50ms, recovers: {within: 5s}}
guardrails:
- bad-in-a-row: {probe: visitors, samples: 3}
method:
- command: {apply: [touch, flag], check: [test, -e, flag], undo: [rm, -f, flag], for: 20s}";
    let experiment = toprope.experiment("guarded", spec);
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(5);
    assert!(done.took.as_secs() < 15, "the guardrail did not shorten it: {done}");
    assert!(done.stdout.contains("3 samples of visitors in a row were bad"), "{done}");
    assert!(!toprope.path("flag").exists());
    toprope.assert_clean();
}

#[test]
fn nothing_is_applied_before_the_run_has_written_down_that_it_begins() {
    let toprope = Toprope::new();
    // It is looked for when the run is planned, and just before it is applied: then the run is made to stand still.
    let check = "echo >>checks; test $(wc -l <checks) != 2 || until test -e still; do sleep 0.05; done; test -e flag";
    let spec = format!(
        "probes:
- {GOOD}
{}
method:
- command: {{apply: [touch, flag], check: [sh, -c, '{check}'], undo: [rm, -f, flag], for: 60s}}",
        toprope.watcher()
    );
    let experiment = toprope.experiment("slow-run", &spec);
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    let looked = || std::fs::read_to_string(toprope.path("checks")).is_ok_and(|text| text.lines().count() == 2);
    eventually("the fault is planned anew", looked);
    run.signal(Signal::STOP);
    toprope.write("still", "");
    std::thread::sleep(Duration::from_secs(2));
    assert!(!toprope.path("flag").exists(), "it was applied, and the log knows nothing of it");
    run.signal(Signal::CONT);
    run.until_in_force();
    assert!(toprope.path("flag").exists());
    run.until_sampled(0, 2);
    toprope.let_go();
    run.wait().expect(0);
    toprope.assert_clean();
}

#[test]
fn the_stream_of_events_is_the_log() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("stream", &flag(GOOD, "name: a"));
    let done = toprope.run(&["run", experiment.to_str().expect("a path of this test"), "--json"]).expect(0);
    let records: Vec<Record> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(matches!(records.first().unwrap().event, Event::RunStarted(_)));
    assert!(matches!(records.last().unwrap().event, Event::RunEnded { exit: 0 }));
    assert!(records.windows(2).all(|pair| pair[0].at <= pair[1].at && pair[0].seq + 1 == pair[1].seq));
    assert_eq!(records, toprope.log().records);
    assert!(toprope.log().is_closed());
}

#[test]
fn a_report_is_the_same_from_the_log_alone() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("reported", &flag(REFUTED, "name: a"));
    let files = ["page.html", "page.md", "result.xml"];
    let mut args = vec!["run", experiment.to_str().expect("a path of this test")];
    args.extend(["--html", files[0], "--md", files[1], "--junit", files[2]]);
    toprope.run(&args).expect(1);
    let written = files.map(|file| std::fs::read_to_string(toprope.path(file)).unwrap());
    assert!(written[0].to_lowercase().starts_with("<!doctype html>"), "{}", written[0]);
    assert!(!written[0].contains("src=\"http"), "the page must not need a network");
    assert!(written[1].contains("refuted"), "{}", written[1]);
    assert!(written[2].contains("<testsuites") && written[2].contains("failures=\"1\""), "{}", written[2]);

    // Elsewhere, where there is nothing but the log.
    let other = Toprope::new();
    let run = toprope.runs().pop().unwrap();
    std::fs::copy(run.join("events.jsonl"), other.path("copy.jsonl")).unwrap();
    for (form, written) in [("html", &written[0]), ("md", &written[1]), ("junit", &written[2])] {
        assert_eq!(toprope.run(&["report", "--form", form]).expect(0).stdout, *written, "{form}");
        assert_eq!(toprope.run(&["replay", "--form", form]).expect(0).stdout, *written, "{form}");
        assert_eq!(other.run(&["replay", "copy.jsonl", "--form", form]).expect(0).stdout, *written, "{form}");
    }
    let json = toprope.run(&["report", "--form", "json"]).expect(0).stdout;
    assert!(serde_json::from_str::<serde_json::Value>(&json).unwrap().is_object());
    assert_eq!(toprope.run(&["replay", "--form", "json"]).expect(0).stdout, json);
}

#[test]
fn one_changed_byte_of_a_log_is_found_and_its_line_named() {
    let toprope = Toprope::new();
    run(&toprope, &flag(GOOD, "name: a"), 0);
    let whole = toprope.run(&["report", "--verify"]).expect(0);
    assert!(whole.stdout.contains("as it was written"), "{whole}");

    let path = toprope.runs().pop().unwrap().join("events.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    let begins: Vec<usize> =
        std::iter::once(0).chain(bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1)).collect();
    for line in [1, 2, begins.len() / 2, begins.len() - 1] {
        // The last digit of `at`, so that it is an event still.
        let begin = begins[line - 1];
        let at = begin + bytes[begin..].windows(8).position(|w| w == b",\"prev\":").unwrap() - 1;
        let mut changed = bytes.clone();
        changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
        std::fs::write(&path, &changed).unwrap();
        let done = toprope.run(&["report", "--verify"]);
        // Nothing follows the last line and holds its hash: what names the whole log is the hash that is printed.
        if line == begins.len() - 1 {
            assert_ne!(done.stdout, whole.stdout, "{done}");
        } else {
            let done = done.expect(2);
            assert!(done.stderr.contains(&format!("line {line} ")), "line {line} was changed: {done}");
        }
    }
    // A line that is no event any more.
    let mut changed = bytes.clone();
    changed[begins[2]] = b'#';
    std::fs::write(&path, &changed).unwrap();
    let done = toprope.run(&["report", "--verify"]).expect(2);
    assert!(done.stderr.contains("line 3 "), "{done}");
}

#[test]
fn a_signed_log_is_checked_with_and_without_toprope() {
    if !installed(&["openssl"]) {
        return;
    }
    let toprope = Toprope::new();
    let openssl = |args: &str| {
        let done = Command::new("openssl").args(args.split(' ')).current_dir(toprope.directory()).output().unwrap();
        done.status.success()
    };
    for name in ["mine", "other"] {
        assert!(openssl(&format!("genpkey -algorithm ed25519 -out {name}.pem")));
        assert!(openssl(&format!("pkey -in {name}.pem -pubout -out {name}.pub")));
    }
    assert!(openssl("genpkey -algorithm rsa -out rsa.pem"));
    run(&toprope, &flag(GOOD, "name: a"), 0);
    let log = toprope.runs().pop().unwrap().join("events.jsonl");

    let unsigned = toprope.run(&["report", "--verify", "--key", "mine.pub"]).expect(2);
    assert!(unsigned.stderr.contains("is not signed"), "{unsigned}");
    for (key, why) in [
        ("rsa.pem", "rsa.pem is no private key of Ed25519"),
        ("mine.pub", "is no private key"),
        ("no.pem", "cannot read"),
    ] {
        let refused = toprope.run(&["report", "--sign", key]).expect(2);
        assert!(refused.stderr.contains(why), "{refused}");
    }
    toprope.run(&["report", "--sign", "mine.pem"]).expect(0);
    let checked = toprope.run(&["report", "--verify", "--key", "mine.pub"]).expect(0);
    assert!(checked.stdout.contains("signed by the owner of mine.pub"), "{checked}");
    let unasked = toprope.run(&["report", "--verify"]).expect(0);
    assert!(unasked.stdout.contains("by --key"), "{unasked}");
    let others = toprope.run(&["report", "--verify", "--key", "other.pub"]).expect(2);
    assert!(others.stderr.contains("is not what other.pub has signed"), "{others}");
    let by_openssl = format!("pkeyutl -verify -pubin -inkey mine.pub -rawin -in {0} -sigfile {0}.sig", log.display());
    assert!(openssl(&by_openssl));

    // The last line: no other holds its hash, so that the chain alone does not show it.
    let text = std::fs::read_to_string(&log).unwrap();
    let at = text.rfind(",\"prev\":").unwrap() - 1;
    let mut changed = text.into_bytes();
    changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
    std::fs::write(&log, changed).unwrap();
    toprope.run(&["report", "--verify"]).expect(0);
    toprope.run(&["report", "--verify", "--key", "mine.pub"]).expect(2);
    assert!(!openssl(&by_openssl));
}

#[test]
fn a_run_made_again_has_the_same_seed_and_hits_the_same() {
    let toprope = Toprope::new();
    // Eight processes that nobody else has, told by an argument.
    let mark = format!("{}.25", 9000 + std::process::id());
    let mut sleepers: Vec<_> =
        (0..8).map(|_| Command::new("sleep").arg(&mark).spawn().expect("sleep is installed")).collect();
    let spec = format!(
        "probes: [{GOOD}]\nmethod: [process-pause: {{target: {{command-line: '^sleep {mark}$', pick: 3}}, for: 600ms}}]"
    );
    let experiment = toprope.experiment("again", &spec);
    toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(0);
    let first = toprope.events();
    toprope.run(&["run", "--again", "last"]).expect(0);
    let second = toprope.events();
    let (one, two) = (started(&first), started(&second));
    assert_eq!(one.seed, two.seed);
    assert_eq!(two.again.as_ref(), Some(&one.run));
    assert_eq!(one.manifest, two.manifest);
    assert_eq!(targets(&first).len(), 3);
    assert_eq!(targets(&first), targets(&second));

    // Another seed draws others, sooner or later.
    let others = (1..6).map(|seed: u32| {
        toprope.run(&["run", "--again", "last", "--seed", &seed.to_string()]).expect(0);
        targets(&toprope.events())
    });
    assert!(others.into_iter().any(|other| other != targets(&first)));
    for sleeper in &mut sleepers {
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
    toprope.assert_clean();
}

fn started(events: &[Event]) -> &toprope_model::event::RunStarted {
    match &events[0] {
        Event::RunStarted(started) => started,
        other => panic!("a log begins with {other:?}"),
    }
}

fn targets(events: &[Event]) -> Vec<String> {
    let plan = events.iter().find_map(|event| match event {
        Event::Injecting { plan, .. } => Some(plan.targets.clone()),
        _ => None,
    });
    plan.expect("something was injected")
}

#[test]
fn a_suite_runs_every_experiment_and_ends_as_the_worst() {
    let toprope = Toprope::new();
    std::fs::create_dir(toprope.path("suite")).unwrap();
    for (name, probe) in [("a", GOOD), ("b", REFUTED), ("c", GOOD)] {
        let path = toprope.experiment(name, &flag(probe, "name: a"));
        std::fs::rename(path, toprope.path("suite").join(format!("{name}.yaml"))).unwrap();
    }
    let done = toprope.run(&["test", "suite", "--junit", "suite.xml"]).expect(1);
    assert!(done.stdout.contains("2 of 3 held"), "{done}");
    let junit = std::fs::read_to_string(toprope.path("suite.xml")).unwrap();
    assert!(junit.contains("tests=\"3\"") && junit.contains("failures=\"1\""), "{junit}");
    assert_eq!(toprope.runs().len(), 3);

    // One bad file, and none of them is run.
    toprope.write("suite/d.yaml", "kind: Experiment\nspec: {}\n");
    toprope.run(&["test", "suite"]).expect(2);
    assert_eq!(toprope.runs().len(), 3);
    toprope.assert_clean();
}

#[test]
fn one_fault_without_a_file_is_a_run_like_any_other() {
    let toprope = Toprope::new();
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep is installed");
    let target = format!("target.pid={}", sleeper.id());
    // Nothing is asked, so nothing is shown, and that is no pass; the fault comes and goes all the same.
    let unwatched = ["inject", "process-pause", &target, "--for", "500ms"];
    let printed = toprope.run(&[unwatched.as_slice(), &["--print"]].concat()).expect(0);
    assert!(toprope.runs().is_empty() && printed.stdout.contains("# Add probes"), "{printed}");
    let done = toprope.run(&unwatched).expect(3);
    assert!(done.stdout.contains("Nothing was asked, so nothing is shown"), "{done}");
    assert!(toprope.events().iter().any(|e| matches!(e, Event::Effect { effect, .. } if effect.took == Some(true))));
    assert_eq!(outcome(&toprope), Outcome::Inconclusive);
    for (args, says) in [
        (vec!["process-pause", &target, "--for", "banana", "--print"], "banana"),
        (vec!["process-pause", &target, "for=3s", "--for", "1s"], "given twice"),
        (vec!["process-kill", &target, "--for", "2s"], "takes no duration"),
        (vec!["process-pause", &target, "--for", "1s", "--probe", "{http: {json: $.a[*]}}"], "must be quoted"),
    ] {
        let refused = toprope.run(&[&["inject"], args.as_slice()].concat()).expect(2);
        assert!(refused.stderr.contains(says), "{refused}");
    }
    let watched = ["inject", "process-pause", &target, "--for", "500ms", "--probe", "{command: {run: ['true']}}"];
    let printed = toprope.run(&[watched.as_slice(), &["--print"]].concat()).expect(0);
    let done = toprope.run(&watched).expect(0);
    assert!(done.stdout.ends_with(&printed.stdout), "the manifest to keep is printed: {done}");
    assert_eq!(outcome(&toprope), Outcome::Held);
    // What was printed is the experiment.
    toprope.write("kept.yaml", printed.stdout);
    toprope.run(&["validate", "kept.yaml"]).expect(0);
    let wrong = toprope.run(&["inject", "process-pase", &target]).expect(2);
    assert!(wrong.stderr.contains("process-pause"), "{wrong}");
    let runs = toprope.run(&["runs", "--json"]).expect(0);
    let runs: serde_json::Value = serde_json::from_str(&runs.stdout).unwrap();
    assert_eq!(runs[0]["outcome"], "held");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    toprope.assert_clean();
}

#[test]
fn what_could_not_be_written_after_the_run_is_refused_before_it() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("experiment", &flag(GOOD, "name: a"));
    for output in ["--html", "--md", "--junit"] {
        let args = ["run", experiment.to_str().expect("a path of this test"), output, "/no-such-directory/x"];
        let refused = toprope.run(&args).expect(2);
        assert!(refused.stderr.contains("cannot write /no-such-directory/x"), "{refused}");
    }
    let suite = toprope.run(&["test", ".", "--junit", "/no-such-directory/x"]).expect(2);
    assert!(suite.stderr.contains("cannot write /no-such-directory/x"), "{suite}");
    assert!(toprope.runs().is_empty() && !toprope.path("flag").exists());
}

#[test]
fn faults_of_one_method_that_would_take_the_same_are_refused_by_plan() {
    let toprope = Toprope::new();
    let fault = "command: {apply: [touch, flag], check: [test, -e, flag], undo: [rm, -f, flag], for: 1s, name: NAME}";
    let (a, b) = (fault.replace("NAME", "a"), fault.replace("NAME", "b"));
    let both = |how: &str| format!("probes:\n- {GOOD}\nmethod: [{how}: [{a}, {b}]]");
    let experiment = toprope.experiment("at-once", &both("parallel"));
    for command in ["plan", "run"] {
        let refused = toprope.run(&[command, experiment.to_str().expect("a path of this test")]).expect(2);
        assert!(refused.stderr.contains("`a` has taken what `touch flag` does in /"), "{refused}");
    }
    assert!(toprope.runs().is_empty());
    let experiment = toprope.experiment("in-turn", &both("serial"));
    toprope.run(&["plan", experiment.to_str().expect("a path of this test")]).expect(0);
}

#[test]
fn a_second_run_on_the_same_target_is_told_which_run_holds_it() {
    let toprope = Toprope::new();
    let mut sleeper = Command::new("sleep").arg("600").spawn().expect("sleep is installed");
    let target = format!("target.pid={}", sleeper.id());
    let mut first = toprope.start(&["inject", "process-pause", &target, "--for", "60s"]);
    first.until_in_force();
    let run = toprope.runs().last().and_then(|r| r.file_name()).expect("a run").to_string_lossy().into_owned();
    let refused = toprope.run(&["inject", "process-pause", &target, "--for", "1s"]).expect(2);
    assert!(refused.stderr.contains(&format!("run {run} has process-pause in force")), "{refused}");
    first.signal(toprope_os::process::Signal::INT);
    first.wait().expect(5);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    toprope.assert_clean();
}

#[test]
fn a_command_is_run_once_all_of_its_faults_are_in_force() {
    let toprope = Toprope::new();
    // The second one takes longer to come into force than the first.
    let fault = |name: &str, slow: &str| {
        format!(
            "command: {{apply: [sh, -c, '{slow} touch {name}'], check: [test, -e, {name}], undo: [rm, -f, {name}], for: 20s}}"
        )
    };
    let spec = format!(
        "steady-state: {{for: 0s}}\nprobes: [command: {{run: [sh, -c, 'test -e a && test -e b'], when: at, samples: 1}}]\n\
         method: [parallel: [{}, {}]]",
        fault("a", ""),
        fault("b", "sleep 1;")
    );
    run(&toprope, &spec, 0);
    toprope.assert_clean();
}

#[test]
fn what_is_named_and_not_there_is_refused_before_anything_is_injected() {
    let toprope = Toprope::new();
    let fault = ["exec", "--fault", "cpu-stress load=5%", "--", "no-such-command"];
    let refused = toprope.run(&fault).expect(2);
    assert!(refused.stderr.contains("there is no program `no-such-command`"), "{refused}");
    for (spec, place, says) in [
        (flag(GOOD, "name: a").replace("probes:", "topology: none.yaml\nprobes:"), "wrong.yaml:", "there is no file"),
        (
            flag("http: {get: 'http://127.0.0.1:9/', auth: {bearer: {env: TOPROPE_NO_SUCH}}}", "name: a"),
            "wrong.yaml:",
            "TOPROPE_NO_SUCH",
        ),
    ] {
        let experiment = toprope.experiment("wrong", &spec);
        let refused = toprope.run(&["run", experiment.to_str().expect("a path of this test")]).expect(2);
        assert!(refused.stderr.contains(place) && refused.stderr.contains(says), "{refused}");
    }
    assert!(toprope.runs().is_empty());
}
