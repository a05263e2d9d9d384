use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use toprope_os::process::Signal;
use toprope_os::ptrace::Stopped;

use super::*;
use crate::testing::injector::Injector;
use crate::testing::{PATIENCE, Victim, eventually, host, params, planned};

/// A process that counts in a file's length, so that its pace is seen from outside.
fn busy(directory: &tempfile::TempDir) -> (Victim, impl Fn() -> u64 + use<>) {
    let file = directory.path().join("count");
    let script = format!("echo ready; while :; do printf x >> {}; sleep 0.01; done", file.display());
    (Victim::script(&script), move || std::fs::metadata(&file).map_or(0, |m| m.len()))
}

fn states(victim: &Victim) -> Vec<State> {
    thread_states(&victim.id()).expect("it lives")
}

fn is_paused(victim: &Victim) -> bool {
    states(victim).iter().all(|s| matches!(s, State::Stopped | State::Traced))
}

fn of(victim: &Victim) -> Params {
    params(json!({"target": {"pid": victim.pid()}}))
}

/// A step that pauses in one of the ways, whichever would be chosen here.
fn by(way: Way, victim: &Victim) -> Step {
    step(way, vec![Named { id: victim.id(), name: "victim".into() }])
}

async fn apply(step: &Step) -> Box<dyn Injection> {
    // Its parameters were for the plan.
    ProcessPause.apply(step, &params(json!({})), &host()).await.unwrap_or_else(|e| panic!("{e}"))
}

const WAYS: [Way; 2] = [Way::Hold, Way::Signal];

#[tokio::test]
async fn a_process_that_may_be_held_is_held() {
    let victim = Victim::sleeping();
    let (plan, step) = planned(&ProcessPause, &of(&victim), &host()).await;
    assert_eq!(step.claims, [format!("process {}", victim.pid())]);
    assert!(!is_paused(&victim), "planning changes nothing");
    match may_seize(&victim.id()) {
        Ok(()) => assert!(matches!(step.undo, Undo::KernelOwned(_)) && plan.path == "held by ptrace", "{plan:?}"),
        // Where tests may not trace, the plan must say so.
        Err(_) => assert!(matches!(step.undo, Undo::Restore(_)) && plan.path.contains("because"), "{plan:?}"),
    }
}

#[tokio::test]
async fn a_paused_process_does_nothing_and_then_goes_on() {
    for way in WAYS {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (victim, count) = busy(&directory);
        eventually("it works", || count() > 2);
        let mut injection = apply(&by(way, &victim)).await;
        eventually("it stops", || is_paused(&victim));
        // What its child was about may still end.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = count();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(count(), before);
        let effect = injection.observe().await.expect("it lives");
        assert_eq!((effect.took, effect.reached), (Some(true), Some(1.0)), "{effect:?}");
        assert_eq!(effect.measures[0].measured, 100.0);
        injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(!is_paused(&victim));
        eventually("it works again", || count() > before + 2);
    }
}

