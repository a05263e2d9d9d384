//! A run that is told to end, by whatever: all is undone, the verdict says so, and the log is whole.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use toprope_model::event::{Event, Stop};
use toprope_os::process::{Pidfd, ProcessId, ProcessInfo, Signal};
use toprope_tests::programs::installed;
use toprope_tests::{Done, Toprope, eventually};

/// Twenty seconds of a flag, unless somebody ends it.
const SPEC: &str = "probes:
- command: {run: ['true'], interval: 100ms}
method:
- command: {apply: [touch, flag], check: [test, -e, flag], undo: [rm, -f, flag], for: 20s}";

/// The same, and short.
fn short() -> String {
    SPEC.replace("20s", "600ms")
}

#[track_caller]
fn assert_stopped(toprope: &Toprope, by: &str) {
    let events = toprope.events();
    let stop = events.iter().find_map(|event| match event {
        Event::Stopping(Stop { by, .. }) => Some(by.as_str()),
        _ => None,
    });
    assert_eq!(stop, Some(by));
    assert!(events.iter().any(|event| matches!(event, Event::Undone { undone, .. } if undone.clean)));
    assert!(matches!(events.last(), Some(Event::RunEnded { exit: 5 })), "{:?}", events.last());
    assert!(!toprope.path("flag").exists());
    toprope.assert_clean();
}

fn stopped_by(signal: Signal, name: &str) -> (Toprope, Done) {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("stopped", SPEC);
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until_in_force();
    assert!(toprope.path("flag").exists());
    run.signal(signal);
    let done = run.wait().expect(5);
    assert!(done.took < Duration::from_secs(15), "{done}");
    assert_stopped(&toprope, name);
    (toprope, done)
}

#[test]
fn ctrl_c_undoes_and_tells() {
    let (_toprope, done) = stopped_by(Signal::INT, "SIGINT");
    assert!(done.stdout.contains("Ctrl-C"), "{done}");
}

#[test]
fn a_polite_end_undoes_and_tells() {
    let (_toprope, done) = stopped_by(Signal::TERM, "SIGTERM");
    assert!(done.stdout.contains("asked to end"), "{done}");
}

#[test]
fn a_hangup_undoes() {
    stopped_by(Signal::HUP, "SIGHUP");
}

#[test]
fn a_run_that_is_stopped_before_it_injects_has_nothing_to_undo() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("early", &format!("steady-state: {{for: 20s}}\n{SPEC}"));
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until("the steady state is watched", |event| matches!(event, Event::Sample(_)));
    run.signal(Signal::INT);
    let done = run.wait().expect(5);
    assert!(done.took < Duration::from_secs(15), "{done}");
    assert!(!toprope.events().iter().any(|event| matches!(event, Event::Injecting { .. })));
    toprope.assert_clean();
}

#[test]
fn a_run_that_waits_for_its_first_sample_is_stopped_too() {
    let toprope = Toprope::new();
    let spec = SPEC.replace("interval: 100ms", "interval: 100ms, initial-delay: 90s");
    let experiment = toprope.experiment("waiting", &spec);
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until("the steady state begins", |event| matches!(event, Event::Phase(_)));
    // Past the steady state, where the first sample is waited for.
    std::thread::sleep(Duration::from_secs(1));
    run.signal(Signal::TERM);
    let done = run.wait().expect(5);
    assert!(done.took < Duration::from_secs(30), "{done}");
    toprope.assert_clean();
}

#[test]
fn what_was_refuted_before_it_was_stopped_is_refuted() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("refuted", &SPEC.replace("'true'", "test, '!', -e, flag"));
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until("a bad sample", |event| matches!(event, Event::Sample(sample) if !sample.ok));
    run.until("its effect was measured", |event| matches!(event, Event::Effect { .. }));
    run.signal(Signal::INT);
    run.wait().expect(1);
    assert!(!toprope.path("flag").exists());
    toprope.assert_clean();
}

/// A process with a terminal of its own: what `script` starts.
struct Terminal(Child);

impl Terminal {
    fn running(toprope: &Toprope, command: &str) -> Self {
        let mut script = Command::new("script");
        script.args(["--quiet", "--flush", "--return", "--command", command, "typescript"]);
        script.current_dir(toprope.directory()).env("TOPROPE_HOME", toprope.home()).env_remove("SUDO_UID");
        script.env("TERM", "xterm-256color");
        Self(script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("script is installed"))
    }

