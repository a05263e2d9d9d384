//! `kill -9` of whoever holds or guards a fault: it is gone, and the log up to that moment is kept.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use toprope_model::event::Event;
use toprope_os::process::{Pidfd, ProcessId, ProcessInfo, State};
use toprope_tests::{Running, Toprope, eventually, network};

/// Who is killed, at once.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victims {
    Run,
    Injector,
    RunAndInjector,
    InjectorAndGuard,
    All,
}

const VICTIMS: [Victims; 5] =
    [Victims::Run, Victims::Injector, Victims::RunAndInjector, Victims::InjectorAndGuard, Victims::All];

fn kill(running: &Running<'_>, victims: Victims) {
    let (run, injectors, guards) = (vec![running.id()], running.injectors(), running.guards());
    assert_eq!((injectors.len(), guards.len()), (1, 1), "a fault in force has an injector and a guard");
    let killed: Vec<ProcessId> = match victims {
        Victims::Run => run,
        Victims::Injector => injectors,
        Victims::RunAndInjector => [run, injectors].concat(),
        Victims::InjectorAndGuard => [injectors, guards].concat(),
        Victims::All => [run, injectors, guards].concat(),
    };
    let held: Vec<Pidfd> = killed.iter().map(|id| Pidfd::open(id).expect("it lives")).collect();
    held.iter().for_each(|process| process.signal(Signal::KILL).expect("it is ours"));
}

/// Kills while the fault is in force, and looks from outside whether it is gone. `survives` says whether the fault
/// outlives the death of all, until `toprope undo`.
fn outlives_nobody(method: &str, victims: Victims, survives: bool, in_force: &mut dyn FnMut() -> bool) {
    let toprope = Toprope::new();
    let spec = format!(
        "probes: [command: {{run: ['true'], interval: 50ms}}]\nsteady-state: {{for: 200ms}}\nmethod:\n- {method}"
    );
    let experiment = toprope.experiment("killed", &spec);
    let mut running = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    running.until_in_force();
    assert!(in_force(), "{victims:?}: it is seen from outside");
    running.until("a sample", |event| matches!(event, Event::Sample(_)));
    let seen = running.records().len();
    kill(&running, victims);
    if survives && victims == Victims::All {
        let done = running.wait();
        assert_eq!(done.code, None, "{done}");
        let residue = toprope.run(&["residue"]);
        assert_eq!(residue.code, Some(4), "what is left is told: {residue}");
        let refused = toprope.run(&["run", experiment.to_str().expect("a path of this test")]);
        assert_eq!(refused.code, Some(4), "nothing new while something is left: {refused}");
        let refused = toprope.run(&["test", experiment.to_str().expect("a path of this test")]);
        assert_eq!(refused.code, Some(4), "a suite says so, too: {refused}");
        toprope.run(&["undo"]).expect(0);
        assert!(!in_force(), "{victims:?}: undone from the journal alone");
    } else {
        let took = eventually("the fault is gone", || !in_force());
        // By far less than its 60 s: it did not just come to its own end.
        assert!(took < Duration::from_secs(20), "{victims:?}: gone after {took:?}");
        running.wait();
    }
    toprope.assert_clean();
    if [Victims::Run, Victims::RunAndInjector, Victims::All].contains(&victims) {
        let listed = toprope.run(&["runs"]).expect(0).stdout;
        assert!(listed.contains("  killed  ") && !listed.contains("running"), "{victims:?}: {listed}");
    }
    // The next start seals what the killed run left.
    toprope.run(&["undo"]).expect(0);
    let events = toprope.events();
    assert!(events.len() >= seen, "{victims:?}: {} events of {seen} are left", events.len());
    let closed = events.last().is_some_and(|e| matches!(e, Event::RunEnded { .. } | Event::Sealed { .. }));
    assert!(closed, "{victims:?}: the log has an end");
}

#[test]
fn a_command_is_undone_from_the_journal_whoever_is_killed() {
    for victims in VICTIMS {
        let directory = tempfile::tempdir().expect("there is room");
        let flag = directory.path().join("flag");
        let path = flag.display();
        let method =
            format!("command: {{apply: [touch, {path}], check: [test, -e, {path}], undo: [rm, -f, {path}], for: 60s}}");
        outlives_nobody(&method, victims, true, &mut || flag.exists());
    }
}

