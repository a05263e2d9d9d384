//! What several modules' tests share.

pub(crate) mod injector;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use toprope_engine::fault::{Fault, Injection, Params};
use toprope_engine::host::Host;
use toprope_model::Node;
use toprope_model::step::{Effect, Plan, Step};
use toprope_os::process::{Pidfd, ProcessId, Signal};

/// How long a test waits for what must happen: far longer than a stall of the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A host without topology, on which Toprope has no processes but the test itself.
pub(crate) fn host() -> Host {
    Host {
        services: vec![],
        own: vec![],
        invoking_user: None,
        directory: PathBuf::from("/"),
        person: None,
        pass_throughs: vec![],
        pass_through: None,
    }
}

/// Parameters as they come from a manifest.
pub(crate) fn params(json: serde_json::Value) -> Params {
    Params { node: Node::from_json(&json), seed: 7, duration: Duration::from_secs(30) }
}

/// Plans, and gives the one step.
pub(crate) async fn planned(fault: &dyn Fault, params: &Params, host: &Host) -> (Plan, Step) {
    let plan = fault.plan(params, host).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan.steps.len(), 1, "{plan:?}");
    // A step is read back from the journal, in another process.
    let json = serde_json::to_string(&plan.steps[0]).expect("plain data");
    let step = serde_json::from_str(&json).expect("what was written");
    (plan, step)
}

/// Waits until something holds, at most [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Observes until the effect is known, as the injector does.
pub(crate) async fn known_effect(injection: &mut dyn Injection) -> Effect {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let effect = injection.observe().await.unwrap_or_else(|e| panic!("{e}"));
        if effect.took.is_some() {
            return effect;
        }
        assert!(Instant::now() < deadline, "the effect is never known: {effect:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A child process that a test may do anything to; ended with all that it started when dropped.
pub(crate) struct Victim(Child);

impl Victim {
    /// One that sleeps.
    pub(crate) fn sleeping() -> Self {
        Self::run(Command::new("sleep").arg("600"))
    }

    /// A shell script, which must print `ready` once it is.
    pub(crate) fn script(text: &str) -> Self {
        use std::io::{BufRead, BufReader};
        let mut victim = Self::run(Command::new("sh").args(["-c", text]).stdout(Stdio::piped()));
        let stdout = victim.0.stdout.take().expect("it is piped");
        let first = BufReader::new(stdout).lines().next().expect("it prints something").expect("it is text");
        assert_eq!(first, "ready");
        victim
    }

    pub(crate) fn run(command: &mut Command) -> Self {
        Self::run_with(command, Stdio::null())
    }

    /// As [`Victim::run`], with something as its standard input.
    pub(crate) fn run_with(command: &mut Command, stdin: Stdio) -> Self {
        Self(command.stdin(stdin).stderr(Stdio::null()).spawn().expect("it is installed"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn id(&self) -> ProcessId {
        ProcessId::of(self.pid()).expect("an unreaped child is in /proc")
    }

    pub(crate) fn is_alive(&self) -> bool {
        ProcessId::of(self.pid()).is_ok_and(|id| id.is_alive())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        Pidfd::open(&self.id()).expect("it runs").signal(signal).expect("our own child");
    }

    /// Ends it and takes it out of `/proc`.
    pub(crate) fn end(&mut self) {
        drop(self.0.kill());
        self.0.wait().expect("our own child");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if let (Ok(None), Ok(children)) = (self.0.try_wait(), toprope_os::process::descendants(self.0.id())) {
            for pidfd in children.iter().filter_map(|id| Pidfd::open(id).ok()) {
                drop(pidfd.signal(Signal::KILL));
            }
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