#[tokio::test]
async fn what_is_held_goes_on_without_anybody_undoing_it() {
    let victim = Victim::sleeping();
    let step = by(Way::Hold, &victim);
    for _ in 0..2 {
        let notes = ProcessPause.undo(&step, &host()).await.expect("never applied");
        assert!(notes[0].ends_with("goes on"), "{notes:?}");
    }
    let injection = apply(&step).await;
    assert!(is_paused(&victim));
    drop(injection); // as when the injector is killed
    for _ in 0..2 {
        ProcessPause.undo(&step, &host()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(!is_paused(&victim));
    }
}

#[tokio::test]
async fn a_hold_that_does_not_end_is_told() {
    let victim = Victim::sleeping();
    let targets = [Named { id: victim.id(), name: "victim".into() }];
    // Somebody else's, or a tracer of ours that lives on.
    let held = Stopped::seize(&victim.id()).expect("our child");
    let told = hold::let_go(&targets, Duration::from_millis(50)).await.expect_err("it is held");
    assert!(told.message.contains("still held"), "{told}");
    assert!(told.help.expect("who").contains(&std::process::id().to_string()));
    drop(held);
    hold::let_go(&targets, PATIENCE).await.expect("now it goes on");
}

#[tokio::test]
async fn what_was_stopped_by_signal_is_undone_from_every_state() {
    let mut victim = Victim::sleeping();
    let step = by(Way::Signal, &victim);
    assert!(matches!(step.undo, Undo::Restore(_)));
    for _ in 0..2 {
        ProcessPause.undo(&step, &host()).await.expect("never applied, and undone already");
    }
    assert!(!is_paused(&victim));
    let injection = apply(&step).await;
    eventually("it stops", || is_paused(&victim));
    drop(injection); // as when the injector is killed
    assert!(is_paused(&victim), "nobody undoes it but the journal");
    let mut another = step.clone();
    let start = &mut another.data["targets"][0]["id"]["start_time"];
    *start = json!(start.as_u64().expect("clock ticks") - 1);
    ProcessPause.undo(&another, &host()).await.expect("that one has ended");
    assert!(is_paused(&victim), "a reused number is left alone");
    let notes = ProcessPause.undo(&step, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(notes[0].ends_with("goes on") && !is_paused(&victim), "{notes:?}");
    victim.end();
    let notes = ProcessPause.undo(&step, &host()).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(notes[0].ends_with("has ended"), "{notes:?}");
}

#[tokio::test]
async fn what_somebody_else_stopped_is_refused() {
    let victim = Victim::sleeping();
    victim.signal(Signal::STOP);
    eventually("it stops", || is_paused(&victim));
    let refused = ProcessPause.plan(&of(&victim), &host()).await.expect_err("it is stopped");
    assert!(refused.message.contains("stopped already") && refused.help.is_some(), "{refused}");
    for way in WAYS {
        assert!(ProcessPause.apply(&by(way, &victim), &of(&victim), &host()).await.is_err());
    }
    assert!(is_paused(&victim));
}

#[tokio::test]
async fn a_pause_that_somebody_ends_did_not_last() {
    let victim = Victim::sleeping();
    let mut injection = apply(&by(Way::Signal, &victim)).await;
    eventually("it stops", || is_paused(&victim));
    victim.signal(Signal::CONT);
    eventually("it goes on", || !is_paused(&victim));
    let effect = injection.observe().await.expect("it lives");
    assert_eq!(effect.took, Some(false));
    assert!(effect.note.expect("it says who").starts_with("running: victim"));
}

#[tokio::test]
async fn what_is_held_is_not_freed_by_a_signal() {
    let victim = Victim::sleeping();
    let mut injection = apply(&by(Way::Hold, &victim)).await;
    victim.signal(Signal::CONT);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(injection.observe().await.expect("it lives").took, Some(true));
    injection.release(Duration::ZERO).await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn the_end_of_all_targets_is_the_end_of_the_fault() {
    for way in WAYS {
        let victim = Victim::sleeping();
        let mut injection = apply(&by(way, &victim)).await;
        let early = tokio::time::timeout(Duration::from_millis(50), injection.ended()).await;
        assert!(early.is_err(), "it lives");
        victim.signal(Signal::KILL);
        let why = tokio::time::timeout(PATIENCE, injection.ended()).await.expect("it was killed");
        assert!(why.contains(&format!("pid {}", victim.pid())), "{why}");
        injection.release(Duration::ZERO).await.expect("there is nothing left to let go");
    }
}

#[tokio::test]
async fn who_has_ended_since_is_no_target() {
    for way in WAYS {
        let mut victim = Victim::sleeping();
        let step = by(way, &victim);
        victim.end();
        let gone = ProcessPause.apply(&step, &params(json!({})), &host()).await.err().expect("it has ended");
        assert!(gone.message.contains("ended before") && gone.help.is_some(), "{gone}");
    }
}

/// As the run starts it: root, with what the fault names and no more.
fn with_few_rights(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+kill,+sys_ptrace,+dac_read_search", "--inh-caps=-all", "--no-new-privs"]);
    command.args(["sh", "-c", &format!("exec {program}")]);
    command
}

/// Somebody else's process, which holds a socket as its standard input; `None` where that cannot be arranged.
fn a_strangers(test: &str, socket: &TcpListener) -> Option<Victim> {
    let root = toprope_os::user::Identity::current().is_ok_and(|i| i.uid == 0);
    if !root || Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED {test}: it needs root and setpriv");
        return None;
    }
    let stdin: std::os::fd::OwnedFd = socket.try_clone().expect("a descriptor").into();
    let victim = Victim::run_with(
        Command::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "600"]),
        stdin.into(),
    );
    let is_sleep = || toprope_os::process::ProcessInfo::of(victim.pid()).is_ok_and(|p| p.name == "sleep");
    eventually("it has become somebody else's", is_sleep);
    Some(victim)
}

#[test]
fn few_rights_are_enough_and_a_killed_injector_lets_go() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let Some(victim) = a_strangers("few_rights_are_enough_and_a_killed_injector_lets_go", &socket) else { return };
    let port = socket.local_addr().expect("bound").port();
    drop(socket); // It is the victim's alone.
    let target = json!({"target": {"port": port}});
    let (injector, effect) = Injector::start("process-pause", &target, with_few_rights);
    assert_eq!(effect.took, Some(true), "{effect:?}");
    assert_eq!(states(&victim), [State::Traced], "held, not stopped by signal");
    injector.kill();
    eventually("the kernel lets it go", || !is_paused(&victim));
    let (injector, effect) = Injector::start("process-kill", &target, with_few_rights);
    assert_eq!(effect.took, Some(true), "{effect:?}");
    assert!(!victim.is_alive() && injector.release().success());
}
