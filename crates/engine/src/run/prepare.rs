//! Before a run: its id, its directory, what earlier runs left behind.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use jiff::ToSpan;
use jiff::civil::DateTime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use toprope_model::event::Event;
use toprope_os::process::ProcessId;

use super::{RunError, Setup};
use crate::host::{Host, ServiceFacts};
use crate::journal::{Journal, Standing};
use crate::log::{FILE, LogWriter};
use crate::pass_through::Opened;
use crate::state::State;

/// The name of the generator that seeds go into, as reports print it.
pub(super) const GENERATOR: &str = "ChaCha8";

/// How a run's id begins.
const ID_TIME: &str = "%Y%m%d-%H%M%S";

/// While a run is alive, a file of this name in its directory holds its process.
pub const RUNNING: &str = "running";

/// A new run's id: its time, and something that no other run of this second has. Ids are in the order in which runs
/// began: where the newest has the same second, or a later one because the clock was set back, it is the second after.
pub(super) fn new_run_id(newest: Option<&str>) -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let newest = newest.and_then(|id| DateTime::strptime(ID_TIME, id.get(..15)?).ok());
    let time = newest.and_then(|time| time.checked_add(1.second()).ok()).map_or(now, |after| now.max(after));
    let random: u16 = rand::rng().random();
    format!("{}-{random:04x}", time.strftime(ID_TIME))
}

/// The seed of a run: as asked for, as the manifest says, or drawn. Below 2^53, so that it survives JSON everywhere.
pub(super) fn seed(setup: &Setup) -> u64 {
    setup.seed.or(setup.experiment.spec.seed).unwrap_or_else(|| rand::rng().random::<u64>() >> 11)
}

/// The seed of one injection, from the run's.
pub(super) fn injection_seed(seed: u64, number: u32) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(number) + 1);
    rng.random()
}

/// The host as faults see it, with the pass-throughs that stand.
pub(crate) fn host(setup: &Setup, pass_throughs: Vec<Opened>) -> Host {
    let services = setup.topology.iter().flat_map(|t| &t.spec.services);
    let services = services.map(|(name, service)| ServiceFacts {
        name: name.clone(),
        process: service.process.clone(),
        command_line: service.command_line.as_ref().map(ToString::to_string),
        unit: service.unit.clone(),
        address: service.address.as_ref().map(ToString::to_string),
    });
    Host {
        services: services.collect(),
        own: vec![i32::try_from(std::process::id()).unwrap_or_default()],
        invoking_user: setup.invoking_user,
        directory: setup.directory.clone(),
        person: None,
        pass_throughs,
        pass_through: None,
    }
}

/// Makes a run's directory and marks it as running.
pub(super) fn begin(state: &State, run: &str) -> Result<LogWriter, RunError> {
    let directory = state.run(run);
    let unusable = |error| crate::state::StateError::Unusable { path: directory.clone(), error };
    std::fs::create_dir(&directory).map_err(unusable)?;
    let id = ProcessId::current().ok().and_then(|id| serde_json::to_string(&id).ok()).unwrap_or_default();
    let marked = File::create(directory.join(RUNNING)).and_then(|mut f| f.write_all(id.as_bytes()));
    let log = marked.map_err(|e| unusable(e).into()).and_then(|()| Ok(LogWriter::create(&directory)?));
    if log.is_err() {
        // What never began is no run.
        let _ = std::fs::remove_dir_all(&directory);
    }
    log
}

/// What became of a run's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It died before its end, and nobody has sealed its log.
    Killed,
    /// It ended in order, or its log is sealed.
    Ended,
}

/// What became of the process of the run in this directory.
pub fn life(directory: &Path) -> Life {
    match std::fs::read_to_string(directory.join(RUNNING)) {
        Ok(owner) if serde_json::from_str::<ProcessId>(&owner).is_ok_and(|id| id.is_alive()) => Life::Running,
        Ok(_) => Life::Killed,
        Err(_) => Life::Ended,
    }
}

/// Seals the logs of runs that were killed: their logs get an end that says what became of what was in force.
/// Returns the runs that were sealed.
pub fn seal_dead_runs(state: &State, journal: &Journal) -> Vec<String> {
    let mut sealed = Vec::new();
    for run in state.run_ids() {
        let directory = state.run(&run);
        if life(&directory) == Life::Killed && seal(journal, &run, &directory).is_some() {
            sealed.push(run);
        }
    }
    forget_unclaimed(state, journal);
    sealed
}

