//! Proves by experiment that nothing of a fault is left, whoever is killed and whenever.
//!
//! A *round* is played in a [`sandbox`] of namespaces: the [`snapshot`] of all classes of state that chaos can touch, a
//! run of the real `toprope` with one fault ([`scenario`]), a blow at [`moment`] against [`victims`], and another
//! snapshot once those who survived have ended (and, where nobody did, after `toprope undo`). What differs is a leftover.

mod dice;
mod ledger;
mod members;
mod moment;
mod round;
mod sandbox;
mod scenario;
mod snapshot;
mod table;
mod target;
mod victims;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Subcommand;

use self::dice::Dice;
use self::ledger::{Entry, Ledger};
use self::round::{Outcome, Play};
use self::scenario::{LEAKS, Scenario};
use self::snapshot::Snapshot;
use self::victims::Victims;
use crate::failure::{Failure, OnFile};
use crate::workspace::{Workspace, output};

/// How long a round may take. The longest waits in it end long before.
const ROUND: Duration = Duration::from_secs(240);

/// How often a round is tried that could not be played.
const TRIES: u32 = 4;

/// What to play.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many rounds of each scenario there are to be, with those that are resumed
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Only this fault, or this scenario of it, such as `network-latency/by-bpf`; can be given several times
    #[arg(long, value_name = "KIND")]
    fault: Vec<String>,
    /// Start no more rounds after so many seconds
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Count the rounds of this commit in these files too; they were written by former calls
    #[arg(long, value_name = "FILE")]
    resume: Vec<PathBuf>,
    /// Where rounds are written [default: target/prove-undo/rounds.jsonl]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Play the round of this seed alone, again
    #[arg(long)]
    seed: Option<u64>,
    /// How many rounds to play at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// A built `toprope`, instead of building one
    #[arg(long, value_name = "FILE")]
    toprope: Option<PathBuf>,
    /// A short sample: every kind of death once, on faults that stand for their mechanism
    #[arg(long)]
    sample: bool,
    /// Play a fault that leaks, such as `qdiscs/tbf`: succeeds if it is caught; `list` names them
    #[arg(long, value_name = "CLASS/NAME")]
    leak: Option<String>,
    /// Print what a snapshot sees here of these classes, and play nothing
    #[arg(long, value_name = "CLASS")]
    look: Vec<String>,
    /// Write the page with all results of this commit, such as `docs/proofs/undo.md`
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Processes of a round: started by the task, and by nobody else.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// The sandbox around a round
    Wall {
        /// Its name in control groups
        group: String,
        /// The binary under test
        toprope: PathBuf,
        /// Makes no pid namespace
        #[arg(long)]
        host_pids: bool,
        /// What to play, as JSON
        play: String,
    },
    /// Who plays a round
    Agent {
        /// What to play, as JSON
        play: String,
    },
    /// Process 1 where Toprope and its targets run
    Init,
    /// What a fault is injected into
    #[command(subcommand)]
    Target(target::Target),
}

/// What a wall prints at the end.
type Answer = Result<Outcome, String>;

/// Is one of a round's processes.
pub(crate) fn part(part: &Part) -> ExitCode {
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        eprintln!("xtask proof: {what}: {e}");
        ExitCode::FAILURE
    };
    match part {
        Part::Wall { group, toprope, host_pids, play } => {
            let agent = ["proof", "agent", play.as_str()].map(str::to_owned);
            sandbox::wall(group, toprope, &agent, *host_pids).unwrap_or_else(|e| failed("no sandbox", &e))
        }
        Part::Agent { play } => {
            if let Err(e) = sandbox::enter_as_agent() {
                return failed("no sandbox", &e);
            }
            let answer: Answer =
                serde_json::from_str(play).map_err(|e| e.to_string()).and_then(|play| round::play(&play));
            keep_what_was_said(&answer);
            let text = serde_json::to_string(&answer).unwrap_or_default();
            println!("{text}");
            ExitCode::SUCCESS
        }
        Part::Init => sandbox::init(),
        Part::Target(target) => target::be(target).unwrap_or_else(|e| failed("a target ended", &e)),
    }
}

