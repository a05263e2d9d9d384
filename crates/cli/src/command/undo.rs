//! `toprope undo`: repairs a host from the journal alone.

use std::time::Duration;

use rustix::process::Signal;
use toprope_engine::host::Host;
use toprope_engine::journal::{Record, Standing};
use toprope_engine::state::State;
use toprope_engine::undo::undo_record;
use toprope_faults::FAULTS;
use toprope_os::process::Pidfd;

use crate::args::UndoArgs;
use crate::invocation::{Failure, authority, directory, runtime};
use crate::{show, view};

/// Undoes what nobody holds any more; with `--force`, or when a run is named, also what is in force.
pub fn undo(args: &UndoArgs) -> Result<u8, Failure> {
    let state = authority()?;
    let journal = state.journal();
    let records = journal.records()?;
    let run =
        args.run.as_ref().map(|text| find(&records, text).or_else(|| state.find_run(text)).unwrap_or(text.clone()));
    let mine: Vec<&Record> = records.iter().filter(|r| run.as_ref().is_none_or(|run| r.intent.run == *run)).collect();
    let runtime = runtime()?;
    let (mut undone, mut left) = (0, 0);
    for record in mine {
        let what = format!("{} of run {}", record.intent.fault, record.intent.run);
        match record.standing() {
            Standing::Undone => {
                if !belongs_to_unsealed(&state, record) {
                    journal.remove(&record.path)?;
                }
            }
            Standing::InForce if run.is_none() && !args.force => {
                show::line(&format!("{what} is in force; end it with `toprope undo {}`", record.intent.run));
                left += 1;
            }
            standing => {
                if standing == Standing::InForce {
                    end_injector(record, &runtime);
                }
                if clean(&state, record, &runtime, &what)? {
                    undone += 1;
                } else {
                    left += 1;
                }
            }
        }
    }
    toprope_engine::run::seal_dead_runs(&state, &journal);
    match (undone, left) {
        (0, 0) => show::line("nothing to undo"),
        (n, 0) => show::line(&format!(
            "{}; `toprope residue` shows that the host is clean",
            show::count(n, "injection") + " undone"
        )),
        (_, left) => show::line(&format!("{} not undone", show::count(left, "injection"))),
    }
    Ok(if left == 0 { 0 } else { 4 })
}

/// Asks an injector to undo and end; kills it if it does not.
fn end_injector(record: &Record, runtime: &tokio::runtime::Runtime) {
    let Some(injector) = record.injector().and_then(|id| Pidfd::open(&id).ok()) else { return };
    runtime.block_on(async {
        let _ = injector.signal(Signal::TERM);
        if tokio::time::timeout(Duration::from_secs(10), injector.exited()).await.is_err() {
            let _ = injector.signal(Signal::KILL);
            let _ = tokio::time::timeout(Duration::from_secs(10), injector.exited()).await;
        }
    });
}

/// The run that a text means: one that the journal knows, which under sudo is another user's.
fn find(records: &[Record], text: &str) -> Option<String> {
    let mut like = records.iter().map(|r| &r.intent.run).filter(|run| run.starts_with(text) || run.ends_with(text));
    let first = like.next()?;
    like.all(|run| run == first).then(|| first.clone())
}

fn clean(state: &State, record: &Record, runtime: &tokio::runtime::Runtime, what: &str) -> Result<bool, Failure> {
    let journal = state.journal();
    if !record.path.exists() {
        return Ok(true); // The injector removed it when its run took note.
    }
    let host = Host {
        services: vec![],
        own: vec![],
        invoking_user: std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()),
        directory: directory(),
        person: view::person(),
        pass_throughs: vec![],
        pass_through: None,
    };
    let result = runtime.block_on(undo_record(&journal, record, FAULTS, &host, "toprope undo", vec![]))?;
    show::line(&format!("{what}: {}", if result.clean { "undone" } else { "could not be undone" }));
    result.notes.iter().for_each(|note| show::line(&format!("  {note}")));
    if result.clean && journal.read(&record.path).is_ok_and(|r| r.standing() == Standing::Undone) {
        // The dead run's log is sealed with it before it goes.
        if !belongs_to_unsealed(state, record) {
            journal.remove(&record.path)?;
        }
    }
    Ok(result.clean)
}

/// Whether the log of the record's run still waits to be sealed with it.
fn belongs_to_unsealed(state: &State, record: &Record) -> bool {
    state.run(&record.intent.run).join(toprope_engine::run::RUNNING).exists()
}
