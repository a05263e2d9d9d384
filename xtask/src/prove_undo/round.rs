//! One round: a run is started and struck, and what is left of it is looked for.

mod job;
mod settle;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::job::{Job, read_back};
use self::settle::{Clean, Settled};
use super::dice::Dice;
use super::moment::Moment;
use super::sandbox::{self, HOME, Inside};
use super::scenario::{LEAKS, Leak, Mechanism, Scenario, Stage};
use super::snapshot::{Change, Place, Snapshot};
use super::victims::{Role, Victims, ours};

/// What is to be played.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Play {
    /// A scenario's name, or a leak's.
    pub(crate) scenario: String,
    /// Whether it is a leak's.
    pub(crate) leak: bool,
    /// All of the round's chance.
    pub(crate) seed: u64,
}

/// Who took the fault back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Undoer {
    /// It was not in force when the blow came.
    Nobody,
    /// The kernel: the injector was dead.
    Kernel,
    /// The injector, because its run was gone or told it to.
    Injector,
    /// The guard or the run, from the journal: the injector was dead.
    Guard,
    /// A lease of the kernel's, or the guard: the injector hung.
    Lease,
    /// `toprope undo`: everybody was dead.
    Sweep,
}

impl std::fmt::Display for Undoer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Kernel => "the kernel",
            Self::Injector => "the injector",
            Self::Guard => "guard or run",
            Self::Lease => "lease or guard, after SIGSTOP",
            Self::Sweep => "`toprope undo`",
        })
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What was played.
    pub(crate) scenario: String,
    /// By which seed.
    pub(crate) seed: u64,
    /// Who was to be struck.
    pub(crate) victims: Victims,
    /// When.
    pub(crate) moment: Moment,
    /// Who was there to be hit.
    pub(crate) hit: Vec<Role>,
    /// Who took it back.
    pub(crate) undoer: Undoer,
    /// From the blow (of the sweep: from its start) until the fault was not felt any more.
    pub(crate) clean_ms: Option<f64>,
    /// What is left or went wrong, in words; empty is what is wanted.
    pub(crate) leftovers: Vec<String>,
    /// Which classes differ.
    pub(crate) classes: Vec<String>,
}

/// Plays a round in this sandbox.
///
/// # Errors
/// Why there was no round: the sandbox or the harness failed, not Toprope.
pub(crate) fn play(play: &Play) -> Result<Outcome, String> {
    let mut dice = Dice::of(play.seed);
    let victims = Victims::of(play.seed);
    let leak = play.leak.then(|| LEAKS.iter().find(|leak| leak.full_name() == play.scenario));
    let scenarios = super::scenario::all();
    let scenario = match &leak {
        None => scenarios.iter().find(|s| s.name() == play.scenario).copied(),
        Some(_) => Some(&Leak::SCENARIO),
    };
    let scenario = scenario.ok_or_else(|| format!("there is no scenario `{}`", play.scenario))?;
    let moment = if play.leak { Moment::InForce } else { Moment::of(victims, &mut dice) };
    let victims = match victims {
        // There is none of its own to die.
        Victims::PidNamespace if scenario.host_pids => Victims::ControlGroup,
        victims => victims,
    };
    let mut inside = Inside::start(scenario.host_pids).map_err(|e| e.to_string())?;
    let stage = match leak {
        None => (scenario.stage)(&inside)?,
        Some(leak) => leak.ok_or_else(|| format!("there is no leak `{}`", play.scenario))?.stage(&inside)?,
    };
    let patience = Duration::from_millis(if play.leak { 200 } else { 3_000 });
    let mut round = Round {
        patience,
        scenario,
        victims,
        moment,
        place: sandbox::place(),
        stage,
        dice,
        left: vec![],
        classes: vec![],
    };
    let outcome = round.run(&mut inside)?;
    if play.leak && !std::path::Path::new("/run/proof/out/leaked").exists() && outcome.leftovers.is_empty() {
        let why = std::fs::read_to_string("/run/proof/out/leaked.error").unwrap_or_default();
        return Err(format!("the leak did not leak: {}", why.trim()));
    }
    Ok(Outcome { scenario: play.scenario.clone(), seed: play.seed, ..outcome })
}

struct Round<'s> {
    scenario: &'s Scenario,
    victims: Victims,
    moment: Moment,
    place: Place,
    stage: Stage,
    dice: Dice,
    left: Vec<String>,
    classes: Vec<String>,
    /// How long the kernel may take to free what is gone; a leak is not waited for.
    patience: Duration,
}