#[test]
fn an_injector_that_hangs_without_a_guard_is_ended_by_the_run() {
    let (toprope, directory) = (Toprope::new(), tempfile::tempdir().expect("there is room"));
    let flag = directory.path().join("flag");
    let path = flag.display();
    let spec = format!(
        "probes: [command: {{run: ['true'], interval: 500ms}}]\nsteady-state: {{for: 1s}}\nmethod:\n\
         - command: {{apply: [touch, {path}], check: [test, -e, {path}], undo: [rm, -f, {path}], for: 10m}}"
    );
    let experiment = toprope.experiment("hangs", &spec);
    let mut running = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    running.until_in_force();
    let hold = |id: &ProcessId| Pidfd::open(id).expect("it lives");
    let (injector, guard) = (hold(&running.injectors()[0]), hold(&running.guards()[0]));
    // In this order: an injector that runs would see its guard die.
    injector.signal(Signal::STOP).expect("it is ours");
    guard.signal(Signal::KILL).expect("it is ours");
    let done = running.wait().expect(3);
    assert!(done.took < Duration::from_secs(120), "it waited for the end of the fault: {done}");
    assert!(done.stdout.contains("the injector of command hangs"), "{done}");
    assert!(!flag.exists(), "undone from the journal");
    toprope.assert_clean();
}

/// A process that may be paused.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        // It says when it runs: a pause before that would hold a half-started program.
        let mut child =
            Command::new("sh").args(["-c", "echo up; exec sleep 600"]).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("it says so");
        Self(child)
    }

    fn is_held(&self) -> bool {
        let state = ProcessInfo::of(self.0.id()).expect("it lives").state;
        matches!(state, State::Stopped | State::Traced)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_paused_process_runs_again_whoever_is_killed() {
    for victims in VICTIMS {
        let sleeper = Sleeper::start();
        let method = format!("process-pause: {{target: {{pid: {}}}, for: 60s}}", sleeper.0.id());
        // Held by ptrace, the kernel lets it go even when all are dead.
        outlives_nobody(&method, victims, false, &mut || sleeper.is_held());
    }
}

#[test]
fn a_partition_ends_whoever_is_killed() {
    network::own(|| {
        for victims in VICTIMS {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let method =
                format!("network-partition: {{from: {{host: true}}, to: '{address}', action: reject, for: 60s}}");
            outlives_nobody(&method, victims, false, &mut || !connects(address));
        }
    });
}

fn connects(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

/// How long the fault of a run lasts after something was done to its injector or guard.
fn gone_after(
    running: &Running<'_>,
    ids: &[ProcessId],
    signal: Signal,
    in_force: &mut dyn FnMut() -> bool,
) -> Duration {
    for id in ids {
        Pidfd::open(id).and_then(|process| process.signal(signal)).expect("it lives");
    }
    let took = eventually("the fault is gone", || !in_force());
    println!("{signal:?} to {}: gone after {took:?}", running.id().pid());
    took
}

/// A run of a fault that only Toprope can undo: a file.
fn flag(toprope: &Toprope) -> (std::path::PathBuf, std::path::PathBuf) {
    let flag = toprope.path("flag");
    let path = flag.display();
    let spec = format!(
        "probes: [command: {{run: ['true'], interval: 50ms}}]\nsteady-state: {{for: 200ms}}\nmethod:\n\
         - command: {{apply: [touch, {path}], check: [test, -e, {path}], undo: [rm, -f, {path}], for: 60s}}"
    );
    (toprope.experiment("flag", &spec), flag)
}

#[test]
fn a_frozen_injector_is_noticed_by_its_guard_and_undone() {
    let toprope = Toprope::new();
    let (experiment, flag) = flag(&toprope);
    let mut running = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
    running.until_in_force();
    let injectors = running.injectors();
    let took = gone_after(&running, &injectors, Signal::STOP, &mut || flag.exists());
    assert!(took < Duration::from_secs(10), "{took:?}: not by the guard");
    running.wait();
    toprope.assert_clean();
}

#[test]
fn a_guard_that_dies_or_hangs_is_replaced_and_its_successor_undoes() {
    for signal in [Signal::KILL, Signal::STOP] {
        let toprope = Toprope::new();
        let (experiment, flag) = flag(&toprope);
        let mut running = toprope.start(&["run", "--plain", experiment.to_str().expect("a path of this test")]);
        running.until_in_force();
        let first = running.guards();
        Pidfd::open(&first[0]).and_then(|guard| guard.signal(signal)).expect("it lives");
        eventually("there is another guard, and only that", || {
            let guards = running.guards();
            guards.len() == 1 && guards != first
        });
        running.until(
            "it is told",
            |event| matches!(event, Event::Note { text, .. } if text.contains("another one has taken its place")),
        );
        assert!(flag.exists() && running.is_running(), "the fault goes on");
        let injectors = running.injectors();
        assert_eq!(injectors.len(), 1);
        gone_after(&running, &injectors, Signal::KILL, &mut || flag.exists());
        running.wait();
        toprope.assert_clean();
    }
}
