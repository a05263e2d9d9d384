//! How each fault is driven in a sandbox, and how it is seen there from outside Toprope.

mod asked;
mod leak;
mod network;
mod processes;
mod resources;

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use leak::{LEAKS, Leak};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::sandbox::{Inside, WORK, XTASK, number_inside};
use super::snapshot::{Change, How};

/// By which means a fault is taken back when everything of ours is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mechanism {
    /// A table of nftables goes with the socket that made it.
    OwnerTable,
    /// BPF programs are detached with the descriptors of their links.
    BpfLink,
    /// A process runs again without its tracer.
    Ptrace,
    /// A file without a name goes with its descriptor.
    UnnamedFile,
    /// Memory goes with its process.
    Memory,
    /// Threads go with their process.
    Threads,
    /// A listening socket goes with its process.
    Listener,
    /// The journal says what was stopped by a signal.
    JournalSignal,
    /// The journal says what program undoes it.
    JournalProgram,
    /// The journal says what request undoes it.
    JournalRequest,
    /// The journal says what a person is to be asked for.
    JournalPerson,
    /// It happens once, and cannot be taken back.
    Irreversible,
}

impl Mechanism {
    /// Whether the kernel takes it back.
    pub(crate) fn is_the_kernels(self) -> bool {
        self <= Self::Listener
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::OwnerTable => "nftables table with an owner",
            Self::BpfLink => "BPF links",
            Self::Ptrace => "ptrace",
            Self::UnnamedFile => "file without a name",
            Self::Memory => "memory of a process",
            Self::Threads => "threads of a process",
            Self::Listener => "listener of a process",
            Self::JournalSignal => "journal: SIGCONT",
            Self::JournalProgram => "journal: a program",
            Self::JournalRequest => "journal: a request",
            Self::JournalPerson => "journal: a person",
            Self::Irreversible => "none: irreversible",
        }
    }
}

/// One way to drive a fault.
pub(crate) struct Scenario {
    /// The fault's kind.
    pub(crate) fault: &'static str,
    /// What tells it from the fault's other scenarios.
    pub(crate) variant: &'static str,
    /// Who takes it back.
    pub(crate) mechanism: Mechanism,
    /// Starts its targets.
    pub(crate) stage: fn(&Inside) -> Result<Stage, String>,
    /// What the fault declares that it leaves, beside what it undoes.
    pub(crate) leaves: fn(&Change) -> bool,
    /// Whether it works only where processes have the numbers that they have in the kernel's eyes.
    pub(crate) host_pids: bool,
    /// Why it cannot be driven on this machine.
    pub(crate) missing: fn() -> Option<String>,
}

impl Scenario {
    /// Its name: the fault, and what tells it from others.
    pub(crate) fn name(&self) -> String {
        if self.variant.is_empty() { self.fault.to_owned() } else { format!("{}/{}", self.fault, self.variant) }
    }
}

/// Nothing at all.
fn nothing(_: &Change) -> bool {
    false
}

fn never() -> Option<String> {
    None
}

/// A process that ended, or that is another one now, where that is what the fault does.
fn processes_may_end(change: &Change) -> bool {
    matches!(change.class.as_str(), "processes" | "cgroups") && change.how != How::Changed
}

/// Every scenario, in the order of the table of faults.
pub(crate) fn all() -> Vec<&'static Scenario> {
    let scenarios = [processes::SCENARIOS, resources::SCENARIOS, network::SCENARIOS, asked::SCENARIOS];
    let mut all: Vec<&Scenario> = scenarios.into_iter().flatten().collect();
    let kinds: Vec<&str> = toprope_faults::FAULTS.specs().iter().map(|spec| spec.spec.kind).collect();
    all.sort_by_key(|s| kinds.iter().position(|kind| *kind == s.fault));
    all
}

/// Faults of the table that have no scenario.
pub(crate) fn faults_without() -> Vec<&'static str> {
    let kinds = toprope_faults::FAULTS.specs().into_iter().map(|spec| spec.spec.kind);
    kinds.filter(|kind| all().iter().all(|scenario| scenario.fault != *kind)).collect()
}

/// Whether the fault is in force, as felt or seen from outside.
pub(crate) type Look = Box<dyn FnMut() -> bool>;