impl Round<'_> {
    fn run(&mut self, inside: &mut Inside) -> Result<Outcome, String> {
        let before = self.look(inside)?;
        // Whoever is not there yet cannot be hit, and then the run goes on to its own end.
        let may_miss = self.moment == Moment::Before && !self.victims.include_the_run();
        let short = self.victims.let_it_end() || self.moment == Moment::Undoing || may_miss;
        let manifest = job::manifest("run", &self.stage.method, if short { "800ms" } else { "60s" })?;
        let mut job = Job::start(inside, &self.stage, &["run", "--plain", &manifest], "run")?;
        self.moment.wait(&mut self.dice, || job.poll());
        // A run that is still being started cannot be hit, and would come after the blow.
        while self.victims.include_the_run() && !job.poll() && !ours().iter().any(|(role, _)| *role == Role::Run) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if job.poll() && !has_injected("run") {
            return Err(format!("the run never came to its fault, and so proves nothing: it {}", job.how_it_ended()));
        }
        // Looked at before, so that it is known whether there was anything to take back.
        let was_in_force = (self.stage.in_force)();
        let struck = Instant::now();
        let hit = self.victims.strike(inside, &mut self.dice)?;
        let blow = Blow { struck, was_in_force, all_dead: self.victims.are_all() };
        let mut settled = settle::settle(&blow, &mut self.stage, &mut job);
        let undoer = self.undoer(&hit, was_in_force || settled.clean.is_some());
        self.judge(&settled, &blow);
        if self.victims == Victims::PidNamespace {
            // What is gone with it is no leftover; a new one is there for the sweep.
            *inside = Inside::start(false).map_err(|e| e.to_string())?;
        }
        if self.victims == Victims::Forgotten {
            self.forget(&manifest)?;
        }
        if self.victims.are_all() || self.scenario.mechanism == Mechanism::JournalPerson {
            self.sweep(inside, &mut settled)?;
        }
        self.compare(&before, inside)?;
        self.tidy_journal(inside)?;
        if self.left.is_empty() && self.dice.once_in(8) && self.victims != Victims::PidNamespace {
            self.again(&before, inside)?;
        }
        Ok(Outcome {
            scenario: String::new(),
            seed: 0,
            victims: self.victims,
            moment: self.moment,
            hit: hit.iter().map(|(role, _)| *role).collect(),
            undoer,
            // Where it was left to come to its own end, the time says nothing.
            clean_ms: settled.clean.filter(|_| !self.victims.let_it_end()).map(|Clean(time)| time.as_secs_f64() * 1e3),
            leftovers: std::mem::take(&mut self.left),
            classes: std::mem::take(&mut self.classes),
        })
    }

    fn look(&mut self, inside: &Inside) -> Result<Snapshot, String> {
        self.stage.reap();
        let mut place = Place { inside: inside.init(), ..self.place.clone() };
        place.own.extend(inside.makers());
        place.own.extend(self.stage.carriers());
        Snapshot::take(&place, &[])
    }

    fn undoer(&self, hit: &[(Role, toprope_os::process::ProcessId)], was_in_force: bool) -> Undoer {
        let is_hit = |role| hit.iter().any(|(its, _)| *its == role);
        let kernels = self.scenario.mechanism.is_the_kernels();
        match self.victims {
            _ if !was_in_force => Undoer::Nobody,
            Victims::Frozen if is_hit(Role::Injector) => Undoer::Lease,
            _ if !is_hit(Role::Injector) || self.victims == Victims::Interrupted => Undoer::Injector,
            _ if kernels => Undoer::Kernel,
            _ if self.victims.are_all() => Undoer::Sweep,
            _ => Undoer::Guard,
        }
    }

    /// What may not be, whatever is left at the end.
    fn judge(&mut self, settled: &Settled, blow: &Blow) {
        if !settled.ended {
            let who: Vec<String> = ours().iter().map(|(role, id)| format!("{role:?} {id}")).collect();
            self.left.push(format!("processes of Toprope do not end: {}", who.join(", ")));
        }
        // A person can be asked again by `toprope undo` alone, where no run is left to ask.
        let may_be_swept = blow.all_dead && !self.scenario.mechanism.is_the_kernels();
        if settled.in_force && !may_be_swept && self.scenario.mechanism != Mechanism::JournalPerson {
            self.left.push("the fault is still felt, and whoever was to take it back has ended".into());
        }
    }

    fn forget(&self, manifest: &str) -> Result<(), String> {
        let cannot = |e: std::io::Error| format!("the run cannot be forgotten: {e}");
        std::fs::remove_file(manifest).map_err(cannot)?;
        match std::fs::remove_dir_all(format!("{HOME}/runs")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(cannot(e)),
            _ => Ok(()),
        }
    }

    /// `toprope undo`, once; or once killed and once not.
    fn sweep(&mut self, inside: &mut Inside, settled: &mut Settled) -> Result<(), String> {
        if self.victims == Victims::Sweep {
            let mut first = Job::start(inside, &self.stage, &["undo"], "undo-killed")?;
            let until = Instant::now() + self.dice.below(Duration::from_millis(250));
            while Instant::now() < until {
                first.poll();
                std::thread::sleep(Duration::from_micros(500));
            }
            self.victims.strike(inside, &mut self.dice)?;
            first.end(Duration::from_secs(10));
        }
        let mut job = Job::start(inside, &self.stage, &["undo"], "undo")?;
        let started = Instant::now();
        while !job.poll() && started.elapsed() < Duration::from_secs(30) {
            if settled.in_force && !(self.stage.in_force)() {
                settled.in_force = false;
                settled.clean = Some(Clean(started.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(wrong) = job.unless_ended_with(0) {
            self.left.push(format!("`toprope undo` {wrong}"));
        }
        if settle::is_surely_felt(&mut self.stage) {
            self.left.push("the fault is still felt after `toprope undo`".into());
        }
        Ok(())
    }

    /// Compares until nothing differs, for some time: what the kernel takes away in the background counts once it is gone.
    fn compare(&mut self, before: &Snapshot, inside: &mut Inside) -> Result<(), String> {
        let until = Instant::now() + self.patience;
        let mut changes;
        loop {
            changes = before.changes(&self.look(inside)?);
            changes.retain(|change| !self.is_declared(change));
            if changes.is_empty() || Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        for change in &changes {
            self.left.push(change.to_string());
            self.classes.push(change.class.clone());
        }
        let mut residue = Job::start(inside, &self.stage, &["residue"], "residue")?;
        residue.end(Duration::from_secs(20));
        let wrong = residue.unless_ended_with(0);
        if changes.is_empty()
            && self.left.is_empty()
            && let Some(wrong) = wrong
        {
            self.left.push(format!("nothing is left, and yet `toprope residue` {wrong}"));
        }
        Ok(())
    }

    /// A record whose run is dead is kept until the next start has it in that run's log, and then no longer.
    fn tidy_journal(&mut self, inside: &mut Inside) -> Result<(), String> {
        let records = || {
            let entries = std::fs::read_dir(format!("{HOME}/journal")).into_iter().flatten().flatten();
            let mut paths = entries.map(|entry| entry.path());
            paths.find(|path| path.extension().is_some_and(|e| e == "jsonl"))
        };
        if records().is_none() {
            return Ok(());
        }
        let mut job = Job::start(inside, &self.stage, &["undo"], "undo-later")?;
        job.end(Duration::from_secs(30));
        if let Some(wrong) = job.unless_ended_with(0) {
            self.left.push(format!("a later `toprope undo` {wrong}"));
        }
        if let Some(record) = records() {
            let text = std::fs::read_to_string(&record).unwrap_or_default();
            self.left.push(format!("the journal keeps {} for ever: {text}", record.display()));
            self.classes.push("journal".into());
        }
        Ok(())
    }

    fn is_declared(&self, change: &Change) -> bool {
        use super::snapshot::How;
        let gone_with_the_namespace = self.victims == Victims::PidNamespace
            && change.how == How::Gone
            && matches!(change.class.as_str(), "processes" | "sockets" | "cgroups" | "mounts");
        gone_with_the_namespace || (self.scenario.leaves)(change)
    }

    /// The same experiment once more, to its own end: nothing of the first is in its way, and nothing is left of it.
    fn again(&mut self, before: &Snapshot, inside: &mut Inside) -> Result<(), String> {
        if self.scenario.mechanism == Mechanism::Irreversible {
            return Ok(()); // Its target is gone.
        }
        let manifest = job::manifest("again", &self.stage.method, "300ms")?;
        let mut job = Job::start(inside, &self.stage, &["run", "--plain", &manifest], "again")?;
        job.end(Duration::from_secs(40));
        if !has_injected("again") {
            self.left.push(format!("the same experiment does not run again: {}", job.how_it_ended()));
        }
        self.compare(before, inside)
    }
}

/// Whether a run came so far that it injected, by what it printed.
fn has_injected(name: &str) -> bool {
    let said = read_back(name);
    said.contains("is in force") || said.contains("happened")
}

/// The blow.
struct Blow {
    struck: Instant,
    was_in_force: bool,
    all_dead: bool,
}