/// What Toprope printed and journalled in a round that failed goes to standard error, which outlives the sandbox.
fn keep_what_was_said(answer: &Answer) {
    if answer.as_ref().is_ok_and(|outcome| outcome.leftovers.is_empty()) {
        return;
    }
    let mut files = Vec::new();
    collect(Path::new("/run/proof/out"), &mut files);
    collect(Path::new(sandbox::HOME), &mut files);
    for file in files {
        let text = std::fs::read(&file).unwrap_or_default();
        eprintln!("--- {}\n{}", file.display(), String::from_utf8_lossy(&text));
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() { collect(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

/// Plays rounds, and tells what was left.
pub(crate) fn prove(workspace: &Workspace, args: &Args) -> Result<(), Failure> {
    if !args.look.is_empty() {
        let place = snapshot::Place { all_processes: "/proc".into(), ..snapshot::Place::default() };
        let seen = Snapshot::take(&place, &args.look).map_err(Failure::Found)?;
        println!("{}", serde_json::to_string_pretty(&seen).unwrap_or_default());
        return Ok(());
    }
    if args.leak.as_deref() == Some("list") {
        LEAKS.iter().for_each(|leak| println!("{} {}", leak.full_name(), leak.needs));
        return Ok(());
    }
    let missing = scenario::faults_without();
    if !missing.is_empty() {
        return Err(Failure::Found(format!("no scenario for {}: nothing proves their undo", missing.join(", "))));
    }
    let toprope = args.toprope.clone().map_or_else(|| workspace.build_toprope("dev"), Ok)?;
    let toprope = std::path::absolute(&toprope).on("find", &toprope)?;
    let directory = workspace.target().join("prove-undo");
    let stage = Stage { toprope, logs: directory.join("failed"), number: AtomicUsize::new(0) };
    if let Some(leak) = &args.leak {
        return catch(&stage, leak, args.seed.unwrap_or(0));
    }
    let scenarios = chosen(&args.fault)?;
    let commit = output(workspace.program("git").args(["describe", "--always", "--dirty", "--exclude", "*"]))?;
    let date = output(workspace.program("date").args(["-u", "+%F"]))?;
    let label = (commit.trim().to_owned(), date.trim().to_owned());
    let out = args.out.clone().unwrap_or_else(|| directory.join("rounds.jsonl"));
    let mut ledger = Ledger::open(&out, &args.resume)?;
    let plays = match (args.seed, args.sample) {
        (Some(seed), _) => scenarios.iter().map(|s| Play { scenario: s.name(), leak: false, seed }).collect(),
        (None, true) => sample(),
        (None, false) => still_to_play(&scenarios, args.rounds, &ledger, &label.0),
    };
    eprintln!("{} rounds to play; results go to {}", plays.len(), out.display());
    let begun = ledger.entries.len();
    let until = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let ledger = Mutex::new(&mut ledger);
    let failed = play_all(&stage, plays, args.jobs.max(1), until, &label, &ledger)?;
    let ledger = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A proof is of one commit. A sample says what it saw and no more.
    let counted: Vec<Entry> = match args.sample || args.seed.is_some() {
        true => ledger.entries.split_off(begun),
        false => ledger.entries.iter().filter(|entry| entry.commit == label.0).cloned().collect(),
    };
    println!("{}", table::tables(&counted));
    if let Some(page) = &args.write {
        let circumstances = crate::bench::machine()?;
        crate::workspace::write(&workspace.path(&page.to_string_lossy()), table::page(&counted, &circumstances))?;
    }
    let left = counted.iter().filter(|entry| !entry.outcome.leftovers.is_empty()).count();
    match (left, failed) {
        (0, 0) => Ok(()),
        (0, failed) => Err(Failure::Found(format!("{failed} rounds could not be played"))),
        (left, _) => Err(Failure::Found(format!("{left} rounds of {} left something", counted.len()))),
    }
}

/// The scenarios that are meant and that this machine can play.
fn chosen(wanted: &[String]) -> Result<Vec<&'static Scenario>, Failure> {
    let all = scenario::all();
    let is_wanted = |s: &&Scenario| wanted.is_empty() || wanted.iter().any(|w| *w == s.fault || *w == s.name());
    let meant: Vec<&Scenario> = all.iter().copied().filter(is_wanted).collect();
    if meant.is_empty() {
        let names: Vec<String> = all.iter().map(|s| s.name()).collect();
        return Err(Failure::Found(format!("no such fault; there are {}", names.join(", "))));
    }
    let here = |s: &&Scenario| match (s.missing)() {
        None => true,
        Some(why) => {
            eprintln!("SKIPPED {}: {why}", s.name());
            false
        }
    };
    Ok(meant.into_iter().filter(here).collect())
}

/// Seeds of chance, of which those of one scenario go through all kinds of victims in turn.
fn seeds(number: usize) -> u64 {
    let kinds = Victims::ALL.len() as u64;
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let mut dice = Dice::of((time.tv_nsec.unsigned_abs() << 20) ^ time.tv_sec.unsigned_abs() ^ number as u64);
    let seed = dice.seed();
    seed - seed % kinds + number as u64 % kinds
}

/// Round by round through the scenarios, so that whoever stops early has some of each.
fn still_to_play(scenarios: &[&Scenario], rounds: usize, ledger: &Ledger, commit: &str) -> Vec<Play> {
    let mut plays = Vec::new();
    for number in 0..rounds {
        for scenario in scenarios {
            if number >= ledger.rounds(&scenario.name(), commit) {
                plays.push(Play { scenario: scenario.name(), leak: false, seed: seeds(number) });
            }
        }
    }
    plays
}

/// Every kind of victims once, over faults of several mechanisms.
fn sample() -> Vec<Play> {
    let names =
        ["network-partition/reject", "process-pause", "command", "network-latency/by-bpf", "process-pause/by-signal"];
    let can = |name: &&&str| scenario::all().iter().any(|s| s.name() == **name && (s.missing)().is_none());
    let names: Vec<&str> = names.iter().filter(can).copied().collect();
    (0..Victims::ALL.len())
        .map(|number| Play { scenario: names[number % names.len()].to_owned(), leak: false, seed: seeds(number) })
        .collect()
}

/// Plays a leak: the harness must see it, and must say so of the right class.
fn catch(stage: &Stage, leak: &str, seed: u64) -> Result<(), Failure> {
    let class = leak.split('/').next().unwrap_or_default();
    let outcome = stage.play(&Play { scenario: leak.to_owned(), leak: true, seed })?;
    outcome.leftovers.iter().for_each(|left| println!("{}", left.lines().next().unwrap_or_default()));
    if outcome.classes.iter().any(|found| found == class) {
        return Ok(());
    }
    Err(Failure::Found(format!("the leak {leak} was not seen: the silence of the harness would mean nothing")))
}

/// Plays from a list on several threads; returns how many rounds could not be played.
fn play_all(
    stage: &Stage,
    plays: Vec<Play>,
    jobs: usize,
    until: Option<Instant>,
    (commit, date): &(String, String),
    ledger: &Mutex<&mut Ledger>,
) -> Result<usize, Failure> {
    let total = plays.len();
    let plays = Mutex::new(plays.into_iter().enumerate());
    let failed = AtomicUsize::new(0);
    let work = || -> Result<(), Failure> {
        loop {
            if until.is_some_and(|until| Instant::now() > until) {
                return Ok(());
            }
            let next = plays.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, play)) = next else { return Ok(()) };
            let name = format!("[{}/{total}] {} --seed {}", number + 1, play.scenario, play.seed);
            match stage.play_until_played(&play) {
                Ok(outcome) => {
                    tell(&name, &outcome);
                    let entry = Entry { commit: commit.clone(), date: date.clone(), outcome };
                    ledger.lock().unwrap_or_else(PoisonError::into_inner).add(entry)?;
                }
                Err(failure) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    eprintln!("{name}: could not be played: {failure}");
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(failed.into_inner())
}

fn tell(name: &str, outcome: &Outcome) {
    let time =
        outcome.clean_ms.map_or_else(String::new, |ms| format!(", clean after {ms:.1} ms by {}", outcome.undoer));
    let hit: Vec<String> = outcome.hit.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    let hit = if hit.is_empty() { "nobody was there".to_owned() } else { hit.join(", ") };
    eprintln!("{name}: {} {} ({hit}){time}", outcome.victims, outcome.moment);
    for left in &outcome.leftovers {
        eprintln!("    LEFT {left}");
    }
}

/// Where rounds are played.
struct Stage {
    toprope: PathBuf,
    /// Where logs of rounds that failed are kept.
    logs: PathBuf,
    number: AtomicUsize,
}

impl Stage {
    fn play(&self, play: &Play) -> Result<Outcome, Failure> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let group = format!("toprope-proof-{}-{number}", std::process::id());
        let answer = self.wall(&group, play);
        sandbox::remove_groups(&group);
        answer
    }

    /// A target in a crash loop may just not be there when it is looked for, and then there was no round.
    fn play_until_played(&self, play: &Play) -> Result<Outcome, Failure> {
        let mut tries = 1;
        loop {
            match self.play(play) {
                Err(_) if tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn wall(&self, group: &str, play: &Play) -> Result<Outcome, Failure> {
        std::fs::create_dir_all(&self.logs).on("create", &self.logs)?;
        let log = self.logs.join(format!("{}-{}.log", play.scenario.replace('/', "-"), play.seed));
        let told = std::fs::File::create(&log).on("write", &log)?;
        let text = serde_json::to_string(play).map_err(|e| Failure::Found(e.to_string()))?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["proof", "wall", group]).arg(&self.toprope).arg(&text);
        if scenario::all().iter().any(|s| s.name() == play.scenario && s.host_pids) {
            command.arg("--host-pids");
        }
        let answers = self.logs.join(format!("{group}.json"));
        let out = std::fs::File::create(&answers).on("write", &answers)?;
        command.stdin(Stdio::null()).stdout(out).stderr(told);
        let child = command.spawn();
        let mut child = child.map_err(|error| Failure::Start { command: "xtask proof wall".into(), error })?;
        let until = Instant::now() + ROUND;
        while child.try_wait().on("wait for", "a sandbox")?.is_none() {
            if Instant::now() > until {
                // With it everything in it ends.
                child.kill().and_then(|()| child.wait()).on("end", "a sandbox")?;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = crate::workspace::read(&answers)?;
        std::fs::remove_file(&answers).on("remove", &answers)?;
        let why = || format!("no answer within {ROUND:?}; see {}", log.display());
        let answer: Answer = serde_json::from_str(said.trim()).unwrap_or_else(|_| Err(why()));
        let outcome = answer.map_err(Failure::Found)?;
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).on("write", &log)?;
        if outcome.leftovers.is_empty() {
            std::fs::remove_file(&log).on("remove", &log)?;
        } else {
            writeln!(file, "--- outcome\n{outcome:#?}").on("write", &log)?;
        }
        Ok(outcome)
    }
}