    /// The run in it.
    fn run(&self, toprope: &Toprope) -> ProcessId {
        eventually("the run begins", || !toprope.processes("run").is_empty());
        toprope.processes("run")[0].id
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_force(toprope: &Toprope) {
    eventually("the fault is in force", || toprope.path("flag").exists());
}

#[test]
fn a_closed_terminal_undoes() {
    if !installed(&["script"]) {
        return;
    }
    let toprope = Toprope::new();
    let experiment = toprope.experiment("closed", SPEC);
    let mut terminal =
        Terminal::running(&toprope, &format!("exec {} run {}", toprope.binary().display(), experiment.display()));
    let run = terminal.run(&toprope);
    in_force(&toprope);
    // The emulator dies, and with it the terminal: the kernel tells the session's processes.
    terminal.0.kill().unwrap();
    terminal.0.wait().unwrap();
    eventually("the run ends", || !run.is_alive());
    assert_stopped(&toprope, "SIGHUP");
}

#[test]
fn ctrl_c_at_a_terminal_reaches_the_run_alone() {
    use std::io::Write;
    if !installed(&["script"]) {
        return;
    }
    let toprope = Toprope::new();
    let experiment = toprope.experiment("typed", SPEC);
    let mut terminal =
        Terminal::running(&toprope, &format!("exec {} run {}", toprope.binary().display(), experiment.display()));
    let run = terminal.run(&toprope);
    in_force(&toprope);
    let injector = toprope.processes("injector").remove(0);
    assert_ne!(session(injector.id), session(run), "the injector must not share the terminal");
    // What the terminal's driver or the live view makes of the key, it ends the run.
    terminal.0.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    eventually("the run ends", || !run.is_alive());
    let events = toprope.events();
    assert!(matches!(events.last(), Some(Event::RunEnded { exit: 5 })), "{:?}", events.last());
    assert!(!toprope.path("flag").exists());
    toprope.assert_clean();
}

fn session(id: ProcessId) -> Option<i32> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(id.pid()).ok()?)?;
    rustix::process::getsid(Some(pid)).ok().map(|sid| sid.as_raw_nonzero().get())
}

#[test]
fn a_reader_that_goes_away_does_not_change_how_a_run_ends() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("piped", &short());
    let pipe = ["bash", "-c", "\"$@\" | head -1; exit ${PIPESTATUS[0]}", "bash"];
    for args in [
        &["run", experiment.to_str().expect("a path of this test")][..],
        &["run", experiment.to_str().expect("a path of this test"), "--json"],
    ] {
        let done = toprope.spawn(toprope.wrapped(&pipe, args)).wait().expect(0);
        assert_eq!(done.stdout.lines().count(), 1, "{done}");
        assert!(done.stderr.is_empty(), "{done}");
        assert!(toprope.log().is_closed());
        assert!(!toprope.path("flag").exists());
    }
    for args in [&["runs"][..], &["report"], &["faults"], &["report", "--form", "html"]] {
        let done = toprope.spawn(toprope.wrapped(&pipe, args)).wait().expect(0);
        assert!(done.stderr.is_empty(), "{args:?}: {done}");
    }
    toprope.assert_clean();
}

#[test]
fn a_reader_that_does_not_read_does_not_hold_up_a_run() {
    let toprope = Toprope::new();
    // Far more than a pipe holds.
    let probes: String =
        (0..20).map(|n| format!("- file: {{name: probe-{n}, path: /proc/version, interval: 20ms}}\n")).collect();
    let (_, method) = SPEC.split_once("method:").unwrap();
    let experiment = toprope.experiment("stuck", &format!("probes:\n{probes}method:{}", method.replace("20s", "2s")));
    let stuck = ["bash", "-c", "exec \"$@\" > >(sleep 5; cat | wc -c >&2)", "bash"];
    let run =
        toprope.spawn(toprope.wrapped(&stuck, &["run", experiment.to_str().expect("a path of this test"), "--json"]));
    in_force(&toprope);
    let started = std::time::Instant::now();
    eventually("the fault is undone", || !toprope.path("flag").exists());
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    let done = run.wait();
    assert!(matches!(done.code, Some(0)), "{done}");
    toprope.assert_clean();
}

#[test]
fn a_run_that_stands_still_does_not_keep_its_fault_in_force() {
    let toprope = Toprope::new();
    let experiment = toprope.experiment("still", &SPEC.replace("20s", "2s"));
    let mut run = toprope.start(&["run", experiment.to_str().expect("a path of this test")]);
    run.until_in_force();
    run.signal(Signal::STOP);
    let id = run.id();
    eventually("it stands still", || {
        ProcessInfo::of(id.pid()).is_ok_and(|p| p.state == toprope_os::process::State::Stopped)
    });
    eventually("the injector's own deadline ends the fault", || !toprope.path("flag").exists());
    Pidfd::open(&id).unwrap().signal(Signal::CONT).unwrap();
    let done = run.wait();
    assert!(matches!(done.code, Some(0 | 3)), "{done}");
    toprope.assert_clean();
}