/// A scenario whose targets run.
pub(crate) struct Stage {
    /// The fault as an item of `method`; `{for}` stands for the time, where it has one.
    pub(crate) method: String,
    /// Whether it is in force.
    pub(crate) in_force: Look,
    /// Programs that start the run, before its own name.
    pub(crate) wrap: Vec<String>,
    /// Whether somebody answers the run's questions.
    pub(crate) person: bool,
    /// The targets.
    targets: Vec<Started>,
}

impl Stage {
    fn new(method: impl Into<String>, targets: Vec<Started>, in_force: impl FnMut() -> bool + 'static) -> Self {
        let in_force = Box::new(in_force);
        Self { method: method.into(), in_force, wrap: vec![], person: false, targets }
    }

    /// Reaps targets that have ended.
    pub(crate) fn reap(&mut self) {
        for target in &mut self.targets {
            // One that runs on is no matter.
            let _ = target.carrier.try_wait();
        }
    }

    /// The processes that only lead targets into another namespace: no part of the state.
    pub(crate) fn carriers(&self) -> Vec<u32> {
        self.targets
            .iter()
            .map(|target| target.carrier.id())
            .filter(|id| self.targets.iter().all(|t| t.pid != *id))
            .collect()
    }
}

/// A target inside, with its number there.
struct Started {
    carrier: Child,
    /// By the agent's numbers.
    pid: u32,
    /// By the numbers inside.
    inside: u32,
}

/// Starts a target, and waits until it executes this program.
fn target(inside: &Inside, args: &[&str]) -> Result<Started, String> {
    start(inside, inside.command(XTASK).args(["proof", "target"]).args(args))
}

/// Starts a service that does not share the fate of the pid namespace inside: a peer, on another host so to speak.
fn peer(args: &[&str]) -> Result<Started, String> {
    let mut command = Command::new(XTASK);
    command.args(["proof", "target"]).args(args).current_dir(WORK).stdin(Stdio::null()).stdout(Stdio::null());
    let carrier = command.spawn().map_err(|e| format!("a target cannot be started: {e}"))?;
    let pid = carrier.id();
    Ok(Started { carrier, pid, inside: pid })
}

fn start(inside: &Inside, command: &mut Command) -> Result<Started, String> {
    let carrier = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("a target cannot be started: {e}"))?;
    let pid = inside.carried_by(carrier.id()).ok_or("a target does not start")?;
    let number = number_inside(pid).map_err(|e| e.to_string())?;
    Ok(Started { carrier, pid, inside: number })
}

/// Waits until something holds that must, before a round begins.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        if Instant::now() > until {
            return Err(format!("{what}: not within 10 s"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// What a client printed last.
struct Said {
    from: std::process::ChildStdout,
    last: Option<u8>,
}

impl Said {
    fn by(carrier: &mut Child) -> Result<Self, String> {
        let from = carrier.stdout.take().ok_or("a client without an output")?;
        let flags = fcntl_getfl(from.as_fd()).map_err(|e| e.to_string())?;
        fcntl_setfl(from.as_fd(), flags | OFlags::NONBLOCK).map_err(|e| e.to_string())?;
        Ok(Self { from, last: None })
    }

    fn last(&mut self) -> Option<u8> {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = self.from.read(&mut bytes) {
            self.last = bytes[..read].last().copied();
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_table_has_a_scenario_of_its_own_name() {
        assert_eq!(faults_without(), Vec::<&str>::new(), "give it a file under prove_undo/scenario, or a line in one");
        let mut names: Vec<String> = all().iter().map(|scenario| scenario.name()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "two scenarios of one name");
    }

    #[test]
    fn who_undoes_it_is_what_the_fault_says() {
        use toprope_model::kind::UndoKind;
        for scenario in all() {
            let spec = toprope_faults::FAULTS.get(scenario.fault).expect("it is in the table").spec();
            let kernel = scenario.mechanism.is_the_kernels();
            match spec.undo {
                UndoKind::Irreversible => {
                    assert_eq!(scenario.mechanism, Mechanism::Irreversible, "{}", scenario.name())
                }
                UndoKind::Journalled => assert!(!kernel, "{}", scenario.name()),
                // A fault may have to fall back to a signal.
                UndoKind::KernelOwned => assert!(kernel || scenario.mechanism == Mechanism::JournalSignal),
            }
        }
    }
}