/// Removes records of what is undone that no run will take note of any more: it has ended, or its directory is gone. In
/// a journal that is shared with other homes, nobody here knows of their runs.
fn forget_unclaimed(state: &State, journal: &Journal) {
    if *journal != state.journal() {
        return;
    }
    // A journal that cannot be read keeps its records, and whoever is to inject next says why.
    for record in journal.records().unwrap_or_default() {
        if record.standing() == Standing::Undone && !state.run(&record.intent.run).join(RUNNING).exists() {
            // One that stays is tried again at the next start.
            let _ = journal.remove(&record.path);
        }
    }
}

fn seal(journal: &Journal, run: &str, directory: &Path) -> Option<()> {
    let log = crate::log::read(&directory.join(FILE)).ok()?;
    let mut notes = vec!["the run was killed before its end".to_owned()];
    let records = journal.records().unwrap_or_else(|error| {
        notes.push(format!("what became of its faults is not known here: {error}"));
        vec![]
    });
    for record in records.iter().filter(|r| r.intent.run == run) {
        let fault = &record.intent.fault;
        match (record.standing(), record.undone()) {
            (_, Some(undone)) => {
                notes.push(format!("{fault} was undone by the {}", undone.by));
                notes.extend(undone.notes.iter().cloned());
                let _ = journal.remove(&record.path);
            }
            (Standing::Undone, None) => {
                notes.push(format!("{fault} was undone by the kernel when its injector died"));
                let _ = journal.remove(&record.path);
            }
            (Standing::InForce, _) => notes.push(format!("{fault} is still being undone by its injector")),
            _ => notes.push(format!("{fault} was not undone yet: run `toprope undo {run}`")),
        }
    }
    if !log.is_closed() {
        let at = log.records.last().map_or(0, |r| r.at);
        let wall = jiff::Timestamp::now().to_string();
        let mut writer = LogWriter::reopen(directory).ok()?;
        writer.append(at, Event::Sealed { wall, notes }).ok()?;
        writer.finish().ok()?;
    }
    std::fs::remove_file(directory.join(RUNNING)).ok()
}

#[cfg(test)]
mod tests {
    use toprope_model::journal::{Intent, Mark, VERSION};
    use toprope_model::step::{Step, Undo, Undone};

    use super::*;

    #[test]
    fn ids_are_in_the_order_in_which_runs_began_whatever_the_clock_says() {
        let first = new_run_id(None);
        let second = new_run_id(Some(&first));
        assert!(second[..15] > first[..15], "{second} after {first}");
        // The clock was set back since.
        assert!(new_run_id(Some("20991231-235959-ffff")).starts_with("21000101-000000-"));
        // What is no id of ours is no time.
        for other in ["", "copy", "20999999-999999-0000", "ünïcödé-und-länger"] {
            assert!(new_run_id(Some(other)).as_str() < "2099");
        }
    }

    #[test]
    fn what_is_undone_is_forgotten_once_no_run_is_to_take_note_of_it() {
        let home = tempfile::tempdir().unwrap();
        let state = State::at(home.path());
        let begin = |run: &str| {
            let step = Step {
                describe: "x".into(),
                claims: vec![run.into()],
                undo: Undo::Restore(serde_json::json!({})),
                data: serde_json::json!({}),
            };
            let intent = Intent {
                version: VERSION,
                run: run.into(),
                injection: 0,
                fault: "command".into(),
                user: "me".into(),
                steps: vec![step],
                injector: String::new(),
                deadline_ms: 0,
                written: 0,
            };
            state.journal().begin(&intent).unwrap()
        };
        let undone = Mark::Undone(Undone { clean: true, ..Undone::default() });
        begin("lost").mark(&undone).unwrap();
        begin("alive").mark(&undone).unwrap();
        begin("dirty").mark(&Mark::Applying(0)).unwrap();
        let alive = state.run("alive");
        std::fs::create_dir_all(&alive).unwrap();
        std::fs::write(alive.join(RUNNING), serde_json::to_string(&ProcessId::current().unwrap()).unwrap()).unwrap();
        seal_dead_runs(&state, &state.journal());
        let left: Vec<String> = state.journal().records().unwrap().into_iter().map(|r| r.intent.run).collect();
        assert_eq!(left, ["alive", "dirty"]);
    }
}
